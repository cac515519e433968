/**
 * An agent, a janitor or an operator finds a migration that nobody works on: its journal and a look at the tasks decide
 * (src/migration/recovery.ts), then it is finished or undone.
 */
import type { Engine } from '../criu/engine.js';
import { messageOf } from '../failure/phaul-error.js';
import { MigrationLock } from '../host/lock.js';
import { migrationFolder } from '../host/state.js';
import { bootId, isSameTask } from '../host/tasks.js';
import { type JournalState, stateOf } from '../migration/journal.js';
import type { DestinationWord, SourceWord, TreeCondition } from '../migration/recovery.js';
import type { AgentConfig } from './config.js';
import type { Recovery } from './duties.js';
import { readJournal } from './journal-file.js';
import { recoverLanding } from './recover-destination.js';
import { recoverDeparture } from './recover-source.js';

export interface RecoveryMeans {
  /** The operator's word that the source will not come back. */
  readonly sourceIsDead: boolean;
  readonly config: AgentConfig;
  readonly engine: () => Promise<Engine>;
}

/** Null: no such migration here. Never touches one that somebody works on. */
export async function recoverMigration(id: string, means: RecoveryMeans): Promise<Recovery | null> {
  const folder = migrationFolder(id);
  const before = stateOf(await readJournal(folder));
  if (before === null) return null;
  if (before.closed !== null) return { id, did: '', settled: true };
  using lock = await MigrationLock.tryTake(folder);
  if (lock === null) return { id, did: 'an agent or a janitor works on it', settled: false };
  // Read again with the lock in hand: its last owner may just have closed it.
  const state = stateOf(await readJournal(folder));
  if (state === null || state.closed !== null) return { id, did: 'it is settled', settled: true };
  try {
    return state.opened.role === 'source' ? await recoverDeparture(state, means) : await recoverLanding(state, means);
  } catch (thrown) {
    return { id, did: `recovery failed: ${messageOf(thrown)}`, settled: false };
  }
}

/** What is left of the tree that a journal of this host names. */
export function treeCondition(state: JournalState): TreeCondition {
  if (state.opened.bootId !== bootId()) return 'another-boot';
  const tasks = state.frozen?.tasks ?? state.opened.tasks;
  const alive = tasks.filter(isSameTask).length;
  if (alive === tasks.length) return 'whole';
  // Before the freeze a tree may lose children by itself; its root is what counts.
  if (state.frozen === null) return tasks[0] !== undefined && isSameTask(tasks[0]) ? 'whole' : 'all-dead';
  return alive === 0 ? 'all-dead' : 'partly-dead';
}

/** What this host's journal says as the source. */
export async function wordAsSource(id: string): Promise<SourceWord> {
  const state = stateOf(await readJournal(migrationFolder(id)));
  if (state === null || state.opened.role !== 'source') return 'unknown';
  if (state.sourceDead || state.closed?.outcome === 'moved') return 'killed';
  if (state.closed !== null) return 'undone';
  const tree = treeCondition(state);
  return state.committing && tree !== 'whole' ? 'killed' : 'undecided';
}

/** What this host's journal says as the destination. */
export async function wordAsDestination(id: string): Promise<DestinationWord> {
  const state = stateOf(await readJournal(migrationFolder(id)));
  if (state === null || state.opened.role !== 'destination') return 'nothing';
  if (state.runningPid !== null || state.closed?.outcome === 'moved') return 'running';
  if (state.closed !== null) return 'nothing';
  if (state.committed) return 'committed';
  return state.ready ? 'ready' : 'nothing';
}
