/** The story of a migration with fakes for its hosts: the order of steps, and who owns the process when a step fails. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { Lifetime } from '../../src/migration/lifetime.js';
import { migrate } from '../../src/migration/migrate.js';
import { defaultOrder, type MigrationOrder } from '../../src/migration/order.js';
import type { DestinationHost, Finding, SourceHost } from '../../src/migration/ports.js';
import type { MigrationEvent } from '../../src/migration/report.js';

const steps = [
  'inspect',
  'check',
  'landing.prepare',
  'departure.prepare',
  'arm',
  'freeze',
  'restoreAndHold',
  'intend',
  'kill',
] as const;
type Step = (typeof steps)[number];

/** Two hosts that only remember. `failing` throws at its step; `commitFailures` makes the first COMMITs fail. */
class World {
  readonly log: string[] = [];
  sourceAlive = true;
  copyRuns = false;
  failing: Step | null = null;
  commitFailures = 0;
  packetsFail = false;
  intendHangs = false;
  onStep: (step: string) => void = () => {};

  step(name: string): void {
    this.log.push(name);
    this.onStep(name);
    if (name === this.failing)
      throw new PhaulError({ code: 'planned', what: `planned failure in ${name}`, remedy: 'none' });
  }

  hosts(findings: Finding[] = []): { source: SourceHost; destination: DestinationHost } {
    const destination: DestinationHost = {
      name: 'b',
      check: async () => {
        this.step('check');
        return [];
      },
      prepare: async () => {
        this.step('landing.prepare');
        let taken = false;
        return {
          images: {
            bytesSent: 42,
            write: async () => {},
            end: async (name) => ({ name, bytes: 0, hash: '' }),
            flush: async () => {},
          },
          arm: async () => this.step('arm'),
          restoreAndHold: async () => {
            this.step('restoreAndHold');
            return { restoreMs: 1 };
          },
          keepImages: async () => {
            this.step('keepImages');
            return '/images';
          },
          takeOver: async () => {
            this.step('takeOver');
            if (this.commitFailures-- > 0)
              throw new PhaulError({ code: 'link-lost', what: 'link lost', remedy: 'wait' });
            expect(this.sourceAlive, 'the copy must never be let go while the source can run').toBe(false);
            this.copyRuns = true;
            taken = true;
            return { pid: 7, timeline: [], replayedPackets: 0, remarks: [], imagesFolder: null };
          },
          [Symbol.asyncDispose]: async () => {
            this.log.push(taken ? 'landing.tidied' : 'landing.undone');
          },
        };
      },
    };
    const source: SourceHost = {
      name: 'a',
      inspect: async (order) => {
        this.step('inspect');
        return {
          findings,
          request: {
            order,
            sourceHost: 'a',
            tree: { bootId: 'x', pidNamespace: 1, tasks: [{ pid: order.pid, startTime: 1 }] },
            memoryBytes: 1,
            tcpEstablished: true,
            treeFacts: '{}',
          },
        };
      },
      prepare: async () => {
        this.step('departure.prepare');
        return {
          remarks: [],
          freeze: async () => {
            this.step('freeze');
            return {
              delivered: [],
              timeline: [],
              intend: async () => {
                this.step('intend');
                if (this.intendHangs) await new Promise(() => {});
              },
              kill: () => {
                this.step('kill');
                this.sourceAlive = false;
              },
              caughtPackets: () => {
                if (this.packetsFail) throw new Error('the interface has gone');
                return { packets: [], lost: 0 };
              },
              bury: async () => {
                this.step('bury');
                return { timeline: [], remarks: [] };
              },
              [Symbol.asyncDispose]: async () => {
                this.log.push(this.sourceAlive ? 'resumed' : 'frozen.tidied');
              },
            };
          },
          [Symbol.asyncDispose]: async () => {
            this.log.push('departure.undone');
          },
        };
      },
    };
    return { source, destination };
  }

  async run(order: Partial<MigrationOrder> = {}, findings: Finding[] = []): Promise<MigrationEvent[]> {
    const events: MigrationEvent[] = [];
    const { source, destination } = this.hosts(findings);
    using life = new Lifetime();
    await migrate({ ...defaultOrder, id: 'm1', pid: 7, ...order }, source, destination, life, (event) =>
      events.push(event),
    );
    return events;
  }
}

