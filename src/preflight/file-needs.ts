/** The files without which a tree cannot be restored, and how they travel: those that the destination must have, and those without a name. */
import type { BigIntStats } from 'node:fs';
import { statTaskLink } from '../host/descriptors.js';
import { isShared, isWritable, type Mapping } from '../host/mappings.js';
import { hashFile, openToRead, readBuildId } from './file-proof.js';
import { type SeenTask, type Snapshot, statMapping } from './snapshot.js';
import { type FileFact, type FileUse, isWritten, type TreeFacts } from './tree-facts.js';

/** All that is hashed of one tree's files, bytes; the rest has to be proved otherwise. */
const hashBudget = 2 * 1024 ** 3;
/** open(2) flags on x86-64 and arm64 alike (asm-generic/fcntl.h). */
const accessMode = 0o3;
const pathOnly = 0o1000_0000;

export type FileNeeds = Pick<TreeFacts, 'files' | 'ghosts' | 'linkRemaps' | 'locks'>;

interface Sighting {
  readonly path: string;
  readonly stat: BigIntStats;
  readonly use: FileUse;
  readonly pid: number;
  readonly fd: number | null;
}

/** Collects them; `proved` false leaves out hashes (they cost a read of each file). */
export async function fileNeedsOf(snapshot: Snapshot, proved: boolean, signal: AbortSignal): Promise<FileNeeds> {
  const ghosts = new Map<string, { path: string; bytes: number }>();
  const linkRemaps = new Set<string>();
  const files = new Map<string, FileFact>();
  for (const sighting of snapshot.tasks.flatMap(sightingsOf)) {
    const { path, stat } = sighting;
    const named = nameOf(path);
    if (stat.nlink === 0n) {
      const bytes = Math.max(Number(stat.size), Number(stat.blocks) * 512);
      ghosts.set(`${stat.dev}:${stat.ino}`, { path: named, bytes });
    } else if (isElsewhere(sighting)) {
      if (!stat.isDirectory()) linkRemaps.add(named);
    } else {
      const known = files.get(path);
      files.set(path, known === undefined ? factOf(sighting) : withUse(known, sighting));
    }
  }
  const facts = [...files.values()];
  return {
    files: proved ? await withProofs(facts, signal) : facts,
    ghosts: [...ghosts.values()],
    linkRemaps: [...linkRemaps],
    locks: snapshot.tasks.flatMap((task) =>
      task.files.flatMap((file) =>
        file.locks.map((lock) => ({ pid: file.pid, fd: file.fd, kind: lock.kind, path: nameOf(file.target) })),
      ),
    ),
  };
}

function sightingsOf(task: SeenTask): Sighting[] {
  const { pid } = task.stat;
  const sightings: Sighting[] = [];
  const add = (path: string | null, stat: BigIntStats | null, use: FileUse, fd: number | null = null): void => {
    if (path === null || stat === null || !travelsByName(path)) return;
    const known = stat.isFile() || stat.isFIFO() || stat.isDirectory() || stat.isCharacterDevice();
    if (known) sightings.push({ path, stat, use: stat.isDirectory() ? 'folder' : use, pid, fd });
  };
  add(task.exe, statTaskLink(pid, 'exe'), 'exe');
  add(task.cwd, statTaskLink(pid, 'cwd'), 'folder');
  for (const file of task.files) {
    const reads = (file.flags & accessMode) === 0 || (file.flags & pathOnly) !== 0;
    add(file.target, file.stat, reads ? 'read' : 'write', file.fd);
  }
  for (const mapping of distinct(task.mappings)) {
    if (!travelsByName(mapping.path)) continue;
    const shared = isShared(mapping) && isWritable(mapping);
    add(mapping.path, statMapping(pid, mapping), shared ? 'mapped-shared-writable' : 'mapped');
  }
  return sightings;
}

/** A library has five mappings; one look is enough, but a writable shared one must not be missed. */
function distinct(mappings: readonly Mapping[]): Mapping[] {
  const byFile = new Map<string, Mapping>();
  for (const mapping of mappings) {
    const key = `${mapping.device}:${mapping.inode}:${isShared(mapping) && isWritable(mapping)}`;
    if (!byFile.has(key)) byFile.set(key, mapping);
  }
  return [...byFile.values()];
}

/** False for what the kernel or CRIU makes anew: memory files, ptys, /proc and /sys. */
function travelsByName(path: string): boolean {
  if (!path.startsWith('/')) return false;
  return !/^\/(proc|sys|dev\/pts)\/|^\/dev\/(ptmx|zero \(deleted\))$|^\/(memfd:|SYSV|\[aio\]|anon_hugepage|secretmem)/.test(
    path,
  );
}

function nameOf(target: string): string {
  return target.endsWith(' (deleted)') ? target.slice(0, -' (deleted)'.length) : target;
}

/** True when the file has a name, but not this one: CRIU needs link-remap for it. */
function isElsewhere({ path, stat, pid }: Sighting): boolean {
  const there = statTaskLink(pid, `root${path}`);
  return there === null || there.dev !== stat.dev || there.ino !== stat.ino;
}

function factOf({ path, stat, use, pid, fd }: Sighting): FileFact {
  return {
    path,
    kind: stat.isDirectory() ? 'folder' : stat.isFIFO() ? 'fifo' : stat.isFile() ? 'file' : 'device',
    uses: [use],
    bytes: Number(stat.size),
    mode: Number(stat.mode),
    device: String(stat.dev),
    inode: String(stat.ino),
    deviceNumber: String(stat.rdev),
    buildId: null,
    hash: null,
    pid,
    fd,
  };
}

function withUse(fact: FileFact, { use, pid, fd }: Sighting): FileFact {
  if (fact.uses.includes(use)) return fact;
  const uses = [...fact.uses, use];
  // Who writes is the one to name.
  return use === 'write' ? { ...fact, uses, pid, fd } : { ...fact, uses };
}

async function withProofs(facts: readonly FileFact[], signal: AbortSignal): Promise<FileFact[]> {
  let left = hashBudget;
  const proved: FileFact[] = [];
  for (const fact of facts) {
    if (fact.kind !== 'file' || isWritten(fact)) {
      proved.push(fact);
      continue;
    }
    // Through the task's root: what it sees, whatever is mounted here.
    await using file = await openToRead(`/proc/${fact.pid}/root${fact.path}`);
    const buildId = file === null ? null : await readBuildId(file);
    const affordable = file !== null && buildId === null && fact.bytes <= left;
    if (affordable) left -= fact.bytes;
    proved.push({ ...fact, buildId, hash: affordable ? await hashFile(file, fact.bytes, signal) : null });
  }
  return proved;
}
