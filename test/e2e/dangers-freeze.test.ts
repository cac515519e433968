/** A frozen process is given back in time, and nobody loses a packet by it (research: dangers 7, 8, 13, 38c). */

import { existsSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { exitCode } from '../../src/cli/exit-codes.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole } from './fault-looks.js';
import { wake } from './fault-trial.js';
import { eventually } from './fault-wait.js';

const reason = whyNoFaults();
let faults: FaultLab;

beforeAll(async () => {
  if (reason === null) faults = await FaultLab.create();
});
afterAll(async () => {
  await faults?.[Symbol.asyncDispose]();
});

const limits = { timeout: 90_000 };

test('danger 7: --max-freeze gives the process back while the destination is stuck', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' } });
  await trial.migrate(['--max-freeze', '1s']);
  const since = performance.now();
  await trial.clientsGoOn();
  expect(performance.now() - since).toBeLessThan(4000);
  expect(trial.isAliveOn('a')).toBe(true);
  await trial.goOn();
  await expectWhole(faults, trial, 'a');
});

test('danger 7: a silent destination is given up within its heartbeats', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'held' } });
  await trial.migrate();
  const since = performance.now();
  await trial.clientsGoOn();
  // 5 s of silence; then TCP of the clients may wait for its next retransmission (backed off to 6 s).
  expect(performance.now() - since).toBeLessThan(14_000);
  await trial.goOn();
  await expectWhole(faults, trial, 'a');
});

test('danger 7: cancelled while frozen, the source goes on at once', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' }, clients: { thinkMs: 0 } });
  await trial.clients.mark();
  const command = await trial.migrate();
  // TCP of the clients sends again 0.2, 0.6, 1.4 and then 3 s after the freeze.
  await sleep(1600);
  await faults.a.check(faults.a.phaulArgv(['cancel', trial.id]));
  await trial.clientsGoOn();
  await trial.goOn();
  expect((await command.finished).exitCode).toBe(exitCode.cancelled);
  await trial.restartAgents();
  await trial.settled();
  const clients = await trial.clients.finish();
  expect(clients).toMatchObject({ lost: 0, errors: 0, corrupt: 0, badPages: 0 });
  expect(clients.longestSilenceMs.max).toBeGreaterThan(1500);
  expect(clients.longestSilenceMs.max).toBeLessThan(2700);
});

/** Answers each datagram with itself. */
const udpEcho = `
  use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; bind(S, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die;
  while (my $from = recv(S, my $data, 1500, 0)) { send(S, $data, 0, $from) }`;
/** Sends one datagram, once, and waits 20 s for the answer. */
const udpAsk = `
  use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; connect(S, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die;
  send(S, "hello", 0); alarm 20; recv(S, my $data, 1500, 0); print $data`;

test(
  'danger 38c: a datagram that came while the tree was frozen is answered after an abort',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    const { a, b, client, lab } = faults;
    const { ip4 } = lab.serviceAddress(39);
    const stopped = b.outside('/run/phaul/breakpoint');
    rmSync(stopped, { force: true });
    await using _agentA = await LabAgent.start(a, faults.agentEnvironment);
    await using agentB = await LabAgent.start(b, { ...faults.agentEnvironment, PHAUL_BREAKPOINT: 'restoring' });
    await lab.addAddress(a, ip4);
    const pid = await a.startAtHighPid(['/usr/bin/perl', '-e', udpEcho, ip4, '7999'], { pid: 40_000 });
    try {
      const ask = ['/usr/bin/perl', '-e', udpAsk, ip4, '7999'];
      await eventually('the server answers', 10_000, async () => (await client.run(ask)).stdout === 'hello');
      const command = a.spawn(a.phaulArgv(['migrate', String(pid), 'b', '--move-address', ip4, '--id', 'datagram']));
      await eventually('b stops at restoring', 20_000, async () => existsSync(stopped));
      const asking = client.spawn(ask);
      await sleep(500);
      expect(asking.running).toBe(true);
      await a.check(a.phaulArgv(['cancel', 'datagram']));
      expect((await asking.finished).stdout).toBe('hello');
      await wake(agentB);
      expect((await command.finished).exitCode).toBe(exitCode.cancelled);
    } finally {
      await wake(agentB);
      await a.run(['kill', '-9', String(pid)]);
      await a.run(['ip', 'addr', 'del', `${ip4}/32`, 'dev', a.device]);
    }
  },
);

test('danger 8: Ctrl-C asks to cancel', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' } });
  const command = await trial.migrate();
  await command.kill('SIGINT');
  await trial.clientsGoOn();
  await trial.goOn();
  expect((await command.finished).exitCode).toBe(exitCode.cancelled);
  await expectWhole(faults, trial, 'a');
});

test('danger 8: a killed command changes nothing', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' } });
  const command = await trial.migrate();
  await command.kill('SIGKILL');
  await trial.goOn();
  await expectWhole(faults, trial, 'b');
});

test(
  'danger 13: a client that keeps connecting has no failure, across a move and across an abort',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    for (const end of ['moved', 'cancelled'] as const) {
      await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' }, clients: { connectLoop: true } });
      const command = await trial.migrate();
      if (end === 'cancelled') await faults.a.check(faults.a.phaulArgv(['cancel', trial.id]));
      await trial.goOn();
      await command.finished;
      await trial.settled();
      await trial.clientsGoOn();
      await sleep(300);
      const clients = await trial.clients.finish();
      expect(clients).toMatchObject({ lost: 0, errors: 0, corrupt: 0, badPages: 0 });
      expect(clients.newConnections.failed).toBe(0);
      expect(clients.newConnections.ok).toBeGreaterThan(10);
    }
  },
);

test(
  'danger 13: a connection that is not accepted is never lost silently: the dump is refused, the process goes on',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: null });
    // A process that stands still accepts nothing.
    await faults.a.check(['kill', '-STOP', String(trial.pid)]);
    const talk = `exec 3<>/dev/tcp/${trial.address}/${trial.port}; echo open; sleep 30`;
    await using waiting = faults.client.spawn(['bash', '-c', talk]);
    await sleep(300);
    const command = await trial.migrate();
    const { exitCode: code, stderr } = await command.finished;
    expect(code, stderr).not.toBe(exitCode.done);
    expect(trial.isAliveOn('a')).toBe(true);
    await faults.a.check(['kill', '-CONT', String(trial.pid)]);
    expect(waiting.running).toBe(true);
    const seen = await faults.a.check(['ss', '-Htn', 'state', 'established', 'sport', '=', `:${trial.port}`]);
    expect(seen.trim().split('\n')).toHaveLength(5);
    await waiting.kill('SIGKILL');
    await expectWhole(faults, trial, 'a');
  },
);
