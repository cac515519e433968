/** What a migration tells while it goes on and when it is over. Events are what `--json` prints, one a line. */
import type { SerializedFailure } from '../failure/phaul-error.js';
import type { Finding, TimedStep } from './ports.js';

/** The chapters of the story; the order is the order of the story. */
export type PhaseName =
  | 'checking'
  | 'preparing'
  | 'armed'
  | 'freezing'
  | 'restoring'
  | 'committing'
  | 'taking-over'
  | 'moved'
  | 'images-kept'
  | 'checked'
  | 'undone'
  | 'lost-sight';

export type MigrationEvent =
  | { readonly kind: 'started'; readonly id: string; readonly source: string; readonly destination: string }
  | { readonly kind: 'finding'; readonly finding: Finding }
  | { readonly kind: 'phase'; readonly phase: PhaseName; readonly at: number }
  | { readonly kind: 'remark'; readonly text: string }
  | { readonly kind: 'done'; readonly report: Report }
  | { readonly kind: 'failed'; readonly failure: SerializedFailure };

/** Immutable once made. Times in ms. */
export interface Report {
  readonly id: string;
  readonly outcome: 'moved' | 'images-kept' | 'checked';
  readonly source: string;
  readonly destination: string;
  /** On the destination when moved, else on the source. */
  readonly pid: number;
  readonly phases: readonly { readonly phase: PhaseName; readonly ms: number }[];
  /** From the freeze on the source to the destination's word that the copy runs, by the source's clock; null when nothing was frozen. */
  readonly frozenMs: number | null;
  readonly bytes: number;
  readonly images: number;
  readonly replayedPackets: number;
  readonly findings: readonly Finding[];
  readonly remarks: readonly string[];
  /** All steps of the source, then all of the destination, each by its own host's clock. */
  readonly timeline: { readonly source: readonly TimedStep[]; readonly destination: readonly TimedStep[] };
  /** Folder of the verified images on the destination (`--leave-running`, `--keep-images`), else null. */
  readonly imagesFolder: string | null;
}

/** ms since the epoch with fractions, monotonic within a process. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Collects steps with their times. */
export class Timeline {
  readonly #steps: TimedStep[] = [];

  mark(step: string, at = nowMs()): void {
    this.#steps.push({ step, at });
  }

  get steps(): readonly TimedStep[] {
    return [...this.#steps];
  }
}
