/** Runs one executable in a process group of its own, which is killed as a whole when the time is up. */
import { type ChildProcess, spawn } from 'node:child_process';
import { errnoOf, messageOf } from '../failure/phaul-error.js';

export interface ExecutableOptions {
  readonly environment: Readonly<Record<string, string>>;
  /** ms; then the whole group is killed. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | null;
}

/** What is kept of the output: its end, where the reason stands. Bytes. */
const tailBytes = 2000;
/** What a killed group gets to close its output, ms; a process that left the group may hold it for ever. */
const drainMs = 200;

/** Null when it ended with 0; else the reason in words, with the end of its output. */
export async function runExecutable(path: string, options: ExecutableOptions): Promise<string | null> {
  const child = spawn(path, [], {
    cwd: '/',
    env: { ...options.environment },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let tail = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-tailBytes);
    });
  }
  const verdict = await ended(child, options);
  // What stays behind in the group (a daemon that did not detach) is the hook's own business only if it was not killed.
  child.stdout.destroy();
  child.stderr.destroy();
  if (verdict === null) return null;
  return tail.trim() === '' ? verdict : `${verdict}: ${tail.trim()}`;
}

async function ended(child: ChildProcess, { timeoutMs, signal }: ExecutableOptions): Promise<string | null> {
  return await new Promise((resolve) => {
    let killed: string | null = null;
    let drain: NodeJS.Timeout | undefined;
    const settle = (verdict: string | null): void => {
      clearTimeout(timer);
      clearTimeout(drain);
      signal?.removeEventListener('abort', onAbort);
      resolve(killed ?? verdict);
    };
    const kill = (why: string): void => {
      killed = why;
      killGroup(child);
      drain = setTimeout(() => settle(null), drainMs);
    };
    const timer = setTimeout(() => kill(`it took longer than ${timeoutMs} ms and was killed`), timeoutMs);
    const onAbort = (): void => kill('it was killed, because the migration has ended');
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    child.once('error', (thrown) => settle(`it could not be started: ${messageOf(thrown)}`));
    child.once('exit', (code, by) => {
      const verdict = code === 0 ? null : code === null ? `it was killed by ${by}` : `it ended with code ${code}`;
      // Its output may still be on the way; `close` waits for everybody who holds the pipe, also for daemons it left.
      child.once('close', () => settle(verdict));
      drain ??= setTimeout(() => settle(verdict), drainMs);
    });
  });
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (thrown) {
    // All of it has ended already.
    if (errnoOf(thrown) !== 'ESRCH') throw thrown;
  }
}
