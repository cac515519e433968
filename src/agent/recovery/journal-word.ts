/** What this host's journal says of a migration, to the other host and to recovery. */
import { PhaulError } from '../../failure/phaul-error.js';
import { LeafCgroup } from '../../host/cgroup.js';
import { migrationFolder } from '../../host/state.js';
import { bootId, isDying, isSameTask, pidNamespace } from '../../host/tasks.js';
import { type JournalState, stateOf } from '../../migration/journal.js';
import type { TaskIdentity } from '../../migration/ports.js';
import type { DestinationWord, SourceWord, TreeCondition } from '../../migration/recovery.js';
import { readJournal } from './journal-file.js';

/** What is left of the tree that a journal of this host names. */
export function treeCondition(state: JournalState): TreeCondition {
  if (state.opened.bootId !== bootId()) return 'another-boot';
  if (state.opened.pidNamespace !== pidNamespace('self')) return seenFromOutside(state);
  const tasks = state.frozen?.tasks ?? state.opened.tasks;
  const alive = tasks.filter(isWhole).length;
  if (alive === tasks.length) return 'whole';
  // Before the freeze a tree may lose children by itself; its root is what counts.
  if (state.frozen === null) return tasks[0] !== undefined && isWhole(tasks[0]) ? 'whole' : 'all-dead';
  if (wasLetGo(state, alive)) return 'whole';
  return alive === 0 ? 'all-dead' : 'partly-dead';
}

/** The journal's pids mean nothing here; only the leaf tells whether anything of the tree is left. Throws `another-pid-namespace`. */
function seenFromOutside({ opened, prepared }: JournalState): TreeCondition {
  if (!prepared?.cgroup || !LeafCgroup.at(prepared.cgroup).populated) return 'another-boot';
  throw new PhaulError({
    code: 'another-pid-namespace',
    what: `the tree of migration ${opened.id} lives in another pid namespace than this program`,
    remedy: `run phaul recover ${opened.id} where its agent ran`,
  });
}

/**
 * True when the frozen tree was thawed again: an abort was under way when its author died. Since then it lives its own
 * life, and those of its tasks that have ended have ended by themselves; a copy of how it was is worth nothing any more.
 */
function wasLetGo({ prepared, sourceDead }: JournalState, alive: number): boolean {
  if (!prepared?.cgroup || sourceDead) return false;
  const frozen = LeafCgroup.at(prepared.cgroup).frozenByOrder;
  // A leaf that is gone was removed behind a thaw, or went with its container: then nothing of the tree is alive.
  return frozen === null ? alive > 0 : !frozen;
}

/** The kill at the line is pending for a while before a task with much memory is gone: such a one is dead already (dangers.md 1). */
function isWhole(task: TaskIdentity): boolean {
  return isSameTask(task) && !isDying(task.pid);
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
