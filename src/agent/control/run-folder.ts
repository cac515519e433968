/** The run folder of an agent (0700), its one socket (0600), and the lock that keeps a second agent out. */
import { chmodSync, closeSync, lstatSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, PhaulError } from '../../failure/phaul-error.js';
import { addon } from '../../native/addon.js';

/** sun_path holds 108 bytes with the NUL (unix(7)). */
const maxSocketPath = 107;

/** PHAUL_RUN_DIR, else /run/phaul. Not in the configuration file: `--stdio` must find the agent without reading it. */
export function runDirectoryOf(environment: NodeJS.ProcessEnv = process.env): string {
  return environment['PHAUL_RUN_DIR'] ?? '/run/phaul';
}

export function socketPathIn(runDirectory: string): string {
  const path = join(runDirectory, 'agent.sock');
  if (Buffer.byteLength(path) > maxSocketPath) {
    throw new PhaulError({
      code: 'run-folder-too-long',
      what: `the path ${path} is too long for a socket`,
      remedy: 'name a shorter run folder by PHAUL_RUN_DIR',
    });
  }
  return path;
}

/** Makes the folder, or takes one that is ours, and closes it to others. */
export function makePrivateFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const facts = lstatSync(folder);
  if (!facts.isDirectory() || facts.uid !== process.geteuid?.()) {
    throw new PhaulError({
      code: 'folder-not-ours',
      what: `${folder} is not a folder of the user that runs the agent`,
      remedy: 'remove it, or name another one by PHAUL_RUN_DIR or PHAUL_STATE_DIR',
    });
  }
  if ((facts.mode & 0o777) !== 0o700) chmodSync(folder, 0o700);
}

/** One agent per run folder: an flock that the kernel gives back when the process dies, however it dies. */
export class RunLock implements Disposable {
  #fd: number | null;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Makes the folder and takes it. Throws `agent-already-runs`, `folder-not-ours`. */
  static take(runDirectory: string): RunLock {
    makePrivateFolder(runDirectory);
    const fd = openSync(join(runDirectory, 'agent.lock'), 'a', 0o600);
    try {
      if (addon().flock(fd)) return new RunLock(fd);
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
    closeSync(fd);
    throw new PhaulError({
      code: 'agent-already-runs',
      what: `another agent runs with the run folder ${runDirectory}`,
      remedy: 'use that one, or end it first (systemctl stop phaul-agent)',
    });
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}

/** Removes what a dead agent has left. Only with the lock in hand. */
export function removeStaleSocket(path: string): void {
  try {
    if (!lstatSync(path).isSocket()) {
      throw new PhaulError({ code: 'folder-not-ours', what: `${path} is not a socket`, remedy: 'remove it' });
    }
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return;
    throw thrown;
  }
  rmSync(path);
}
