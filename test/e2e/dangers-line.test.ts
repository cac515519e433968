/** Who runs: around the line there is never a second copy, and never none (research: dangers 1-4, 6). */
import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole, whereItLives } from './fault-looks.js';
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

test(
  'danger 1: the agent stands still between kill and COMMIT: no task runs anywhere, then it goes on',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'killed' } });
    await trial.migrate();
    expect(await trial.bytesReceivedIn(1500)).toBe(0);
    expect(trial.isAliveOn('a')).toBe(false);
    expect(trial.journal('b')?.committed).toBe(false);
    await trial.goOn();
    await expectWhole(faults, trial, 'b');
  },
);

test(
  'danger 1: the intent alone is no death: agent killed behind `committing`, the whole tree goes on',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'committing-written' } });
    await trial.migrate();
    await trial.journalSays('b', 'ready', (state) => state.ready);
    const born = trial.startTime('a');
    await trial.killAgent('a');
    await expectWhole(faults, trial, 'a');
    expect(trial.startTime('a')).toBe(born);
  },
);

test(
  'danger 2: CRIU killed in its hold, then rolled back: sockets leave repair mode, every connection lives',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'transferring' } });
    await trial.migrate();
    await trial.killEngine('a');
    await trial.killAgent('b');
    await trial.goOn();
    await expectWhole(faults, trial, 'a');
  },
);

test('danger 2: CRIU and the agent killed in the hold: the janitor ends repair mode', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'a', step: 'transferring' } });
  await trial.migrate();
  await trial.killEngine('a');
  await trial.killAgent('a');
  await expectWhole(faults, trial, 'a');
});

test(
  'danger 3: the frozen tree is killed by others while the copy is ready: the copy is the process',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'committing-written' } });
    await trial.migrate();
    await trial.journalSays('b', 'ready', (state) => state.ready);
    await faults.a.check(['kill', '-9', String(trial.pid)]);
    await trial.killAgent('a');
    await expectWhole(faults, trial, 'b');
  },
);

test(
  'danger 3: a source that is merely unreachable is waited for; the operator may say that it is dead',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'killed' } });
    await trial.migrate();
    // As if host a had lost its power: nobody there acts any more.
    await trial.killJanitor('a');
    await trial.killAgent('a');
    await faults.lab.cut(faults.a, faults.b);
    try {
      await faults.b.phaul(['recover', trial.id]);
      expect(trial.journal('b')).toMatchObject({ ready: true, committed: false });
      const told = await faults.b.phaul(['recover', trial.id, '--source-is-dead']);
      expect(told.exitCode, told.stdout + told.stderr).toBe(0);
      await trial.journalSays('b', 'running', (state) => state.runningPid !== null);
    } finally {
      await faults.lab.mend(faults.a, faults.b);
    }
    await expectWhole(faults, trial, 'b');
  },
);

test(
  'danger 4: CRIU of the destination killed in the hold behind the line: restored again from its images',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'b', step: 'committed' } });
    await trial.migrate();
    const halfBuilt = trial.startTime('b');
    await trial.killEngine('b');
    await trial.goOn();
    await expectWhole(faults, trial, 'b');
    expect(trial.startTime('b')).not.toBe(halfBuilt);
  },
);

test('danger 4: agent and CRIU of the destination killed in the hold behind the line', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'committed' } });
  await trial.migrate();
  await trial.killEngine('b');
  await trial.killAgent('b');
  await expectWhole(faults, trial, 'b');
});

test.for(['before-resume', 'running'] as const)(
  'danger 4: agent killed at %s, when CRIU has let the copy go or will: it is adopted, never killed',
  limits,
  async (step, context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'b', step } });
    await trial.migrate();
    const born = trial.startTime('b');
    await trial.killAgent('b');
    await expectWhole(faults, trial, 'b');
    expect(trial.startTime('b')).toBe(born);
  },
);

test(
  'danger 4: CRIU of the destination killed when the sockets are live: the copy is adopted',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'b', step: 'before-resume' } });
    await trial.migrate();
    const born = trial.startTime('b');
    await trial.killEngine('b');
    await trial.goOn();
    await expectWhole(faults, trial, 'b');
    expect(trial.startTime('b')).toBe(born);
  },
);

test(
  'danger 5: recovery never takes a stranger with the same pid for the process; a torn line did not happen',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'committing-written' } });
    await trial.migrate();
    await trial.journalSays('b', 'ready', (state) => state.ready);
    await trial.killJanitor('a');
    await trial.killAgent('a');
    // CRIU rolls back by pid: it must have left before the pid is taken again.
    await eventually('CRIU has left', 5000, async () => (await trial.engines('a')).length === 0);
    await faults.a.check(['kill', '-9', String(trial.pid)]);
    const sleeper = ['/bin/sleep', '300'];
    expect(await faults.a.startAtHighPid(sleeper, { pid: trial.pid })).toBe(trial.pid);
    const born = trial.startTime('a');
    appendFileSync(trial.journalFile('a'), '{"record":"closed","at":1,"outco');
    await trial.restartAgents();
    await trial.recover();
    await trial.settled();
    expect(trial.isAliveOn('a')).toBe(true);
    expect(trial.startTime('a')).toBe(born);
    await faults.a.check(['kill', '-9', String(trial.pid)]);
    await expectWhole(faults, trial, 'b');
  },
);

test('danger 6: a second migration of the same process or of the same id is refused', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' } });
  const command = await trial.migrate();
  const again = ['migrate', String(trial.pid), 'b', '--move-address', trial.address];
  const sameProcess = await faults.a.phaul(again);
  expect(sameProcess.stderr).toContain('is on its way already');
  const sameId = await faults.a.phaul([...again, '--id', trial.id]);
  expect(sameId.exitCode).not.toBe(0);
  await trial.goOn();
  expect((await command.finished).exitCode).toBe(0);
  await expectWhole(faults, trial, 'b');
});

test('danger 6: recovery touches no migration that an agent works on', limits, async (context) => {
  context.skip(reason !== null, reason ?? '');
  await using trial = await faults.begin({ stop: { at: 'b', step: 'restoring' } });
  const command = await trial.migrate();
  // A janitor without an agent behind it (its standard input is at its end) recovers at once what it may.
  await using janitor = faults.a.spawn(faults.a.phaulArgv(['janitor', trial.id]));
  await faults.a.phaul(['recover', trial.id]);
  expect(await trial.bytesReceivedIn(1500)).toBe(0);
  expect(trial.journal('a')?.closed).toBe(null);
  expect(janitor.running).toBe(true);
  await trial.goOn();
  expect((await command.finished).exitCode).toBe(0);
  await expectWhole(faults, trial, 'b');
});

test(
  'danger 6: janitors, agents and operators that recover at the same time do not collide',
  limits,
  async (context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: { at: 'a', step: 'killed' } });
    await trial.migrate();
    await Promise.all([trial.killAgent('a'), trial.killAgent('b')]);
    await trial.restartAgents();
    await Promise.all([trial.recover(), trial.recover(), sleep(100).then(() => trial.recover())]);
    await trial.settled();
    expect(whereItLives(trial)).toBe('b');
    await expectWhole(faults, trial, 'b');
  },
);
