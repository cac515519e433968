/** One look at a tree and at what others hold of it; all checks of the source judge this look. */

import type { BigIntStats } from 'node:fs';
import { setImmediate as breathe } from 'node:timers/promises';
import {
  type OpenFile,
  openFilesOf,
  readTaskLink,
  statOpenFile,
  statTaskLink,
  targetsOf,
} from '../host/descriptors.js';
import { fileMappingsOf, isShared, isWritable, type Mapping } from '../host/mappings.js';
import { allProcesses, readStat, readStatus, type TaskStat, threadsOf, treeOf } from '../host/tasks.js';
import { readUnixSockets, type UnixSocket } from './unix-sockets.js';

export const namespaceKinds = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const;
export type NamespaceKind = (typeof namespaceKinds)[number];

export interface SeenFile extends OpenFile {
  readonly pid: number;
  /** Null when it was closed meanwhile. */
  readonly stat: BigIntStats | null;
}

export interface SeenTask {
  readonly stat: TaskStat;
  readonly status: ReadonlyMap<string, string>;
  readonly threads: readonly number[];
  readonly exe: string | null;
  readonly cwd: string | null;
  readonly files: readonly SeenFile[];
  readonly mappings: readonly Mapping[];
  /** `net:[4026531840]` of each kind; null where the kernel has none. */
  readonly namespaces: Readonly<Record<NamespaceKind, string | null>>;
}

/** Somebody outside the tree who holds something that the tree holds too. */
export interface Outsider {
  readonly pid: number;
  readonly comm: string;
  /** Null for a mapping. */
  readonly fd: number | null;
}

export interface Snapshot {
  readonly root: number;
  readonly tasks: readonly SeenTask[];
  readonly pids: ReadonlySet<number>;
  readonly unix: ReadonlyMap<number, UnixSocket>;
  /** First outside holder of each pipe, socket, FIFO, pty and nameless file of the tree, and of its sockets' peers, by `heldThing`. */
  readonly heldOutside: ReadonlyMap<string, Outsider>;
  /** First outsider who maps a file shared, by `mappedThing`. */
  readonly mappedOutside: ReadonlyMap<string, Outsider>;
  readonly own: Readonly<Record<NamespaceKind, string | null>>;
}

/** Looks at the tree below `root`, and at all other tasks that can be seen. Reads /proc only (dangers.md 17d). */
export async function takeSnapshot(root: number, signal: AbortSignal): Promise<Snapshot> {
  for (let look = 1; ; look++) {
    const snapshot = await lookOnce(root, signal);
    if (look === maxLooks || treeOf(root).every((pid) => snapshot.pids.has(pid))) return snapshot;
  }
}

/** A tree that has forked during a look is looked at again; one that forks all the time at most so often. */
const maxLooks = 4;

async function lookOnce(root: number, signal: AbortSignal): Promise<Snapshot> {
  const tasks = treeOf(root).flatMap((pid) => seeTask(pid) ?? []);
  const pids = new Set(tasks.map((task) => task.stat.pid));
  const unix = await readUnixSockets(signal);
  const outside = await lookOutside(tasks, pids, unix, signal);
  return { root, tasks, pids, unix, ...outside, own: namespacesOf('self') };
}

/** What a file that can be shared with outsiders is known by; null for one where sharing is harmless. */
export function heldThing(target: string, stat: () => BigIntStats | null): string | null {
  if (/^(pipe|socket):\[\d+\]$/.test(target)) return target;
  if (/^\/dev\/pts\/\d+$/.test(target)) {
    // Each devpts counts from 0: containers have a /dev/pts/0 too.
    const pty = stat();
    return pty === null ? null : `pty ${pty.dev}:${pty.ino}`;
  }
  if (!target.startsWith('/')) return null;
  const nameless = target.endsWith(' (deleted)');
  const facts = nameless || mayBeFifo(target) ? stat() : null;
  return facts !== null && (nameless || facts.isFIFO()) ? `file ${facts.dev}:${facts.ino}` : null;
}

