/** A landing that nobody works on any more: undone before COMMIT, brought to an end behind it. */
import { rm } from 'node:fs/promises';
import type { Engine } from '../../criu/engine.js';
import { neverAborted } from '../../failure/never-aborted.js';
import { PhaulError } from '../../failure/phaul-error.js';
import { MigrationLock } from '../../host/lock.js';
import { migrationFolder } from '../../host/state.js';
import { type JournalState, stateOf } from '../../migration/journal.js';
import type { CaughtPackets, Running } from '../../migration/ports.js';
import { type CopyCondition, decideDestination, type SourceWord } from '../../migration/recovery.js';
import { DestinationFence } from '../../network/destination-fence.js';
import { lookAtCopy } from '../arrival/copy-look.js';
import { announceAll, clearSite } from '../arrival/landing-site.js';
import { restoreFromDisk } from '../arrival/restore-from-disk.js';
import { SetAside } from '../arrival/set-aside.js';
import { askSource, dialOrNull } from '../control/ask-peer.js';
import { parseLandingRequest } from '../control/order-schema.js';
import type { Recovery } from '../duties.js';
import { JournalFile, readJournal } from './journal-file.js';
import type { RecoveryMeans } from './recovery-means.js';

export async function recoverLanding(state: JournalState, means: RecoveryMeans): Promise<Recovery> {
  const { id, peer } = state.opened;
  const action = decideDestination(
    state,
    await copyCondition(state),
    await sourceWord(state, means),
    means.sourceIsDead,
  );
  await using journal = await JournalFile.reopen(migrationFolder(id));
  switch (action.do) {
    case 'nothing':
      return { id, did: 'it is settled', settled: true };
    case 'undo':
      await undo(state, journal);
      return { id, did: 'nothing of it is left here; the source goes on', settled: true };
    case 'adopt':
      await adopt(state, journal);
      return { id, did: 'the process runs here', settled: true };
    case 'restore-again': {
      const running = await restoreFromDisk(state, {
        engine: await means.engine(),
        packets: { packets: [], lost: 0 },
        journal,
      });
      return { id, did: `the process was restored again and runs here (pid ${running.pid})`, settled: true };
    }
    case 'wait-for-source':
      // The copy is gone with its agent, its images are not; no address may stand here without a socket behind it.
      await clearSite(id, state.prepared?.addresses ?? [], null);
      return {
        id,
        did: `${peer} must say whether it has let go (its agent or janitor will); or: phaul recover ${id} --source-is-dead`,
        settled: false,
      };
  }
}

/** Only READY without COMMIT needs the source's word: everything else is decided here. */
async function sourceWord(state: JournalState, means: RecoveryMeans): Promise<SourceWord> {
  if (!state.ready || state.committed) return 'unreachable';
  await using link = await dialOrNull(state.opened.peer, means.config);
  return await askSource(link, state.opened.id);
}

/** COMMIT for a landing of which this agent remembers only the journal. Idempotent. */
export async function resumeLanding(id: string, means: { engine: Engine; packets: CaughtPackets }): Promise<Running> {
  using lock = await lockOf(id);
  void lock;
  const state = await openState(id);
  await using journal = await JournalFile.reopen(migrationFolder(id));
  if (state.runningPid !== null) {
    if (state.closed === null) await adopt(state, journal);
    return { pid: state.runningPid, timeline: [], replayedPackets: 0, remarks: [], imagesFolder: null };
  }
  if (!state.ready || state.closed !== null) {
    throw new PhaulError({
      code: 'take-over-impossible',
      what: `migration ${id} was never ready here`,
      remedy: 'look at the journals of both hosts: phaul status on each',
    });
  }
  if (!state.committed) await journal.write({ record: 'committed' });
  else if ((await copyCondition(state)) === 'running') {
    await adopt(state, journal);
    return { pid: state.opened.rootPid, timeline: [], replayedPackets: 0, remarks: [], imagesFolder: null };
  }
  return await restoreFromDisk(state, { ...means, journal });
}

/** ABORT for a landing of which this agent remembers only the journal. An unknown id is no error. */
export async function undoLanding(id: string): Promise<void> {
  const state = stateOf(await readJournal(migrationFolder(id)));
  if (state === null || state.closed !== null || state.opened.role !== 'destination') return;
  using lock = await lockOf(id);
  void lock;
  const again = await openState(id);
  if (again.closed !== null) return;
  if (again.committed) {
    throw new PhaulError({
      code: 'wrong-state',
      what: `migration ${id} has COMMIT here and cannot be aborted`,
      remedy: `phaul recover ${id}`,
    });
  }
  await using journal = await JournalFile.reopen(migrationFolder(id));
  await undo(again, journal);
}

async function undo(state: JournalState, journal: JournalFile): Promise<void> {
  const { id } = state.opened;
  await clearSite(id, state.prepared?.addresses ?? [], null);
  setAsideBy(state).putBack();
  await rm(`${migrationFolder(id)}/images`, { recursive: true, force: true });
  await journal.write({ record: 'closed', outcome: 'undone', note: 'by recovery' });
}

/** Never kills: a copy that runs is the process. */
async function adopt(state: JournalState, journal: JournalFile): Promise<void> {
  const { id, rootPid } = state.opened;
  const addresses = state.prepared?.addresses ?? [];
  DestinationFence.openByName(id, addresses);
  if (state.runningPid === null) await journal.write({ record: 'running', pid: rootPid });
  // Whoever let it go may have died before the neighbours were told; without that they wait for 107 s.
  await announceAll(addresses, neverAborted);
  await DestinationFence.removeByName(id);
  setAsideBy(state).discard();
  await rm(`${migrationFolder(id)}/images`, { recursive: true, force: true });
  await journal.write({ record: 'closed', outcome: 'moved', note: 'adopted by recovery' });
}

/** Without a cgroup on record no copy was begun. */
async function copyCondition(state: JournalState): Promise<CopyCondition> {
  if (state.prepared === null) return 'none';
  const { rootPid, tasks } = state.opened;
  return await lookAtCopy({ cgroup: state.prepared.cgroup, rootPid, pids: tasks.map((task) => task.pid) });
}

async function openState(id: string): Promise<JournalState> {
  const state = stateOf(await readJournal(migrationFolder(id)));
  if (state === null)
    throw new PhaulError({
      code: 'unknown-migration',
      what: `this host knows no migration ${id}`,
      remedy: 'phaul status shows those it knows',
    });
  return state;
}

async function lockOf(id: string): Promise<MigrationLock> {
  const lock = await MigrationLock.tryTake(migrationFolder(id));
  if (lock !== null) return lock;
  throw new PhaulError({
    code: 'migration-busy',
    what: `somebody works on migration ${id} on this host`,
    remedy: 'try again in a moment',
  });
}

/** What the agent before may have set aside. */
function setAsideBy({ opened }: JournalState): SetAside {
  return new SetAside(parseLandingRequest(JSON.stringify(opened.request)), `${migrationFolder(opened.id)}/images`);
}
