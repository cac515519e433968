/** A connection over loopback to a process that stays would be reset after a move that looks well (research: danger 17b). */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { exitCode } from '../../src/cli/exit-codes.js';
import { startServer } from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import { targetFolder } from '../targets/catalog.js';
import { whyNoFaults } from './fault-lab.js';

const reason = whyNoFaults();

test('danger 17b: a tree with a local back-end that stays is refused, and goes on', {
  timeout: 90_000,
}, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using lab = await Lab.create({ name: 'loopback' });
  const [a, b] = [await lab.addHost('a'), await lab.addHost('b')];
  await lab.configureAgents();
  await using _agentA = await LabAgent.start(a);
  await using _agentB = await LabAgent.start(b);
  await startServer(a, { address: '127.0.0.1', port: 7000, memoryMib: 1, dirtyRate: 0, pid: 30_000 });
  const frontEnd = [join(targetFolder, 'client'), '--address', '127.0.0.1', '--port', '7000', '--connections', '1'];
  const pid = await a.startAtHighPid([...frontEnd, '--think-ms', '20'], { pid: 31_000 });
  const finished = await a.phaul(['migrate', String(pid), 'b'], { timeoutMs: 60_000 });
  expect(finished.exitCode, finished.stderr).toBe(exitCode.refused);
  expect(finished.stderr).toContain('connection-to-local-process');
  expect(finished.stderr).toContain('127.0.0.1:7000. (pid 31000, fd');
  expect([a.isAlive(pid), b.isAlive(pid)]).toEqual([true, false]);
});
