/** Which tasks there are, and whether one is still the one that was meant: /proc/PID/stat (proc_pid_stat(5)). */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { errnoOf } from '../failure/phaul-error.js';
import type { TaskIdentity, TreeIdentity } from '../migration/ports.js';

export interface TaskStat {
  readonly pid: number;
  readonly comm: string;
  /** R, S, D, Z, T, t, X, I. */
  readonly state: string;
  readonly parent: number;
  readonly processGroup: number;
  readonly session: number;
  /** Device number of the controlling terminal, 0 for none. */
  readonly terminal: number;
  /** Clock ticks since boot. */
  readonly startTime: number;
  readonly threads: number;
  readonly residentPages: number;
  /** PF_* of sched.h. */
  readonly flags: number;
}

/** Bit of `TaskStat.flags`: a thread of the kernel (sched.h PF_KTHREAD). */
export const kernelThreadFlag = 0x20_0000;

/** Null when there is no such task. */
export function readStat(pid: number): TaskStat | null {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === null) return null;
  // comm may hold spaces and parentheses: it ends at the last one.
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  const fields = text.slice(close + 2).split(' ');
  const field = (number: number): number => Number(fields[number - 3]);
  return {
    pid: Number(text.slice(0, open - 1)),
    comm: text.slice(open + 1, close),
    state: fields[0] ?? '?',
    parent: field(4),
    processGroup: field(5),
    session: field(6),
    terminal: field(7),
    startTime: field(22),
    threads: field(20),
    residentPages: field(24),
    flags: field(9),
  };
}

/** PF_EXITING of sched.h, since do_exit(). */
const exitingFlag = 0x4;
/** Bit of signal 9 in the sets of /proc/PID/status. */
const sigkillBit = 1n << 8n;

/** True when this very task still exists and has not ended (a zombie has). */
export function isSameTask(task: TaskIdentity): boolean {
  const stat = readStat(task.pid);
  return stat !== null && stat.startTime === task.startTime && !hasEnded(stat);
}

/** A zombie has ended, unless only its first thread has and others go on. */
export function hasEnded(stat: TaskStat): boolean {
  return (stat.state === 'Z' && stat.threads <= 1) || stat.state === 'X';
}

/** True when SIGKILL is pending or the task is on its way out: no code of its own will run any more. */
export function isDying(pid: number): boolean {
  const stat = readStat(pid);
  if (stat === null || (stat.flags & exitingFlag) !== 0) return true;
  const status = readStatus(pid);
  return ['SigPnd', 'ShdPnd'].some((set) => (BigInt(`0x${status?.get(set) ?? '0'}`) & sigkillBit) !== 0n);
}

/** Pids of a tree, root first. Goes through the children of every thread: those of other threads do not stand with the first (dangers.md 54). */
export function treeOf(root: number): number[] {
  const pids: number[] = [];
  const visit = (pid: number): void => {
    pids.push(pid);
    for (const thread of threadsOf(pid)) {
      const children = readProc(`/proc/${pid}/task/${thread}/children`) ?? '';
      for (const child of children.split(' ').filter((word) => word.trim() !== '')) visit(Number(child));
    }
  };
  if (readStat(root) !== null) visit(root);
  return pids;
}

/** Thread ids of a process; none when it is gone. */
export function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number);
  } catch (thrown) {
    if (isGone(thrown)) return [];
    throw thrown;
  }
}

/** Identities of these pids; those that are gone are left out. */
export function identitiesOf(pids: readonly number[]): TaskIdentity[] {
  return pids.flatMap((pid) => {
    const stat = readStat(pid);
    return stat === null ? [] : [{ pid, startTime: stat.startTime }];
  });
}

/** The tree below `root` as it is now; no tasks when the root is gone. */
export function treeIdentity(root: number): TreeIdentity {
  return { bootId: bootId(), pidNamespace: pidNamespace('self'), tasks: identitiesOf(treeOf(root)) };
}

/** Random at each boot of the kernel. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Pids of all processes that can be seen here (threads have none of their own in /proc's listing). */
export function allProcesses(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
}

/** Fields of /proc/PID/status by name; null when the task is gone. Takes a thread id too. */
export function readStatus(pid: number): ReadonlyMap<string, string> | null {
  const text = readProc(`/proc/${pid}/status`);
  if (text === null) return null;
  return new Map(
    text.split('\n').flatMap((line) => {
      const colon = line.indexOf(':');
      return colon < 0 ? [] : [[line.slice(0, colon), line.slice(colon + 1).trim()] as const];
    }),
  );
}

/** Inode of a task's pid namespace; 0 when the task is gone. */
export function pidNamespace(pid: number | 'self'): number {
  try {
    return statSync(`/proc/${pid}/ns/pid`).ino;
  } catch (thrown) {
    if (isGone(thrown)) return 0;
    throw thrown;
  }
}

/** A file of /proc, null when its task is gone. */
export function readProc(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    if (isGone(thrown)) return null;
    throw thrown;
  }
}

/** True for errors that say: the task (or its descriptor) has gone between two looks. */
export function isGone(thrown: unknown): boolean {
  return errnoOf(thrown) === 'ENOENT' || errnoOf(thrown) === 'ESRCH';
}

/**
 * True for errors that say: not even root may look into that task, because it has a capability that we lack (ptrace(2),
 * "Ptrace access mode checking"). In a container that is its pid 1, for one.
 */
export function isClosedToUs(thrown: unknown): boolean {
  return errnoOf(thrown) === 'EACCES' || errnoOf(thrown) === 'EPERM';
}
