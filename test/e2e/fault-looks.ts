/** What must be true when a disturbed migration has been settled: one copy, its clients served, nothing left behind. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { LabHost } from '../../src/lab/lab-host.js';
import type { FaultLab } from './fault-lab.js';
import type { Side, Trial } from './fault-trial.js';

/** The side on which the process lives; fails where it is not exactly one. */
export function whereItLives(trial: Trial): Side {
  const sides = (['a', 'b'] as const).filter((side) => trial.isAliveOn(side));
  if (sides.length !== 1)
    throw new Error(`the process lives on ${sides.length === 0 ? 'no host' : 'both hosts'}\n${trial.logs()}`);
  return sides[0] as Side;
}

/**
 * The end of every trial: agents are back, both hosts were told to recover, then all must be as if nothing had been, on
 * exactly one host. `expected` null: on either.
 */
export async function expectWhole(faults: FaultLab, trial: Trial, expected: Side | null): Promise<void> {
  await trial.restartAgents();
  await trial.recover();
  await trial.settled();
  const home = whereItLives(trial);
  if (expected !== null) expect(home, trial.logs()).toBe(expected);
  await trial.clientsGoOn();
  const clients = await trial.clients.finish();
  expect(clients, trial.logs()).toMatchObject({ lost: 0, errors: 0, corrupt: 0, badPages: 0 });
  expect(clients.portsAfter.toSorted()).toEqual(clients.portsBefore.toSorted());
  expect(await leftBehind(faults, trial, home)).toEqual([]);
}

/** Everything of the migration that should not be there any more, in words. Janitors look every 2 s and then leave. */
export async function leftBehind(faults: FaultLab, trial: Trial, home: Side): Promise<string[]> {
  const deadline = performance.now() + 6000;
  for (;;) {
    const found = await leftNow(faults, trial, home);
    if (found.length === 0 || performance.now() > deadline) return found;
    await sleep(250);
  }
}

async function leftNow(faults: FaultLab, trial: Trial, home: Side): Promise<string[]> {
  const found: string[] = [];
  for (const side of ['a', 'b'] as const) {
    const host = faults.host(side);
    const isHome = side === home;
    const say = (what: string): void => void found.push(`${side}: ${what}`);
    for (const table of (await host.check(['nft', 'list', 'tables'])).split('\n')) {
      if (/ (phaul-|CRIU-)/.test(table)) say(table);
    }
    const links = await host.check(['ip', '-o', 'link', 'show']);
    for (const [tun] of links.matchAll(/phaul\d+/g)) say(`device ${tun}`);
    const addresses = await host.check(['ip', '-o', 'addr', 'show', 'dev', host.device]);
    if (addresses.includes(` ${trial.address}/`) !== isHome)
      say(isHome ? 'the address is missing' : 'the address is still here');
    for (const cgroup of cgroupsOf(host))
      if (!(isHome && side === 'b' && cgroup === `phaul/${trial.id}`)) say(`cgroup ${cgroup}`);
    const folder = join(host.stateFolder, 'migrations', trial.id);
    for (const name of ['dump', 'images']) if (existsSync(join(folder, name))) say(`folder ${name}`);
    const tasks = await host.check(['ps', '-eo', 'pid=,stat=,args=']);
    for (const line of tasks.split('\n')) {
      const [pid, stat = '', ...args] = line.trim().split(/\s+/);
      if (/^[Tt]/.test(stat)) say(`stopped task ${pid} ${args.join(' ')}`);
      if (/ swrk /.test(line) || args.includes('janitor')) say(`still running: ${pid} ${args.join(' ')}`);
    }
  }
  return found;
}

/** Leaves below the host's cgroup root that are phaul's, but for the one of its helpers. */
function cgroupsOf(host: LabHost): string[] {
  const root = host.outside('/sys/fs/cgroup');
  const below = (folder: string): string[] => {
    const path = join(root, folder);
    if (!existsSync(path)) return [];
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(folder, entry.name));
  };
  const ours = below('phaul').filter((cgroup) => cgroup !== 'phaul/helpers');
  const leaves = [...below('work'), ...ours.flatMap(below)].filter((cgroup) => cgroup.includes('/phaul-'));
  const frozen = [...ours, ...leaves].filter((cgroup) =>
    /frozen 1/.test(readFileSync(join(root, cgroup, 'cgroup.events'), 'utf8')),
  );
  return [...ours, ...leaves, ...frozen.map((cgroup) => `${cgroup} (frozen)`)];
}
