/** Processes that this program starts inside a lab host, and what it can do to them. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import { awaitChildOf } from './host-namespaces.js';

export interface Finished {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program running in a host. Disposed: SIGKILL, and waited for. */
export class HostProcess implements AsyncDisposable {
  /** nsenter(1), which waits for the program and ends as it ended. */
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  #outerPid: number | null = null;

  constructor(child: ChildProcess) {
    this.child = child;
    this.finished = finish(child);
    // Who does not ask for the end of a process must not be killed by it.
    this.finished.catch(() => {});
  }

  /** Pid as the machine counts. Throws when the program has ended. */
  async outerPid(): Promise<number> {
    this.#outerPid ??= await awaitChildOf(this.child.pid ?? 0);
    return this.#outerPid;
  }

  /** Pid as the host counts. */
  async pid(): Promise<number> {
    const status = readFileSync(`/proc/${await this.outerPid()}/status`, 'utf8');
    return Number(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1]);
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Sends a signal to the program itself, not to nsenter. A program that has ended is no error. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    if (!this.running) return;
    try {
      process.kill(await this.outerPid(), signal);
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH' && errnoOf(error) !== 'ENOENT' && this.running) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.running) return;
    const gone = once(this.child, 'exit');
    await this.kill('SIGKILL');
    await gone;
  }
}

async function finish(child: ChildProcess): Promise<Finished> {
  const text = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    text.stdout += part;
  });
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    text.stderr += part;
  });
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { exitCode, signal, ...text };
}

/** The result of a command that must succeed. */
export function mustSucceed(argv: readonly string[], host: string, finished: Finished): Finished {
  if (finished.exitCode === 0) return finished;
  throw new PhaulError({
    code: 'lab-command-failed',
    what: `on lab host ${host}, ${argv.join(' ')} ended with ${finished.signal ?? finished.exitCode}: ${(finished.stderr || finished.stdout).trim()}`,
    remedy: 'see the message of the command',
  });
}
