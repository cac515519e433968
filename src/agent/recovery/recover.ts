/**
 * An agent, a janitor or an operator finds a migration that nobody works on: its journal and a look at the tasks decide
 * (src/migration/recovery.ts), then it is finished or undone.
 */
import { messageOf } from '../../failure/phaul-error.js';
import { MigrationLock } from '../../host/lock.js';
import { migrationFolder } from '../../host/state.js';
import { stateOf } from '../../migration/journal.js';
import type { Recovery } from '../duties.js';
import { readJournal } from './journal-file.js';
import { recoverLanding } from './recover-destination.js';
import { recoverDeparture } from './recover-source.js';
import type { RecoveryMeans } from './recovery-means.js';

/** Null: no such migration here. Never touches one that somebody works on. Does not throw: it is tried again, and others wait behind it. */
export async function recoverMigration(id: string, means: RecoveryMeans): Promise<Recovery | null> {
  try {
    return await recover(id, means);
  } catch (thrown) {
    return { id, did: `recovery failed: ${messageOf(thrown)}`, settled: false };
  }
}

async function recover(id: string, means: RecoveryMeans): Promise<Recovery | null> {
  const folder = migrationFolder(id);
  const before = stateOf(await readJournal(folder));
  if (before === null) return null;
  if (before.closed !== null) return { id, did: '', settled: true };
  using lock = await MigrationLock.tryTake(folder);
  if (lock === null) return { id, did: 'an agent or a janitor works on it', settled: false };
  // Read again with the lock in hand: its last owner may just have closed it.
  const state = stateOf(await readJournal(folder));
  if (state === null || state.closed !== null) return { id, did: 'it is settled', settled: true };
  return state.opened.role === 'source' ? await recoverDeparture(state, means) : await recoverLanding(state, means);
}
