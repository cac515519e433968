/** The memory of a process flows through the agents and never piles up in them. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { phaulMigrate } from '../../src/demo/phaul-migrate.js';
import { startServer } from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import { count } from '../sample.js';
import { whyNoFaults } from './fault-lab.js';

const reason = whyNoFaults();
const memoryMib = count(768, 4096);
const mib = 2 ** 20;

test(`each agent needs less than 300 MB for a process of ${memoryMib} MiB`, { timeout: 300_000 }, async (context) => {
  context.skip(reason !== null, reason ?? '');
  // The process, its images on the destination, and the copy.
  context.skip(availableMib() < 3 * memoryMib + 1024, `needs ${3 * memoryMib + 1024} MiB of free memory`);
  await using lab = await Lab.create({ name: 'memory' });
  const [a, b] = [await lab.addHost('a'), await lab.addHost('b')];
  await lab.configureAgents();
  await using agentA = await LabAgent.start(a);
  await using agentB = await LabAgent.start(b);
  const { ip4: address } = lab.serviceAddress();
  await lab.addAddress(a, address);
  const pid = await startServer(a, { address, port: 7000, memoryMib, dirtyRate: 0, pid: 30_000 });
  const pids = [await agentA.process.outerPid(), await agentB.process.outerPid()];
  const most = [0, 0];
  const over = new AbortController();
  const watch = (async () => {
    while (!over.signal.aborted) {
      for (const [index, agent] of pids.entries()) most[index] = Math.max(most[index] ?? 0, anonymousBytes(agent));
      await sleep(20);
    }
  })();
  const report = await phaulMigrate(a, { pid, destination: 'b', addresses: [address] }, () => {}).finally(() =>
    over.abort(),
  );
  await watch;
  expect(report.bytes).toBeGreaterThan(memoryMib * mib);
  expect(b.isAlive(pid)).toBe(true);
  for (const bytes of most) {
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(300e6);
  }
});

/** RssAnon of proc_pid_status(5), in bytes. */
function anonymousBytes(pid: number): number {
  return kibibytes(`/proc/${pid}/status`, /^RssAnon:\s+(\d+) kB$/m) * 1024;
}

function availableMib(): number {
  return kibibytes('/proc/meminfo', /^MemAvailable:\s+(\d+) kB$/m) / 1024;
}

function kibibytes(file: string, line: RegExp): number {
  return Number(line.exec(readFileSync(file, 'utf8'))?.[1] ?? Number.NaN);
}
