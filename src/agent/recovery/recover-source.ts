/** A departure that nobody works on any more: the tree goes on here, or everything is brought to the destination's side of the line. */
import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../failure/phaul-error.js';
import { LeafCgroup } from '../../host/cgroup.js';
import { TaskHandle } from '../../host/pidfd.js';
import { endRepairMode } from '../../host/repair.js';
import { migrationFolder } from '../../host/state.js';
import { bootId, isSameTask, readStat, readStatus } from '../../host/tasks.js';
import { removeLinkRemaps } from '../../images/link-remaps.js';
import type { JournalState } from '../../migration/journal.js';
import type { TaskIdentity } from '../../migration/ports.js';
import { decideSource } from '../../migration/recovery.js';
import { deleteLockTable } from '../../network/lock-table.js';
import { removeAddress } from '../../network/moved-address.js';
import { SourceFence } from '../../network/source-fence.js';
import { askDestination, dialOrNull } from '../control/ask-peer.js';
import { rpc } from '../control/rpc-service.js';
import type { Recovery } from '../duties.js';
import { JournalFile } from './journal-file.js';
import { treeCondition } from './journal-word.js';
import type { RecoveryMeans } from './recovery-means.js';

const sigkill = 9;
/** CRIU takes its hands off the tree within 100 ms of the agent's death. ms. */
const criuLeavesMs = 5000;
const askMs = 3000;
const commitMs = 60_000;

export async function recoverDeparture(state: JournalState, means: RecoveryMeans): Promise<Recovery> {
  const { id } = state.opened;
  await criuHasLeft(state);
  const tree = treeCondition(state);
  // COMMIT is only ever sent behind the kill: a whole tree goes on without waiting for the other host's word.
  if (tree === 'whole' && state.closed === null) {
    const lost = await resume(state);
    return await undone(state, means, `the process goes on here${lost}`);
  }
  await using link = await dialOrNull(state.opened.peer, means.config);
  const word = await askDestination(link, id);
  const action = decideSource(state, tree, word);
  switch (action.do) {
    case 'nothing':
      return { id, did: 'it is settled', settled: true };
    case 'resume-source':
    case 'resume-rest': {
      const lost = await resume(state);
      return await undone(state, means, `some tasks had died; the rest goes on here${lost}`);
    }
    case 'go-forward': {
      killRest(state);
      if (link !== null) await link.rpc.call(rpc.takeOver, { id, packets: [], lost: 0 }, { timeoutMs: commitMs });
      await bury(state);
      return { id, did: `the process runs on ${state.opened.peer}`, settled: true };
    }
    case 'tidy-up':
      if (state.sourceDead) {
        await bury(state);
        return { id, did: 'nothing of the process is left here', settled: true };
      }
      // It ended by itself, or by a stranger's hand, before it could move: its address is this host's.
      await resume(state);
      return await undone(state, means, 'the process has ended here before it could move');
    case 'ask-again':
      return {
        id,
        did: `${state.opened.peer} must say whether it holds the process, and cannot be reached`,
        settled: false,
      };
  }
}

/** Tells the destination, whose copy never runs without COMMIT whether it hears this or not, and closes the journal. */
async function undone(state: JournalState, means: RecoveryMeans, did: string): Promise<Recovery> {
  const { id, peer } = state.opened;
  await using link = await dialOrNull(peer, means.config);
  const told = await link?.rpc.call(rpc.abort, { id }, { timeoutMs: askMs }).then(
    () => '',
    (failure: unknown) => ` (${peer} was not told: ${messageOf(failure)})`,
  );
  await using journal = await JournalFile.reopen(migrationFolder(id));
  await close(state, journal, 'undone', did);
  return { id, did: did + (told ?? ` (${peer} could not be reached)`), settled: true };
}

/**
 * Thaws a tree that is whole, with its sockets out of repair mode and its fence gone. One step that fails keeps no other
 * from being made. Returns what was lost, in words; throws what is worth another try.
 */
async function resume(state: JournalState): Promise<string> {
  const leaf = state.prepared?.cgroup ? LeafCgroup.at(state.prepared.cgroup) : null;
  const tasks = livingTasks(state);
  let lost = '';
  try {
    endRepairMode(tasks);
  } catch (thrown) {
    // Those connections are gone for good, which must not cost the others theirs.
    lost = ` (${messageOf(thrown)})`;
  }
  const tables = [
    state.frozen?.lockTable ? deleteLockTable(state.frozen.lockTable) : Promise.resolve(),
    SourceFence.removeByName(state.opened.id),
  ];
  const gone = await Promise.allSettled(tables);
  // Whatever failed: what is whole must not stay frozen.
  leaf?.thaw();
  for (const end of gone) if (end.status === 'rejected') throw end.reason;
  if (leaf?.exists) {
    leaf.moveBack(state.prepared?.origins ?? []);
    await leaf.remove();
  }
  return lost;
}

function killRest(state: JournalState): void {
  if (state.prepared?.cgroup) LeafCgroup.at(state.prepared.cgroup).kill();
  for (const task of livingTasks(state)) {
    using handle = TaskHandle.open(task);
    handle?.signal(sigkill);
  }
}

/** Address first, then the fence: between them the kernel would reset the clients' connections (dangers.md 14). */
async function bury(state: JournalState): Promise<void> {
  await using journal = await JournalFile.reopen(migrationFolder(state.opened.id));
  killRest(state);
  for (const address of state.prepared?.addresses ?? []) await removeAddress(address);
  while (livingTasks(state).length > 0) await delay(10);
  await journal.write({ record: 'source-dead' });
  if (state.frozen?.lockTable) await deleteLockTable(state.frozen.lockTable);
  await SourceFence.removeByName(state.opened.id);
  if (state.prepared?.cgroup) await LeafCgroup.at(state.prepared.cgroup).remove();
  await close(state, journal, 'moved');
}

async function close(
  state: JournalState,
  journal: JournalFile,
  outcome: 'moved' | 'undone',
  note = 'by recovery',
): Promise<void> {
  if (state.prepared?.imagesFolder && outcome === 'undone') removeLinkRemaps(state.prepared.imagesFolder);
  if (state.prepared?.imagesFolder) await rm(state.prepared.imagesFolder, { recursive: true, force: true });
  await journal.write({ record: 'closed', outcome, note });
}

function livingTasks(state: JournalState): readonly TaskIdentity[] {
  // Start times count from the boot: in another one a stranger can have both numbers (dangers.md 5).
  if (state.opened.bootId !== bootId()) return [];
  return (state.frozen?.tasks ?? state.opened.tasks).filter(isSameTask);
}

function isTraced(task: TaskIdentity): boolean {
  return (readStatus(task.pid)?.get('TracerPid') ?? '0') !== '0';
}

/** Until the tracer is gone, repair mode and the tasks are CRIU's: it rolls back by itself when its socket has closed. */
async function criuHasLeft(state: JournalState): Promise<void> {
  const pid = state.frozen?.criuPid;
  const born = pid === undefined ? undefined : readStat(pid)?.startTime;
  const deadline = performance.now() + criuLeavesMs;
  while (performance.now() < deadline) {
    const stat = pid === undefined ? null : readStat(pid);
    const gone = stat === null || stat.state === 'Z' || stat.startTime !== born;
    // Before the hold nobody has written down which CRIU it is, but a dump traces its tasks.
    if (gone && !livingTasks(state).some(isTraced)) return;
    await delay(10);
  }
}
