/**
 * Each party of a migration is killed at each step. Whatever dies when: in the end exactly one copy runs, where the line
 * says, with its memory and its connections whole, and nothing is left behind (DESIGN 7).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { Step } from '../../src/agent/breakpoint.js';
import { soak } from '../sample.js';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole } from './fault-looks.js';
import type { Side, Trial } from './fault-trial.js';

const reason = whyNoFaults();

type Party =
  | 'source agent'
  | 'destination agent'
  | 'both agents'
  | 'source criu'
  | 'destination criu'
  | 'command'
  | 'link';

interface Fault {
  readonly step: Step;
  readonly at: Side;
  readonly party: Party;
  /** Where the process must be in the end; null: on one of them. */
  readonly home: Side | null;
}

const sourceSteps: readonly Step[] = [
  'before-freeze',
  'frozen',
  'transferring',
  'committing-written',
  'ready',
  'killed',
  'commit-sent',
];
const destinationSteps: readonly Step[] = [
  'prepared',
  'armed',
  'restoring',
  'held',
  'committed',
  'before-resume',
  'running',
];
const behindTheLine = new Set<Step>(['killed', 'commit-sent', 'committed', 'before-resume', 'running']);
/** There the tree is in its frozen cgroup: the migration may go on without the source's CRIU. */
const inTheFrozenCgroup = new Set<Step>(['transferring', 'committing-written', 'ready', 'restoring', 'held']);
/** At commit-sent the copy may run already, and its CRIU has left. */
const destinationHasCriu = new Set<Step>([
  ...sourceSteps.filter((step) => step !== 'commit-sent'),
  'armed',
  'restoring',
  'held',
  'committed',
  'before-resume',
]);
const sourceHasCriu = new Set<Step>([
  ...sourceSteps.filter((step) => step !== 'commit-sent'),
  'armed',
  'restoring',
  'held',
]);

function homeOf(step: Step, party: Party): Side | null {
  if (party === 'command' || behindTheLine.has(step)) return 'b';
  // Everything is said: only the source itself can still keep it from crossing the line.
  if (step === 'ready' && (party === 'destination agent' || party === 'link')) return 'b';
  // The restore goes on beside the intent: its READY may be on the way already.
  if (step === 'committing-written' && (party === 'destination agent' || party === 'link')) return null;
  if (party === 'source criu' && inTheFrozenCgroup.has(step)) return null;
  // Its death shows only when the copy is asked for, and then the images are there.
  if (party === 'destination criu') return null;
  return 'a';
}

const parties: readonly Party[] = [
  'source agent',
  'destination agent',
  'both agents',
  'source criu',
  'destination criu',
  'command',
  'link',
];
const all: readonly Fault[] = parties.flatMap((party) =>
  [...sourceSteps, ...destinationSteps]
    .filter((step) =>
      party === 'source criu'
        ? sourceHasCriu.has(step)
        : party === 'destination criu'
          ? destinationHasCriu.has(step)
          : true,
    )
    .map((step) => ({
      step,
      party,
      at: sourceSteps.includes(step) ? ('a' as const) : ('b' as const),
      home: homeOf(step, party),
    })),
);

/** What an ordinary run tries; the tests of the dangers beside this file try the rest of what matters most. */
const sample = new Set<string>([
  'source agent at frozen',
  'destination agent at restoring',
  'both agents at transferring',
  'link at killed',
]);

const nameOf = ({ party, step }: Fault): string => `${party} at ${step}`;
const only = process.env.PHAUL_FAULT;
const chosen = all.filter((fault) =>
  only !== undefined ? new RegExp(only).test(nameOf(fault)) : soak || sample.has(nameOf(fault)),
);

describe('the death of one party', () => {
  let faults: FaultLab;
  beforeAll(async () => {
    if (reason === null) faults = await FaultLab.create();
  });
  afterAll(async () => {
    await faults?.[Symbol.asyncDispose]();
  });

  test.for(chosen.map((fault) => ({ name: nameOf(fault), fault })))(
    '$name',
    { timeout: 120_000 },
    async ({ fault }, context) => {
      context.skip(reason !== null, reason ?? '');
      await using trial = await faults.begin({ stop: { at: fault.at, step: fault.step } });
      await trial.migrate();
      await strike(faults, trial, fault);
      await expectWhole(faults, trial, fault.home);
    },
  );
});

async function strike(faults: FaultLab, trial: Trial, { party }: Fault): Promise<void> {
  if (party === 'source agent' || party === 'both agents') await trial.killAgent('a');
  if (party === 'destination agent' || party === 'both agents') await trial.killAgent('b');
  if (party === 'source criu') await trial.killEngine('a');
  if (party === 'destination criu') await trial.killEngine('b');
  if (party === 'command') await trial.command.kill('SIGKILL');
  if (party === 'link') await faults.lab.cut(faults.a, faults.b);
  await trial.goOn();
  if (party === 'link') {
    // Longer than the heartbeat's patience of 5 s.
    await sleep(8000);
    await faults.lab.mend(faults.a, faults.b);
  }
}
