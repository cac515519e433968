/** Deaths at moments that no step names: while CRIU dumps or restores, around the line, on the way out of the hold. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LabClients } from '../../src/lab/clients.js';
import { count, seed } from '../sample.js';
import { FaultLab, whyNoFaults } from './fault-lab.js';
import { expectWhole, whereItLives } from './fault-looks.js';

const reason = whyNoFaults();
const tries = Array.from({ length: count(1, 40) }, (_, index) => index);
/** A dump or a restore of the 16 MiB takes 10 to 50 ms. */
const spanMs = 60;

/** Times that repeat with the seed (mulberry32's multiplier, one round). */
function momentOf(index: number): number {
  const mixed = Math.imul(seed + index * 0x6d2b79f5, 0x9e3779b1) >>> 0;
  return 1 + (mixed % spanMs);
}

const cases = [
  { name: 'source agent while CRIU dumps', stop: { at: 'a', step: 'frozen' }, party: 'agent', side: 'a' },
  { name: 'destination agent around the line', stop: { at: 'b', step: 'restoring' }, party: 'agent', side: 'b' },
  { name: 'destination CRIU around the line', stop: { at: 'b', step: 'restoring' }, party: 'engine', side: 'b' },
] as const;

describe('killed at any moment', () => {
  let faults: FaultLab;
  beforeAll(async () => {
    if (reason === null) faults = await FaultLab.create();
  });
  afterAll(async () => {
    await faults?.[Symbol.asyncDispose]();
  });

  test.for(cases.flatMap((each) => tries.map((index) => ({ ...each, ms: momentOf(index) }))))(
    '$name, $ms ms later',
    { timeout: 90_000 },
    async ({ stop, party, side, ms }, context) => {
      context.skip(reason !== null, reason ?? '');
      await using trial = await faults.begin({ stop });
      await trial.migrate();
      await trial.goOnAndKill(party, side, ms);
      await expectWhole(faults, trial, null);
    },
  );

  // Its tasks run again before anybody can hear of its death, with sockets in repair mode: connections can be lost then.
  test.for(tries.map(momentOf))(
    'source CRIU in the middle of its dump, %i ms later: the process and its memory live',
    { timeout: 90_000 },
    async (ms, context) => {
      context.skip(reason !== null, reason ?? '');
      await using trial = await faults.begin({ stop: { at: 'a', step: 'frozen' } });
      await trial.migrate();
      await trial.goOnAndKill('engine', 'a', ms);
      await trial.settled();
      whereItLives(trial);
      const { address, port } = trial;
      const order = { address, port, connections: 1, mode: 'closed', thinkMs: 1, connectLoop: false } as const;
      await using clients = await LabClients.start(faults.client, { ...order, verifyAtEnd: true });
      expect(await clients.finish()).toMatchObject({ lost: 0, errors: 0, corrupt: 0, badPages: 0 });
    },
  );
});