describe('the story', () => {
  test('danger 1: kill, then COMMIT, then the burial; the intent is written before the kill', async () => {
    const world = new World();
    await world.run();
    expect(world.log).toEqual([
      'inspect',
      'check',
      'landing.prepare',
      'departure.prepare',
      'arm',
      'freeze',
      'restoreAndHold',
      'intend',
      'kill',
      'takeOver',
      'bury',
      'frozen.tidied',
      'departure.undone',
      'landing.tidied',
    ]);
    expect(world.copyRuns && !world.sourceAlive).toBe(true);
  });

  test('before the line every failure leaves the source alive, no copy, and everything undone', async () => {
    for (const failing of steps) {
      const world = new World();
      world.failing = failing;
      const failure = await world.run().then(
        () => null,
        (thrown: unknown) => thrown as PhaulError,
      );
      expect(failure?.code).toBe('planned');
      expect(world.sourceAlive, failing).toBe(true);
      expect(world.copyRuns, failing).toBe(false);
      expect(['untouched', 'running-on']).toContain(failure?.place?.fate.kind);
      const prepared = world.log.includes('landing.prepare') && failing !== 'landing.prepare';
      expect(world.log.includes('landing.undone'), failing).toBe(prepared);
    }
  });

  test('danger 4: behind the line COMMIT is repeated until the copy runs', async () => {
    const world = new World();
    world.commitFailures = 3;
    await world.run();
    expect(world.log.filter((entry) => entry === 'takeOver')).toHaveLength(4);
    expect(world.copyRuns).toBe(true);
  });

  test('danger 1: whatever fails just behind the line, the landing is told to take over and never undone', async () => {
    const world = new World();
    world.packetsFail = true;
    await world.run();
    expect(world.copyRuns).toBe(true);

    const other = new World();
    const { source, destination } = other.hosts();
    using life = new Lifetime();
    const told = migrate({ ...defaultOrder, id: 'm1', pid: 7 }, source, destination, life, (event) => {
      if (event.kind === 'phase' && event.phase === 'committing') throw new Error('whoever watches has gone');
    });
    await expect(told).rejects.toMatchObject({ place: { fate: { kind: 'undecided' } } });
    expect(other.copyRuns).toBe(true);
    expect(other.log).not.toContain('landing.undone');
  });

  test('danger 7: a disk that hangs under the intent does not hold the frozen tree', async () => {
    const world = new World();
    world.intendHangs = true;
    const { source, destination } = world.hosts();
    using life = new Lifetime();
    world.onStep = (step) => {
      if (step === 'intend')
        setTimeout(() => life.end(new PhaulError({ code: 'max-freeze', what: 'too long', remedy: 'none' })), 5);
    };
    const told = migrate({ ...defaultOrder, id: 'm1', pid: 7 }, source, destination, life, () => {});
    await expect(told).rejects.toMatchObject({ code: 'max-freeze' });
    expect(world.sourceAlive).toBe(true);
    expect(world.log).toContain('resumed');
  });

  test('danger 7: an end that comes at any step before the kill is honoured, afterwards it changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...steps, 'takeOver', 'bury'), async (when) => {
        const world = new World();
        const { source, destination } = world.hosts();
        using life = new Lifetime();
        world.onStep = (step) => {
          if (step === when) life.end(new PhaulError({ code: 'cancelled', what: 'cancelled', remedy: 'none' }));
        };
        const outcome = await migrate({ ...defaultOrder, id: 'm1', pid: 7 }, source, destination, life, () => {}).then(
          () => 'moved',
          (thrown: PhaulError) => thrown.code,
        );
        // Exactly one of the two can run, whatever the moment.
        expect(world.sourceAlive).toBe(outcome === 'cancelled');
        expect(world.copyRuns).toBe(outcome === 'moved');
        expect(outcome).toBe(['kill', 'takeOver', 'bury'].includes(when) ? 'moved' : 'cancelled');
      }),
      { numRuns: 60 },
    );
  });

  test('a blocker refuses before anything is prepared, and the other host is not asked', async () => {
    const world = new World();
    const blocker: Finding = {
      code: 'pid-is-init',
      weight: 'blocker',
      host: 'a',
      what: 'pid 1',
      why: 'it is init',
      remedy: 'choose another',
      pid: 1,
      fd: null,
    };
    await expect(world.run({}, [blocker])).rejects.toMatchObject({
      code: 'pid-is-init',
      place: { fate: { kind: 'untouched' } },
    });
    expect(world.log).toEqual(['inspect']);
  });

  test('--leave-running: images stay there, the source goes on, nothing is killed', async () => {
    const world = new World();
    const events = await world.run({ leaveRunning: true });
    expect(world.sourceAlive).toBe(true);
    expect(world.log).toContain('resumed');
    expect(world.log).not.toContain('kill');
    expect(events.at(-1)).toMatchObject({ kind: 'phase', phase: 'images-kept' });
  });
});
