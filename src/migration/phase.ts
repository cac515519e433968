/**
 * The state machine of one migration, as one table and one transition function.
 *
 *     checking -> preparing -> armed -> freezing -> restoring -> | committing -> taking-over -> moved
 *        |            |          |          |           |        |
 *        v            v          v          v           v    the line: nothing behind it leads back to the source
 *     checked       undone     undone     undone      undone
 */
import { PhaulError } from '../failure/phaul-error.js';
import type { PhaseName } from './report.js';

const moves: Readonly<Record<PhaseName, readonly PhaseName[]>> = {
  checking: ['preparing', 'checked', 'undone'],
  preparing: ['armed', 'undone'],
  armed: ['freezing', 'undone'],
  freezing: ['restoring', 'images-kept', 'undone'],
  restoring: ['committing', 'undone'],
  // ---- the line ----
  committing: ['taking-over', 'lost-sight'],
  'taking-over': ['moved', 'lost-sight'],
  'lost-sight': [],
  moved: [],
  'images-kept': [],
  checked: [],
  undone: [],
};

/** Phases from which the source can still go on. */
export const beforeTheLine: ReadonlySet<PhaseName> = new Set([
  'checking',
  'preparing',
  'armed',
  'freezing',
  'restoring',
]);

export class PhaseMachine {
  #now: PhaseName = 'checking';
  readonly #entered: { phase: PhaseName; at: number }[];
  readonly #onMove: (phase: PhaseName, at: number) => void;
  readonly #clock: () => number;

  constructor(clock: () => number, onMove: (phase: PhaseName, at: number) => void) {
    this.#clock = clock;
    this.#onMove = onMove;
    const at = clock();
    this.#entered = [{ phase: 'checking', at }];
    onMove('checking', at);
  }

  get now(): PhaseName {
    return this.#now;
  }

  get sourceCanGoOn(): boolean {
    return beforeTheLine.has(this.#now);
  }

  move(to: PhaseName): void {
    const allowed = moves[this.#now];
    if (!allowed.includes(to)) {
      throw new PhaulError({
        code: 'illegal-phase',
        what: `a migration in phase ${this.#now} cannot enter ${to} (allowed: ${allowed.join(', ') || 'none'})`,
        remedy: 'this is a bug of phaul: please report it with the journal of the migration',
      });
    }
    this.#now = to;
    const at = this.#clock();
    this.#entered.push({ phase: to, at });
    this.#onMove(to, at);
  }

  /** Each phase left so far with the ms spent in it. */
  durations(): { phase: PhaseName; ms: number }[] {
    return this.#entered.slice(0, -1).map((entry, index) => ({
      phase: entry.phase,
      ms: (this.#entered[index + 1]?.at ?? entry.at) - entry.at,
    }));
  }
}
