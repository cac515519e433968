/**
 * Proof that a folder on two hosts is one folder: the source leaves a small file with a random content in it, the
 * destination looks (dangers.md 11). The files are removed as soon as the destination has looked, at the latest after two minutes.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../failure/phaul-error.js';
import { type FileFact, isWritten, type TreeFacts } from './tree-facts.js';

export type Nonce = TreeFacts['nonces'][number];

const contentBytes = 16;
const maxFolders = 256;
const patienceMs = 120_000;

/** Folders in which something is that a hash beforehand does not prove: files that are written to, names that CRIU makes. */
export function foldersToProve(facts: Pick<TreeFacts, 'files' | 'linkRemaps'>): string[] {
  const paths = [...facts.files.filter(needsNonce).map((file) => file.path), ...facts.linkRemaps];
  return [...new Set(paths.map((path) => dirname(path)))].slice(0, maxFolders);
}

function needsNonce(fact: FileFact): boolean {
  return fact.kind === 'file' && (isWritten(fact) || (fact.hash === null && fact.buildId === null));
}

export class Nonces implements AsyncDisposable {
  readonly left: readonly Nonce[];
  readonly #timer: NodeJS.Timeout;

  private constructor(left: readonly Nonce[]) {
    this.left = left;
    this.#timer = setTimeout(() => void this[Symbol.asyncDispose](), patienceMs).unref();
  }

  /** Leaves one in each folder that can be written to; the others stay unproved. `id` is the migration's. */
  static async leave(id: string, folders: readonly string[]): Promise<Nonces> {
    const left: Nonce[] = [];
    for (const folder of folders) {
      const nonce = { folder, name: `.phaul-nonce-${id}`, content: randomBytes(contentBytes).toString('hex') };
      try {
        // Without following a link that somebody may have put there.
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
        await using file = await open(join(folder, nonce.name), flags, 0o600);
        await file.writeFile(nonce.content);
        // A network file system shows it to the other host only then.
        await file.sync();
        left.push(nonce);
      } catch (thrown) {
        if (
          !['EROFS', 'EACCES', 'EPERM', 'ENOENT', 'ENOTDIR', 'ENOSPC', 'EDQUOT', 'ELOOP'].includes(
            errnoOf(thrown) ?? '',
          )
        )
          throw thrown;
      }
    }
    return new Nonces(left);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    await Promise.all(this.left.map(({ folder, name }) => rm(join(folder, name), { force: true })));
  }
}

/** Contents seen by this process. Each is random and proves its folder once and for all, also after the file is gone. */
const seenBefore = new Set<string>();
const maxSeen = 10_000;

/** On the destination: the folders in which the source's nonces are seen, or were at an earlier look. */
export async function provedFolders(nonces: readonly Nonce[]): Promise<ReadonlySet<string>> {
  const seen = await Promise.all(
    nonces.map(async ({ folder, name, content }) => {
      // With its folder: the same content in another one would prove nothing.
      const proof = `${content} ${folder}`;
      if (seenBefore.has(proof)) return folder;
      try {
        if ((await readFile(join(folder, name), 'utf8')) !== content) return null;
        if (seenBefore.size < maxSeen) seenBefore.add(proof);
        return folder;
      } catch (thrown) {
        if (['ENOENT', 'ENOTDIR', 'EACCES', 'EISDIR', 'ELOOP'].includes(errnoOf(thrown) ?? '')) return null;
        throw thrown;
      }
    }),
  );
  return new Set(seen.filter((folder) => folder !== null));
}