export function mappedThing(mapping: Mapping): string {
  return `${mapping.device}:${mapping.inode}`;
}

function seeTask(pid: number): SeenTask | null {
  const stat = readStat(pid);
  const status = readStatus(pid);
  if (stat === null || status === null) return null;
  return {
    stat,
    status,
    threads: threadsOf(pid),
    exe: readTaskLink(pid, 'exe'),
    cwd: readTaskLink(pid, 'cwd'),
    files: openFilesOf(pid).map((file) => ({ ...file, pid, stat: statOpenFile(pid, file.fd) })),
    mappings: fileMappingsOf(pid),
    namespaces: namespacesOf(pid),
  };
}

function namespacesOf(pid: number | 'self'): Record<NamespaceKind, string | null> {
  const own = pid === 'self' ? process.pid : pid;
  const links = namespaceKinds.map((kind) => [kind, readTaskLink(own, `ns/${kind}`)] as const);
  return Object.fromEntries(links) as Record<NamespaceKind, string | null>;
}

async function lookOutside(
  tasks: readonly SeenTask[],
  pids: ReadonlySet<number>,
  unix: ReadonlyMap<number, UnixSocket>,
  signal: AbortSignal,
): Promise<Pick<Snapshot, 'heldOutside' | 'mappedOutside'>> {
  const held = new Set<string>();
  for (const file of tasks.flatMap((task) => task.files)) {
    const thing = heldThing(file.target, () => file.stat);
    if (thing === null) continue;
    held.add(thing);
    // The socket at the other end: its holder is to be named.
    const peer = unix.get(Number(/^socket:\[(\d+)\]$/.exec(thing)?.[1] ?? -1))?.peer ?? 0;
    if (peer !== 0) held.add(`socket:[${peer}]`);
  }
  const mapped = new Set(tasks.flatMap((task) => task.mappings.filter(isShared).map(mappedThing)));
  const heldOutside = new Map<string, Outsider>();
  const mappedOutside = new Map<string, Outsider>();
  for (const pid of allProcesses()) {
    if (pids.has(pid)) continue;
    const stat = readStat(pid);
    if (stat === null || isBornInside(stat, pids)) continue;
    for (const { fd, target } of held.size === 0 ? [] : targetsOf(pid)) {
      const thing = heldThing(target, () => statOpenFile(pid, fd));
      if (thing !== null && held.has(thing) && !heldOutside.has(thing))
        heldOutside.set(thing, { pid, comm: stat.comm, fd });
    }
    for (const mapping of mapped.size === 0 ? [] : fileMappingsOf(pid)) {
      const thing = mappedThing(mapping);
      if (!isShared(mapping) || !mapped.has(thing)) continue;
      // A writer says more than a reader.
      if (!mappedOutside.has(thing) || isWritable(mapping))
        mappedOutside.set(thing, { pid, comm: stat.comm, fd: null });
    }
    // A host can have thousands of processes: the agent's heartbeats go on meanwhile.
    await breathe();
    signal.throwIfAborted();
  }
  return { heldOutside, mappedOutside };
}

/** A child that the tree has got since it was listed holds what its parent holds, and is no outsider. */
function isBornInside({ parent }: TaskStat, pids: ReadonlySet<number>): boolean {
  if (parent === 0) return false;
  if (pids.has(parent)) return true;
  const next = readStat(parent);
  return next !== null && isBornInside(next, pids);
}

/** Not worth a stat(2) each: most open files of most processes. */
function mayBeFifo(target: string): boolean {
  return !/^\/(usr|lib|lib64|bin|sbin|proc|sys)\/|^\/dev\/(null|zero|u?random|full|tty|ptmx)$/.test(target);
}

/** stat(2) of what a mapping maps, whatever its name leads to by now. */
export function statMapping(pid: number, mapping: Mapping): BigIntStats | null {
  return statTaskLink(pid, `map_files/${mapping.range}`);
}
