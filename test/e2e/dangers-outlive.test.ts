/** What outlives an agent: the copy (danger 10), and the fences (danger 14). */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { LabHost } from '../../src/lab/lab-host.js';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole } from './fault-looks.js';

const reason = whyNoFaults();
let faults: FaultLab;

beforeAll(async () => {
  if (reason === null) faults = await FaultLab.create();
});
afterAll(async () => {
  await faults?.[Symbol.asyncDispose]();
});

const limits = { timeout: 90_000 };

/** Kills all that is in the cgroup of the agent and below it, as the end of its unit would. */
async function endUnit(host: LabHost): Promise<void> {
  await host.check(['sh', '-c', 'echo 1 > /sys/fs/cgroup/agent/cgroup.kill']);
}

test('danger 10: the end of the whole unit of the agent does not end what it has restored', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: null });
  const command = await trial.migrate();
  expect((await command.finished).exitCode).toBe(0);
  await trial.settled();
  await endUnit(faults.b);
  await trial.forgetAgent('b');
  await sleep(500);
  expect(trial.isAliveOn('b')).toBe(true);
  await expectWhole(faults, trial, 'b');
});

test(
  'danger 10: the end of the unit in the middle of the freeze: the janitor and CRIU are outside it',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'transferring' } });
    await trial.migrate();
    await endUnit(faults.a);
    await trial.forgetAgent('a');
    await trial.clientsGoOn();
    await expectWhole(faults, trial, 'a');
  },
);

test('danger 14: behind the line both fences outlive everybody, and no client is reset', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'a', step: 'killed' } });
  await trial.migrate();
  await Promise.all([trial.killJanitor('a'), trial.killJanitor('b')]);
  await Promise.all([trial.killAgent('a'), trial.killAgent('b')]);
  await sleep(1500);
  for (const host of [faults.a, faults.b]) {
    const closed = await host.check(['nft', 'list', 'ruleset']);
    expect(closed, host.name).toMatch(new RegExp(`set closed4 \\{[^}]*${trial.address.replaceAll('.', '\\.')}`));
  }
  expect(await trial.connectionsOfClients()).toBe(4);
  await expectWhole(faults, trial, 'b');
});

test(
  'danger 14: without COMMIT the janitor of the destination removes the address, then the fence',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'b', step: 'armed' } });
    await trial.migrate();
    expect(await faults.b.check(['ip', '-o', 'addr'])).toContain(` ${trial.address}/`);
    await trial.killAgent('b');
    await trial.journalSays('b', 'closed', (state) => state.closed?.outcome === 'undone');
    expect(await faults.b.check(['ip', '-o', 'addr'])).not.toContain(` ${trial.address}/`);
    expect(await faults.b.check(['nft', 'list', 'tables'])).not.toContain('phaul-');
    await expectWhole(faults, trial, 'a');
  },
);

test('danger 10: neither CRIU nor the janitor nor the copy is in the cgroup of the agent', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'held' } });
  await trial.migrate();
  const procs = join(faults.b.outside('/sys/fs/cgroup/agent'), 'cgroup.procs');
  const names = readFileSync(procs, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' '));
  expect(names.filter((name) => /swrk|janitor|server/.test(name))).toEqual([]);
  expect(readdirSync(faults.b.outside('/sys/fs/cgroup/phaul'))).toContain(trial.id);
  await trial.goOn();
  await expectWhole(faults, trial, 'b');
});
