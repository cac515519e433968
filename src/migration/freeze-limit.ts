/** How long a tree may stay frozen before the source takes it back by itself (dangers.md 7). */
import { PhaulError } from '../failure/phaul-error.js';
import type { Lifetime } from './lifetime.js';
import type { MigrationOrder } from './order.js';

/** Enough for CRIU's fixed work and a slow link's round trips. */
const baseMs = 30_000;
/** Stop-and-copy moves memory at 70 MB/s or better, else the operator should say so by --max-freeze. */
const perGibMs = 15_000;

/** ms; `--max-freeze`, or 30 s plus 15 s per GiB of resident memory. */
export function maxFreezeMs(order: MigrationOrder, memoryBytes: number): number {
  return order.maxFreezeMs ?? Math.round(baseMs + (memoryBytes / 2 ** 30) * perGibMs);
}

/** Ends `life` when the freeze lasts too long. The caller clears the deadline `max-freeze` behind the line. */
export function limitFreeze(order: MigrationOrder, memoryBytes: number, life: Lifetime): void {
  const limit = maxFreezeMs(order, memoryBytes);
  life.setDeadline('max-freeze', limit, () => {
    return new PhaulError({
      code: 'max-freeze',
      what: `the process was frozen for more than ${limit} ms`,
      remedy: 'it goes on at the source; try again with a longer --max-freeze or over a faster link',
    });
  });
}
