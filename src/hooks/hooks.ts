/**
 * Action hooks: executables of the operator that run at each phase on both hosts, so that load balancers and databases
 * can follow. Before the line a hook that ends with another code than 0 refuses; after it its failure is only told.
 */
import { spawn } from 'node:child_process';
import { basename } from 'node:path';
import { messageOf, PhaulError } from '../failure/phaul-error.js';
import { hooksIn, trustedTarget } from './hook-files.js';
import { OutputTail } from './output-tail.js';

/** Hooks of the host itself; run after those that the operator named for this migration. */
const standingFolder = '/etc/phaul/hooks.d';
/** ms. A hook that hangs must not hold the tree. */
const limitMs = 10_000;
/** ms for the rest of the output after the hook has ended; a child that it left behind may hold the pipe for ever. */
const drainMs = 100;

export interface HookContext {
  /** Folders of `--hook`, in their order. */
  readonly folders: readonly string[];
  /** Id of the migration. */
  readonly id: string;
  readonly role: 'source' | 'destination';
  /** Root of the tree. */
  readonly pid: number;
  readonly imagesFolder: string;
  /** Addresses that move, canonical, without prefix length. */
  readonly addresses: readonly string[];
}

/** The hooks of one migration on one host. The folders are read once, at the first phase: what is put there later waits for the next migration. */
export class Hooks {
  readonly #context: HookContext;
  #found: Promise<string[]> | null = null;

  constructor(context: HookContext) {
    this.#context = context;
  }

  /**
   * Runs every hook, one after the other, up to the first that refuses.
   * @throws PhaulError `hook-refused` (ended with another code than 0, by a signal, not within 10 s, or could not be
   *   started), `hook-not-safe`, `hook-folder-unreadable`; the reason of `signal` when that is aborted, the hook is killed then.
   */
  async run(phase: string, signal: AbortSignal | null = null): Promise<void> {
    for (const path of await this.#hooks()) {
      signal?.throwIfAborted();
      await this.#runOne(path, phase, signal);
    }
  }

  /** Runs every hook, whatever the others say. Returns what went wrong, a sentence each; never throws. For phases after the line. */
  async report(phase: string): Promise<string[]> {
    const remarks: string[] = [];
    const attempt = async (work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (failure) {
        remarks.push(`phase ${phase}: ${messageOf(failure)}`);
      }
    };
    await attempt(async () => {
      for (const path of await this.#hooks()) await attempt(() => this.#runOne(path, phase, null));
    });
    return remarks;
  }

  #hooks(): Promise<string[]> {
    this.#found ??= hooksIn([...this.#context.folders, standingFolder]);
    return this.#found;
  }

  async #runOne(path: string, phase: string, signal: AbortSignal | null): Promise<void> {
    const target = await trustedTarget(path).catch((thrown: unknown) => {
      throw thrown instanceof PhaulError ? thrown : refused(path, phase, 'could not be started', '', thrown);
    });
    const end = await execute(target, this.#environment(phase), signal);
    signal?.throwIfAborted();
    if (end.why !== null) throw refused(path, phase, end.why, end.output, end.cause);
  }

  #environment(phase: string): Record<string, string> {
    const { id, pid, role, imagesFolder, addresses } = this.#context;
    return {
      // Not the agent's own environment: it may hold what is none of a hook's business.
      PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      PHAUL_ID: id,
      PHAUL_PHASE: phase,
      PHAUL_PID: String(pid),
      PHAUL_ROLE: role,
      PHAUL_IMAGES: imagesFolder,
      PHAUL_ADDRESSES: addresses.join(' '),
    };
  }
}

interface HookEnd {
  /** Null: it agreed. */
  readonly why: string | null;
  readonly output: string;
  readonly cause: unknown;
}

/** Runs one program in a session of its own, so that its children can be killed with it. Never rejects. */
async function execute(program: string, env: Record<string, string>, signal: AbortSignal | null): Promise<HookEnd> {
  return await new Promise((resolve) => {
    const child = spawn(program, [], { cwd: '/', env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const tail = new OutputTail();
    let overdue = false;
    const kill = (): void => {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
        process.kill(-child.pid, 'SIGKILL');
    };
    const timer = setTimeout(() => {
      overdue = true;
      kill();
    }, limitMs);
    signal?.addEventListener('abort', kill, { once: true });
    const settle = (why: string | null, cause: unknown = undefined): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', kill);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ why, output: tail.text(), cause });
    };
    child.stdout.on('data', (chunk: Buffer) => tail.add(chunk));
    child.stderr.on('data', (chunk: Buffer) => tail.add(chunk));
    child.once('error', (cause) => settle(`could not be started (${cause.message})`, cause));
    child.once('exit', (code, killedBy) => {
      const why = overdue
        ? `did not end within ${limitMs / 1000} s and was killed`
        : code === 0
          ? null
          : code === null
            ? `was killed by ${killedBy}`
            : `refused with exit code ${code}`;
      // Once both have happened, the second is of no effect: a promise resolves once.
      const late = setTimeout(() => settle(why), drainMs);
      child.once('close', () => {
        clearTimeout(late);
        settle(why);
      });
    });
  });
}

function refused(path: string, phase: string, why: string, output: string, cause: unknown): PhaulError {
  return new PhaulError({
    code: 'hook-refused',
    what: `the hook ${basename(path)} ${why} at phase ${phase}${output === '' ? '' : `; it said: ${output}`}`,
    remedy: `look at ${path}; it is run with PHAUL_PHASE=${phase} and must end with code 0 within ${limitMs / 1000} s`,
    ...(cause === undefined ? {} : { cause }),
  });
}
