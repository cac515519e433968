/** What recovery takes a tree for, with tasks of this machine and a folder that looks like a cgroup. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { treeCondition } from '../../src/agent/recovery/journal-word.js';
import { bootId, identitiesOf, pidNamespace } from '../../src/host/tasks.js';
import { type JournalRecord, type JournalState, stateOf } from '../../src/migration/journal.js';
import type { TaskIdentity } from '../../src/migration/ports.js';

let folder: string;
let alive: TaskIdentity;
let dead: TaskIdentity;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'phaul-leaf-'));
  const [self] = identitiesOf([process.pid]);
  const child = spawn('sleep', ['60']);
  const [ended] = identitiesOf([child.pid ?? 0]);
  child.kill('SIGKILL');
  await once(child, 'exit');
  if (self === undefined || ended === undefined) throw new Error('no tasks');
  alive = self;
  dead = ended;
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function frozenJournal(tasks: TaskIdentity[], boot = bootId()): JournalState {
  const records: JournalRecord[] = [
    {
      record: 'opened',
      at: 1,
      id: 'm1',
      role: 'source',
      bootId: boot,
      pidNamespace: pidNamespace('self'),
      tasks,
      rootPid: tasks[0]?.pid ?? 0,
      peer: 'b',
      owner: null,
      addresses: [],
      request: {},
    },
    { record: 'prepared', at: 2, cgroup: folder, origins: [], fence: null, imagesFolder: null, addresses: [] },
    { record: 'frozen', at: 3, tasks, lockTable: null, criuPid: 1 },
    { record: 'committing', at: 4 },
  ];
  const state = stateOf(records);
  if (state === null) throw new Error('no state');
  return state;
}

test('danger 1: tasks that die in a frozen leaf were killed at the line', () => {
  writeFileSync(join(folder, 'cgroup.freeze'), '1\n');
  expect(treeCondition(frozenJournal([alive, dead]))).toBe('partly-dead');
  expect(treeCondition(frozenJournal([dead]))).toBe('all-dead');
});

test('danger 1: a tree that was thawed again is never given to the copy, whoever of it has ended since', () => {
  writeFileSync(join(folder, 'cgroup.freeze'), '0\n');
  expect(treeCondition(frozenJournal([alive, dead]))).toBe('whole');
  expect(treeCondition(frozenJournal([dead]))).toBe('whole');
  rmSync(join(folder, 'cgroup.freeze'));
  expect(treeCondition(frozenJournal([alive, dead])), 'moved back, the leaf removed').toBe('whole');
  expect(treeCondition(frozenJournal([dead])), 'gone with its container').toBe('all-dead');
});

test('danger 5: nothing of another boot is taken for the tree', () => {
  expect(treeCondition(frozenJournal([alive], 'another'))).toBe('another-boot');
});
