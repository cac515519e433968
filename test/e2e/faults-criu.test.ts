/** CRIU fails by its own fault injection, in the middle of its work (criu/include/fault-injection.h gives the numbers). */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { FaultLab, type Side, whyNoFaults } from './fault-lab.js';
import { expectWhole } from './fault-looks.js';

const reason = whyNoFaults();

interface EngineFault {
  readonly name: string;
  readonly number: number;
  readonly at: Side;
  readonly home: Side;
}

const engineFaults: readonly EngineFault[] = [
  { name: 'dies early in the dump', number: 1, at: 'a', home: 'a' },
  { name: 'fails while it dumps pages', number: 3, at: 'a', home: 'a' },
  { name: 'cannot connect its parasite', number: 5, at: 'a', home: 'a' },
  { name: 'crashes in the dump', number: 136, at: 'a', home: 'a' },
  { name: 'restores the root alone', number: 2, at: 'b', home: 'a' },
  // Behind `post-restore`, and so behind the line: restored again.
  { name: 'fails behind its hold', number: 6, at: 'b', home: 'b' },
];

describe('CRIU', () => {
  let faults: FaultLab;
  beforeAll(async () => {
    if (reason === null) faults = await FaultLab.create();
  });
  afterAll(async () => {
    await faults?.[Symbol.asyncDispose]();
  });

  test.for(engineFaults)('$name', { timeout: 90_000 }, async ({ number, at, home }, context) => {
    context.skip(reason !== null, reason ?? '');
    await using trial = await faults.begin({ stop: null, criuFault: { at, number } });
    const command = await trial.migrate();
    await command.finished;
    await expectWhole(faults, trial, home);
  });
});
