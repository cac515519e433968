/**
 * One `criu swrk` process with its end of a SEQPACKET pair (criu(8): it serves one conversation on an inherited socket).
 *
 * It runs in a session of its own so that the terminal's Ctrl-C never reaches it: a signal to a dumping CRIU leaves the
 * tree's sockets in repair mode (dangers.md 2). Its end of the pair lives in it alone, so that its death reads as the end
 * of the conversation here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { PhaulError } from '../failure/phaul-error.js';
import { addon, packageRoot } from '../native/addon.js';
import type { Engine } from './engine.js';

export interface EnginePlan {
  readonly engine: Engine;
  /** cgroup v2 folder that CRIU enters before it starts; null: where the caller is. */
  readonly cgroup: string | null;
  /** Descriptors of the caller that CRIU inherits, as `inheritedFd(i)` there. They stay the caller's. */
  readonly inherit: readonly number[];
  /** Program with arguments that becomes CRIU, before CRIU's own path, e.g. `nsenter`. It must keep descriptors and pid. */
  readonly launcher?: readonly string[];
}

/** The program that keeps a job's terminal. */
export interface TerminalKeeper {
  /** Its cgroup v2 folder; null: where the caller is. */
  readonly cgroup: string | null;
  /** File to which what the job writes is appended; null: thrown away. */
  readonly output: string | null;
}

/** How a process ended; both null: it is not our child and nobody told. */
export interface EngineExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** CRIU's socket; what it inherits follows. */
const socketFd = 3;
/** Largest request or response: a request with thousands of externals stays far below. */
const packetBytes = 1 << 20;
/** Exit codes of the shell that starts CRIU; 126 and 127 are sh(1)'s own. */
const noCgroup = 125;
const notExecutable = 126;
const notFound = 127;

// A process enters a cgroup before exec only by its own hand: written by somebody else it would race with its first fork.
const enter = 'if [ -n "$1" ]; then echo 0 > "$1/cgroup.procs" || exit 125; fi; shift';

/** Number, in CRIU's process, of the i-th inherited descriptor. */
export function inheritedFd(plan: EnginePlan, index: number): number {
  if (index < 0 || index >= plan.inherit.length) {
    throw new RangeError(`descriptor ${index} of ${plan.inherit.length} is not inherited`);
  }
  return socketFd + 1 + index;
}

export class EngineProcess {
  /** In the caller's pid namespace. */
  readonly pid: number;
  /** Our end of the conversation; whoever takes it must close it. */
  readonly socket: number;
  readonly exited: Promise<EngineExit>;
  readonly #kill: () => void;

  private constructor(pid: number, socket: number, exited: Promise<EngineExit>, kill: () => void) {
    this.pid = pid;
    this.socket = socket;
    this.exited = exited;
    this.#kill = kill;
  }

  /** A child of the caller. Throws `engine-not-started`. */
  static start(plan: EnginePlan): EngineProcess {
    const { child, near } = launch(plan, `${enter}; exec "$@"`, 'ignore');
    const { pid } = child;
    if (pid === undefined) throw notStarted(near, plan, child);
    const exited = new Promise<EngineExit>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    return new EngineProcess(pid, near, exited, () => child.kill('SIGKILL'));
  }

  /** An orphan, outside the caller's tree: a process that has itself dumped must not be CRIU's parent. Throws `engine-not-started`. */
  static async startApart(plan: EnginePlan): Promise<EngineProcess> {
    const { child, near } = launch(plan, `${enter}; "$@" >/dev/null & echo $!`, 'pipe');
    if (child.pid === undefined || child.stdout === null) throw notStarted(near, plan, child);
    const [told] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    const pid = Number(told);
    if (!Number.isSafeInteger(pid) || pid <= 0) throw notStarted(near, plan, child);
    return new EngineProcess(pid, near, gone(pid), () => process.kill(pid, 'SIGKILL'));
  }

  /**
   * With a terminal and a session for a restore with `shellJob`; the program that leads the session ends with the job.
   * Throws `engine-not-started`.
   */
  static async startOnTerminal(plan: EnginePlan, keeper: TerminalKeeper): Promise<EngineProcess> {
    const script = `${enter}; terminal=$1 output=$2; shift 2; exec "$terminal" --output "$output" /bin/sh -c '${enter}; exec "$@"' sh "$@"`;
    const terminal = [join(packageRoot, 'build', 'phaul-terminal'), keeper.output ?? '/dev/null'];
    const words = [keeper.cgroup ?? '', ...terminal, plan.cgroup ?? ''];
    const { child, near } = launch(plan, script, 'pipe', words);
    if (child.pid === undefined || child.stdout === null) throw notStarted(near, plan, child);
    child.unref();
    const pid = Number(await text(child.stdout));
    if (!Number.isSafeInteger(pid) || pid <= 0) throw notStarted(near, plan, child);
    return new EngineProcess(pid, near, gone(pid), () => process.kill(pid, 'SIGKILL'));
  }

  /** SIGKILL. Never while it may hold a tree: see the file's head. */
  kill(): void {
    this.#kill();
  }
}

/** An exit in words, for errors. */
export function describeExit({ code, signal }: EngineExit): string {
  if (signal !== null) return `it was killed by ${signal}`;
  if (code === noCgroup) return 'it could not enter its cgroup';
  if (code === notExecutable || code === notFound) return 'it could not be executed';
  return code === null ? 'it is gone' : `it has left with exit code ${code}`;
}

/** Polled: a pidfd of CRIU in the caller could not be restored with it, because that CRIU is no more. */
async function gone(pid: number): Promise<EngineExit> {
  while (existsSync(`/proc/${pid}`)) await delay(50, undefined, { ref: false });
  return { code: null, signal: null };
}

/** `words`: arguments of the script before CRIU's command; by default the cgroup, for `enter`. */
function launch(
  plan: EnginePlan,
  script: string,
  stdout: 'ignore' | 'pipe',
  words: readonly string[] = [plan.cgroup ?? ''],
): { child: ChildProcess; near: number } {
  const { near, far } = addon().socketPair('seqpacket', packetBytes);
  try {
    const command = [...(plan.launcher ?? []), plan.engine.path, 'swrk', String(socketFd)];
    const child = spawn('/bin/sh', ['-c', script, 'sh', ...words, ...command], {
      detached: true,
      stdio: ['ignore', stdout, 'ignore', far, ...plan.inherit],
      env: environment(plan.engine),
      cwd: '/',
    });
    // A failed start shows as a missing pid, or as the end of the conversation.
    child.on('error', () => undefined);
    return { child, near };
  } catch (thrown) {
    closeSync(near);
    throw thrown;
  } finally {
    closeSync(far);
  }
}

/** CRIU's children (nft, ip, tar) must load the system's libraries: only CRIU itself gets the preload, by its wrapper. */
function environment(engine: Engine): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {
    PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  };
  // CRIU's own fault injection, for tests of what happens then.
  if (process.env['CRIU_FAULT'] !== undefined) env['CRIU_FAULT'] = process.env['CRIU_FAULT'];
  if (engine.preload === null) return env;
  return { ...env, [engine.wrapped ? 'PHAUL_CRIU_PRELOAD' : 'LD_PRELOAD']: engine.preload };
}

function notStarted(near: number, plan: EnginePlan, child: ChildProcess): PhaulError {
  closeSync(near);
  return new PhaulError({
    code: 'engine-not-started',
    what: `CRIU (${plan.engine.path}) could not be started${child.exitCode === null ? '' : ` (exit code ${child.exitCode})`}`,
    remedy: 'check the limits of processes and descriptors (ulimit), and the engine with `phaul engine`',
  });
}
