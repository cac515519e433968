/**
 * Starts an agent that outlives who started it: own session, own cgroup where that is possible, no terminal, output in
 * the log (dangers.md 6, 10).
 */
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PhaulError } from '../../failure/phaul-error.js';

export interface DaemonPlan {
  readonly socketPath: string;
  /** Folder of `agent.log`. */
  readonly stateDirectory: string;
  /** Arguments of the agent: the program itself first (`process.argv[1]`). */
  readonly argv: readonly string[];
}

const startTimeoutMs = 20_000;

/** True when an agent was started, false when one answered already. Throws `agent-not-started` with the end of its log. */
export async function ensureDaemon(plan: DaemonPlan): Promise<boolean> {
  if (await answers(plan.socketPath)) return false;
  mkdirSync(plan.stateDirectory, { recursive: true, mode: 0o700 });
  const logPath = join(plan.stateDirectory, 'agent.log');
  const log = openSync(logPath, 'a', 0o600);
  try {
    const logStart = fstatSync(log).size;
    const child = spawn(process.execPath, plan.argv, {
      cwd: '/',
      detached: true,
      stdio: ['ignore', log, log],
      // Read once by libuv, before the first use of its pool: file and hash work of a migration runs there.
      env: { UV_THREADPOOL_SIZE: String(availableParallelism() + 4), ...process.env },
    });
    let ended = false;
    child.once('exit', () => {
      ended = true;
    });
    child.once('error', () => {
      ended = true;
    });
    if (child.pid !== undefined) intoOwnCgroup(child.pid);
    for (const began = Date.now(); Date.now() - began < startTimeoutMs && !ended; await sleep(20)) {
      if (await answers(plan.socketPath)) {
        child.unref();
        return true;
      }
    }
    // Two that were started at the same moment: the other one has the lock and answers.
    if (await answers(plan.socketPath)) return false;
    throw new PhaulError({
      code: 'agent-not-started',
      what: `the agent did not start: ${tail(logPath, logStart) || 'it says nothing'}`,
      remedy: `look at ${logPath}, or run \`phaul agent\` in the foreground`,
    });
  } finally {
    closeSync(log);
  }
}

export function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path: socketPath });
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}

/** Out of the cgroup of the login session, which may be killed when the session ends (logind.conf(5), KillUserProcesses). */
function intoOwnCgroup(pid: number): void {
  // In the root already: no session's end reaches it there, and nothing has to be made that would stay behind.
  if (/^0::\/$/m.test(readFileSync('/proc/self/cgroup', 'utf8'))) return;
  const mount = /^\S+ \S+ \S+ (\/\S*) (\S+) .* - cgroup2 /m.exec(readFileSync('/proc/self/mountinfo', 'utf8'));
  if (mount?.[2] === undefined) return;
  const folder = join(mount[2], 'phaul-agent');
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'cgroup.procs'), String(pid));
  } catch {
    // Without a writable cgroup v2 the agent stays where it was started; its own session is all that can be had.
  }
}

function tail(path: string, from: number): string {
  const fd = openSync(path, 'r');
  try {
    const text = Buffer.alloc(4000);
    const start = Math.max(from, fstatSync(fd).size - text.length);
    return text
      .subarray(0, readSync(fd, text, 0, text.length, start))
      .toString('utf8')
      .trim();
  } finally {
    closeSync(fd);
  }
}
