/**
 * Files that a tree writes to, on two file systems: equal by hash while the tree is frozen, or the migration is aborted
 * (dangers.md 11). The source hashes in the hold, the destination compares before it restores.
 */
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';
import { hashFile, openToRead } from './file-proof.js';
import { isWritten, type TreeFacts } from './tree-facts.js';

const hashes = z
  .array(
    z.object({ path: z.string().startsWith('/').max(4096), bytes: z.number().int().nonnegative(), hash: z.string() }),
  )
  .max(100_000);

/** A greater file is only let through by the checks when it is proved to be one file on both hosts; bytes. */
export const frozenHashBudget = 256 * 1024 ** 2;

/** On the source, frozen: sizes and hashes as JSON. */
export async function hashWrittenFiles(facts: TreeFacts, signal: AbortSignal): Promise<string> {
  const written = facts.files.filter((fact) => fact.kind === 'file' && isWritten(fact));
  const found: z.infer<typeof hashes> = [];
  for (const { path, pid } of written) {
    await using file = await openToRead(`/proc/${pid}/root${path}`);
    if (file === null) continue;
    const { size } = await file.stat();
    if (size > frozenHashBudget) continue;
    found.push({ path, bytes: size, hash: await hashFile(file, size, signal) });
  }
  return JSON.stringify(found);
}

/** On the destination, before the restore. Throws `file-differs`, `bad-tree-facts`. */
export async function compareWrittenFiles(json: string, paths: readonly string[], signal: AbortSignal): Promise<void> {
  const there = parse(json);
  for (const path of paths) {
    const expected = there.find((each) => each.path === path);
    await using file = await openToRead(path);
    const stat = await file?.stat();
    const same =
      expected !== undefined &&
      file !== null &&
      stat?.isFile() === true &&
      stat.size === expected.bytes &&
      (await hashFile(file, expected.bytes, signal)) === expected.hash;
    if (same) continue;
    throw new PhaulError({
      code: 'file-differs',
      what: `${path}, which the process writes to, has another content on the destination than on the source.`,
      remedy:
        'Put it on a file system that both hosts share, or use --files-are-same if the difference does not matter.',
    });
  }
}

function parse(json: string): z.infer<typeof hashes> {
  try {
    return hashes.parse(JSON.parse(json));
  } catch (cause) {
    throw new PhaulError({
      code: 'bad-tree-facts',
      what: 'The hashes of written files that the source has sent cannot be read.',
      remedy: 'Use the same version of phaul on both hosts.',
      cause,
    });
  }
}
