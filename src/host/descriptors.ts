/** Open files of a task: /proc/PID/fd and /proc/PID/fdinfo (proc_pid_fd(5), proc_pid_fdinfo(5)). */
import { type BigIntStats, readdirSync, readlinkSync, statSync } from 'node:fs';
import { isClosedToUs, isGone, readProc } from './tasks.js';

/** A file lock as its open file shows it; lines `lock:` of fdinfo have the format of /proc/locks (proc_locks(5)). */
export interface FileLock {
  /** OFDLCK belongs to the open file, POSIX to the process; a LEASE is broken by anybody's open(2). */
  readonly kind: 'POSIX' | 'FLOCK' | 'OFDLCK' | 'LEASE';
  readonly mode: string;
}

export interface OpenFile {
  readonly fd: number;
  /** What the link says: a path, `pipe:[N]`, `socket:[N]`, `anon_inode:[eventpoll]`, `/memfd:name (deleted)`. */
  readonly target: string;
  /** open(2) flags. */
  readonly flags: number;
  readonly mountId: number;
  readonly inode: number;
  readonly locks: readonly FileLock[];
  /** Of a pty master (`tty-index`): N of its /dev/pts/N; else null. */
  readonly ttyIndex: number | null;
}

/** Open files of a task, lowest first; none when it is gone. */
export function openFilesOf(pid: number): OpenFile[] {
  return targetsOf(pid).flatMap(({ fd, target }) => {
    const info = readProc(`/proc/${pid}/fdinfo/${fd}`);
    return info === null ? [] : [{ fd, target, ...parseFdinfo(info) }];
  });
}

/** Only where the descriptors of a task lead: a quarter of the work. None of a task that has more rights than we (`isClosedToUs`). */
export function targetsOf(pid: number): { fd: number; target: string }[] {
  try {
    return unlessGone(() => readdirSync(`/proc/${pid}/fd`), []).flatMap((name) => {
      const target = unlessGone(() => readlinkSync(`/proc/${pid}/fd/${name}`), null);
      return target === null ? [] : [{ fd: Number(name), target }];
    });
  } catch (thrown) {
    if (isClosedToUs(thrown)) return [];
    throw thrown;
  }
}

export function parseFdinfo(text: string): Omit<OpenFile, 'fd' | 'target'> {
  const field = (name: string): string | null => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(text)?.[1] ?? null;
  const ttyIndex = field('tty-index');
  return {
    flags: Number.parseInt(field('flags') ?? '0', 8),
    mountId: Number(field('mnt_id') ?? 0),
    inode: Number(field('ino') ?? 0),
    ttyIndex: ttyIndex === null ? null : Number(ttyIndex),
    locks: [...text.matchAll(/^lock:\s*\d+: (POSIX|FLOCK|OFDLCK|LEASE)\s+\S+\s+(\S+)/gm)].map((line) => ({
      kind: line[1] as FileLock['kind'],
      mode: line[2] ?? '',
    })),
  };
}

/** stat(2) of the open file itself, whatever its name leads to by now; null when it is gone. */
export function statOpenFile(pid: number, fd: number): BigIntStats | null {
  return unlessGone(() => statSync(`/proc/${pid}/fd/${fd}`, { bigint: true }), null);
}

/** Target of `exe`, `cwd`, `root` or a link below them in /proc/PID; null for a task that is gone or has none (kernel threads). */
export function readTaskLink(pid: number, name: string): string | null {
  return unlessGone(() => readlinkSync(`/proc/${pid}/${name}`), null);
}

/** What such a link leads to. */
export function statTaskLink(pid: number, name: string): BigIntStats | null {
  return unlessGone(() => statSync(`/proc/${pid}/${name}`, { bigint: true }), null);
}

function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch (thrown) {
    if (isGone(thrown)) return otherwise;
    throw thrown;
  }
}
