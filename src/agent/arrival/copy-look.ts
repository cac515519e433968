/**
 * What became of a copy whose maker is gone: a look at its tasks, since neither a journal nor a missing answer of CRIU
 * can tell whether they were let go in the last moment (dangers.md 4). One that runs is never to be killed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { LeafCgroup } from '../../host/cgroup.js';
import { parseMaps } from '../../host/mappings.js';
import { hasEnded, readProc, readStat, readStatus } from '../../host/tasks.js';
import type { CopyCondition } from '../../migration/recovery.js';

export interface CopyPlace {
  /** Leaf cgroup of the copy and of its CRIU; null without a writable cgroup v2. */
  readonly cgroup: string | null;
  readonly rootPid: number;
  /** Pids that the copy has by its images. */
  readonly pids: readonly number[];
}

/** A CRIU that was hung up on kills the copy or lets it go, and leaves, within 100 ms. */
const engineLeavesMs = 5000;
/** All signals but SIGKILL and SIGSTOP, as CRIU's restorer blocks them until its last step. */
const allSignals = 'fffffffffffbfeff';

/** Waits first until CRIU has left: as long as it is there, the condition changes. */
export async function lookAtCopy(place: CopyPlace): Promise<CopyCondition> {
  await engineHasLeft(place);
  const inside = place.cgroup === null ? place.pids : LeafCgroup.at(place.cgroup).members();
  if (inside.includes(place.rootPid) && isAlive(place.rootPid))
    return waitsInRestorer(place.rootPid) ? 'held' : 'running';
  return inside.some((pid) => place.pids.includes(pid) && isAlive(pid)) ? 'held' : 'none';
}

async function engineHasLeft({ cgroup, pids }: CopyPlace): Promise<void> {
  if (cgroup === null) return;
  const leaf = LeafCgroup.at(cgroup);
  const deadline = performance.now() + engineLeavesMs;
  while (leaf.members().some((pid) => !pids.includes(pid) && isEngine(pid)) && performance.now() < deadline)
    await delay(10);
}

/**
 * Half-built tasks sleep in CRIU's restorer, code in an anonymous mapping, with all signals blocked; the restorer is
 * unmapped before a task runs code of its own (measured, CRIU 4.2: from `post-restore` on, whether CRIU lives or not).
 */
function waitsInRestorer(pid: number): boolean {
  // Not even as far as that: still a fork of CRIU, by its own name.
  if (isEngine(pid)) return true;
  if (readStatus(pid)?.get('SigBlk') !== allSignals) return false;
  // Last field of /proc/PID/syscall (proc_pid_syscall(5)): the program counter. `running` while the task runs.
  const counter = (readProc(`/proc/${pid}/syscall`) ?? '').trim().split(' ').at(-1) ?? '';
  if (!counter.startsWith('0x')) return false;
  const at = BigInt(counter);
  return parseMaps(readProc(`/proc/${pid}/maps`) ?? '').some(({ range, permissions, inode, path }) => {
    const [start = '0', end = '0'] = range.split('-');
    return (
      permissions[2] === 'x' && inode === '0' && path === '' && at >= BigInt(`0x${start}`) && at < BigInt(`0x${end}`)
    );
  });
}

function isEngine(pid: number): boolean {
  return isAlive(pid) && (readProc(`/proc/${pid}/cmdline`) ?? '').split('\0').includes('swrk');
}

function isAlive(pid: number): boolean {
  const stat = readStat(pid);
  return stat !== null && !hasEnded(stat);
}
