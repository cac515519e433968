/** Crash recovery as pure decisions: over all combinations exactly one copy may run afterwards. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type JournalRecord, type JournalState, parseJournal, stateOf } from '../../src/migration/journal.js';
import {
  type CopyCondition,
  type DestinationWord,
  decideDestination,
  decideSource,
  type SourceWord,
  type TreeCondition,
} from '../../src/migration/recovery.js';

const opened: JournalRecord = {
  record: 'opened',
  at: 1,
  id: 'm1',
  role: 'source',
  bootId: 'x',
  pidNamespace: 1,
  tasks: [{ pid: 7, startTime: 1 }],
  rootPid: 7,
  peer: 'b',
  owner: null,
  addresses: [],
  request: {},
};

function journal(...records: JournalRecord[]): JournalState {
  const state = stateOf([opened, ...records]);
  if (state === null) throw new Error('no state');
  return state;
}

const committing: JournalRecord = { record: 'committing', at: 2 };
const ready: JournalRecord = { record: 'ready', at: 2 };
const committed: JournalRecord = { record: 'committed', at: 3 };
const running: JournalRecord = { record: 'running', at: 4, pid: 7 };

const trees: TreeCondition[] = ['whole', 'partly-dead', 'all-dead', 'another-boot'];

test('danger 1: a whole tree goes on whatever the intent says, unless the destination has COMMIT', () => {
  for (const records of [[], [committing]]) {
    for (const word of ['ready', 'nothing', 'unreachable'] as const) {
      expect(decideSource(journal(...records), 'whole', word)).toEqual({ do: 'resume-source' });
    }
  }
});

test('danger 1: a dead task goes forward only with READY, else what lives goes on', () => {
  expect(decideSource(journal(committing), 'partly-dead', 'ready')).toEqual({ do: 'go-forward' });
  expect(decideSource(journal(committing), 'partly-dead', 'nothing')).toEqual({ do: 'resume-rest' });
});

test('danger 3: a source that is proved dead before the line hands over to a ready copy; unreachable is no proof', () => {
  expect(decideSource(journal(), 'another-boot', 'ready')).toEqual({ do: 'go-forward' });
  expect(decideDestination(journal(ready), 'none', 'unreachable', false)).toEqual({ do: 'wait-for-source' });
  expect(decideDestination(journal(ready), 'none', 'unreachable', true)).toEqual({ do: 'restore-again' });
});

test('danger 4: after COMMIT the destination goes forward, and a copy that runs is adopted, never killed', () => {
  for (const word of ['undecided', 'killed', 'undone', 'unknown', 'unreachable'] as const) {
    expect(decideDestination(journal(ready, committed), 'running', word, false)).toEqual({ do: 'adopt' });
    expect(decideDestination(journal(ready, committed), 'held', word, false)).toEqual({ do: 'restore-again' });
    expect(decideDestination(journal(ready, committed), 'none', word, false)).toEqual({ do: 'restore-again' });
  }
  expect(decideDestination(journal(ready, committed, running), 'none', 'unreachable', false)).toEqual({ do: 'adopt' });
});

test('never two copies: source and destination deciding on the same facts never both run', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...trees),
      fc.boolean(),
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom<CopyCondition>('none', 'held', 'running'),
      (tree, hasCommitting, isReady, hasCommitted, copy) => {
        // COMMIT is only ever sent behind the kill, and only after READY.
        fc.pre(!hasCommitted || (tree !== 'whole' && isReady));
        // A copy runs only after COMMIT.
        fc.pre(copy !== 'running' || hasCommitted);
        const there = journal(...(isReady ? [ready] : []), ...(hasCommitted ? [committed] : []));
        const word: DestinationWord = hasCommitted ? 'committed' : isReady ? 'ready' : 'nothing';
        const here = decideSource(journal(...(hasCommitting ? [committing] : [])), tree, word);
        const sourceWord: SourceWord = here.do === 'resume-source' || here.do === 'resume-rest' ? 'undone' : 'killed';
        const then = decideDestination(there, copy, sourceWord, false);
        const sourceRuns = here.do === 'resume-source' || here.do === 'resume-rest';
        const copyRuns = then.do === 'adopt' || then.do === 'restore-again';
        expect(sourceRuns && copyRuns).toBe(false);
        // Something that could run still does, unless nothing was left.
        if (tree === 'whole' || isReady) expect(sourceRuns || copyRuns).toBe(true);
      },
    ),
  );
});

test('danger 5: a torn last line is a step that did not happen; damage elsewhere is not passed over', () => {
  const lines = [opened, committing].map((record) => JSON.stringify(record));
  const whole = `${lines.join('\n')}\n`;
  for (let cut = 0; cut <= whole.length; cut++) {
    const records = parseJournal(whole.slice(0, cut));
    expect(records.length).toBe(whole.slice(0, cut).split('\n').length - 1);
  }
  expect(() => parseJournal(`${lines[0]?.slice(1)}\n${lines[1]}\n`)).toThrow();
});
