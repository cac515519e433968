/**
 * The operator's executables, run at each phase on both hosts: to drain a load balancer, to flush a database. Before the
 * line one that ends with another code than 0 refuses the migration; behind it it is only reported.
 */
import type { BigIntStats } from 'node:fs';
import { lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import { runExecutable } from './run-executable.js';

/** Always looked at, where it exists. */
export const systemHookFolder = '/etc/phaul/hooks.d';

export interface HookFacts {
  /** Of the migration. */
  readonly id: string;
  readonly pid: number;
  readonly role: 'source' | 'destination';
  /** Null while there is none. */
  readonly imagesFolder: string | null;
  /** Addresses that move, canonical. */
  readonly addresses: readonly string[];
}

export interface HookRun {
  readonly path: string;
  readonly ms: number;
  /** Null when it ended with 0; else why it counts as failed, with the end of its output. */
  readonly failure: string | null;
}

export class Hooks {
  readonly #folders: readonly string[];
  readonly #facts: HookFacts;
  readonly #timeoutMs: number;

  /** `folders`: of `--hook`, in the order given; the system's come first. */
  constructor(folders: readonly string[], facts: HookFacts, timeoutMs = 10_000) {
    this.#folders = [...new Set([systemHookFolder, ...folders])];
    this.#facts = facts;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Before the line: runs all, one after the other, and stops at the first refusal.
   * @throws PhaulError `hook-refused`, `hook-unsafe`, `hook-folder-missing`; the reason of `signal`
   */
  async ask(phase: string, signal: AbortSignal, imagesFolder = this.#facts.imagesFolder): Promise<readonly HookRun[]> {
    const runs: HookRun[] = [];
    for (const path of await this.#executables()) {
      const run = await this.#run(path, phase, imagesFolder, signal);
      signal.throwIfAborted();
      if (run.failure !== null) {
        throw new PhaulError({
          code: 'hook-refused',
          what: `The hook ${path} refused phase ${phase}: ${run.failure}`,
          remedy: 'Look at what the hook says; the process goes on at the source.',
        });
      }
      runs.push(run);
    }
    return runs;
  }

  /** Behind the line: runs all whatever they say; returns what went wrong in words. Never throws. */
  async tell(phase: string, imagesFolder = this.#facts.imagesFolder): Promise<readonly string[]> {
    const remarks: string[] = [];
    let paths: readonly string[] = [];
    try {
      paths = await this.#executables();
    } catch (thrown) {
      remarks.push(
        `hooks of phase ${phase} were not run: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      );
    }
    for (const path of paths) {
      const run = await this.#run(path, phase, imagesFolder, null);
      if (run.failure !== null) remarks.push(`the hook ${path} failed at phase ${phase}: ${run.failure}`);
    }
    return remarks;
  }

  async #run(path: string, phase: string, imagesFolder: string | null, signal: AbortSignal | null): Promise<HookRun> {
    const { id, pid, role, addresses } = this.#facts;
    const environment = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LANG: 'C.UTF-8',
      PHAUL_ID: id,
      PHAUL_PHASE: phase,
      PHAUL_PID: String(pid),
      PHAUL_HOST_ROLE: role,
      PHAUL_IMAGES: imagesFolder ?? '',
      PHAUL_ADDRESSES: addresses.join(' '),
    };
    const started = performance.now();
    const failure = await runExecutable(path, { environment, timeoutMs: this.#timeoutMs, signal });
    return { path, ms: performance.now() - started, failure };
  }

  /** In lexical order within each folder. What others may have written is refused, not run as root. */
  async #executables(): Promise<string[]> {
    const found: string[] = [];
    for (const folder of this.#folders) {
      const names = await namesIn(folder);
      if (names === null) continue;
      checkOwner(folder, await stat(folder, { bigint: true }));
      for (const name of names) {
        const path = join(folder, name);
        // A link counts as what it leads to; the folder is root's, so the link is too.
        const facts = await stat(path, { bigint: true });
        if (!facts.isFile() || (facts.mode & 0o111n) === 0n) continue;
        checkOwner(path, facts);
        found.push(path);
      }
    }
    return found;
  }
}

/** Names of editors' backups and hidden files are passed over, as run-parts(8) does. */
async function namesIn(folder: string): Promise<string[] | null> {
  try {
    const names = await readdir(folder);
    return names.filter((name) => !name.startsWith('.') && !/~$|\.(bak|dpkg-\w+|swp)$/.test(name)).sort();
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT' && folder === systemHookFolder) return null;
    if (errnoOf(thrown) !== 'ENOENT' && errnoOf(thrown) !== 'ENOTDIR') throw thrown;
    const exists = await lstat(folder).catch(() => null);
    throw new PhaulError({
      code: 'hook-folder-missing',
      what: exists === null ? `There is no folder ${folder} for hooks on this host.` : `${folder} is not a folder.`,
      remedy: 'Make it on both hosts (it may be empty), or leave --hook out.',
      cause: thrown,
    });
  }
}

function checkOwner(path: string, facts: BigIntStats): void {
  const worldWritable = (facts.mode & 0o002n) !== 0n && !facts.isSymbolicLink();
  if (facts.uid === 0n && !worldWritable) return;
  throw new PhaulError({
    code: 'hook-unsafe',
    what: `${path} ${facts.uid === 0n ? 'can be written to by everybody' : `belongs to user ${facts.uid}, not to root`}.`,
    remedy: `Hooks run as root: chown root ${path} && chmod o-w ${path}`,
  });
}
