/** CRIU fails by its own fault injection, in the middle of its work (criu/include/fault-injection.h gives the numbers). */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { soak } from '../sample.js';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole } from './fault-looks.js';
import type { Side } from './fault-trial.js';

const reason = whyNoFaults();

interface EngineFault {
  readonly name: string;
  readonly number: number;
  readonly at: Side;
}

const engineFaults: readonly EngineFault[] = [
  { name: 'dies early in the dump', number: 1, at: 'a' },
  { name: 'fails while it dumps pages', number: 3, at: 'a' },
  { name: 'cannot connect its parasite', number: 5, at: 'a' },
  { name: 'restores the root alone', number: 2, at: 'b' },
  { name: 'fails at the end of the restore', number: 6, at: 'b' },
];

describe('CRIU', () => {
  let faults: FaultLab;
  beforeAll(async () => {
    if (reason === null) faults = await FaultLab.create();
  });
  afterAll(async () => {
    await faults?.[Symbol.asyncDispose]();
  });

  // An ordinary run has one fault at the start of each side's work, and one at its end.
  const chosen = engineFaults.filter(({ number }) => soak || [1, 2, 6].includes(number));
  test.for(chosen)('$name', { timeout: 90_000 }, async ({ number, at }, context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: null, criuFault: { at, number } });
    const command = await trial.migrate();
    await command.finished;
    trial.endFault();
    await expectWhole(faults, trial, 'a');
  });
});
