/**
 * The nft table with which CRIU locks the network of a dump. After a successful dump it stays on the source for ever.
 * Its name is `CRIU-` and the first 21 characters of the run id in inventory.img (dangers.md 15).
 */
import { neverAborted } from '../failure/never-aborted.js';
import { PhaulError } from '../failure/phaul-error.js';
import { nft } from './commands.js';

const runIdPattern = /^[A-Za-z0-9-]{1,64}$/;
const lockTablePattern = /^CRIU-[A-Za-z0-9-]{1,21}$/;

/**
 * Name of the lock table of one run.
 * @throws PhaulError `bad-run-id`: it came from an image, so from a peer
 */
export function lockTableName(runId: string): string {
  if (!runIdPattern.test(runId)) {
    throw new PhaulError({
      code: 'bad-run-id',
      what: `${JSON.stringify(runId.slice(0, 80))} is not the id of a CRIU run.`,
      remedy: "The images are damaged or not CRIU's: dump again.",
    });
  }
  return `CRIU-${runId.slice(0, 21)}`;
}

/** True for a name that a lock table of some CRIU can have. */
export function isLockTableName(table: string): boolean {
  return lockTablePattern.test(table);
}

/** Deletes exactly the lock table of this run, never another one's. Idempotent. After the line only when the address is gone. */
export async function deleteLockTable(runId: string): Promise<void> {
  const name = lockTableName(runId);
  await nft(`add table inet ${name}\ndelete table inet ${name}\n`, neverAborted);
}
