/** File locks that the copy cannot take while the frozen source still holds them (dangers.md 41). */
import { writtenFilesToCompare } from './file-checks.js';
import type { TreeFacts } from './tree-facts.js';

/**
 * On the destination: true unless every file that the tree has locked is known to be another one here. A restore would
 * wait for the source's lock, or fail at once where it is an OFD lock (fcntl(2), flock(2)).
 */
export async function sharesLockedFiles(facts: TreeFacts): Promise<boolean> {
  const locked = new Set(facts.locks.filter(({ kind }) => kind !== 'LEASE').map(({ path }) => path));
  if (locked.size === 0) return false;
  const apart = new Set((await writtenFilesToCompare(facts)).map(({ path }) => path));
  return facts.files.some(({ kind, path }) => kind === 'file' && locked.has(path) && !apart.has(path));
}
