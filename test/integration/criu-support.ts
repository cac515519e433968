/** What the tests of the CRIU client share: an engine, a folder, a program whose state can be read from outside. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Engine } from '../../src/criu/engine.js';
import type { NotifyHandler } from '../../src/criu/notifications.js';
import { EngineSession } from '../../src/criu/session.js';
import { readStat } from '../../src/host/tasks.js';

export const agree: NotifyHandler = () => ({ success: true });

export class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'phaul-criu-test-'));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A network namespace of its own with loopback up. `enter` is the start of a command that runs in there. */
export class NetworkNamespace implements Disposable {
  readonly #keeper: ChildProcess;

  private constructor(keeper: ChildProcess) {
    this.#keeper = keeper;
  }

  static async make(): Promise<NetworkNamespace> {
    const command = 'ip link set lo up && echo up && exec sleep infinity';
    const keeper = spawn('unshare', ['--net', 'sh', '-c', command], { stdio: ['ignore', 'pipe', 'ignore'] });
    const made = new NetworkNamespace(keeper);
    await once(keeper.stdout, 'data', { signal: AbortSignal.timeout(5000) });
    return made;
  }

  get enter(): string[] {
    return ['nsenter', `--net=/proc/${this.#keeper.pid}/ns/net`];
  }

  [Symbol.dispose](): void {
    this.#keeper.kill('SIGKILL');
  }
}

// Counts in memory and shows the count in a file: after a move it goes on, after a restart it begins anew.
const counting =
  'open(F, ">", $ARGV[0]) or die; for (;;) { sysseek(F, 0, 0); syswrite(F, sprintf("%08d\\n", $i++)); select(undef, undef, undef, 0.005) }';

/** A program in a session of its own that counts. Disposed: killed, wherever it was restored to in the meantime. */
export class Counter implements Disposable {
  readonly pid: number;
  readonly #file: string;

  private constructor(child: ChildProcess, file: string) {
    if (child.pid === undefined) throw new Error('perl could not be started');
    this.pid = child.pid;
    this.#file = file;
  }

  static async start(folder: Folder, user = 0, launcher: readonly string[] = ['env']): Promise<Counter> {
    const file = join(folder.path, 'count');
    writeFileSync(file, '');
    chmodSync(folder.path, 0o755);
    chownSync(file, user, user);
    const identity = user === 0 ? {} : { uid: user, gid: user };
    const child = spawn(launcher[0] ?? 'env', [...launcher.slice(1), '/usr/bin/perl', '-e', counting, file], {
      detached: true,
      stdio: 'ignore',
      cwd: '/',
      env: { PATH: process.env['PATH'] },
      ...identity,
    });
    const counter = new Counter(child, file);
    await eventually(() => counter.count() > 0);
    return counter;
  }

  count(): number {
    return Number(readFileSync(this.#file, 'utf8'));
  }

  alive(): boolean {
    const state = readStat(this.pid)?.state;
    return state !== undefined && state !== 'Z' && state !== 'X';
  }

  /** Resolves when it has counted on from where it is now. */
  async goesOn(): Promise<void> {
    const before = this.count();
    await eventually(() => this.count() > before + 2);
  }

  async isGone(): Promise<void> {
    await eventually(() => readStat(this.pid) === null);
  }

  [Symbol.dispose](): void {
    if (this.alive()) process.kill(this.pid, 'SIGKILL');
  }
}

export async function eventually(holds: () => boolean, withinMs = 10_000): Promise<void> {
  const end = Date.now() + withinMs;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not within ${withinMs} ms: ${holds}`);
    await delay(5);
  }
}

/** A session whose images folder is its first inherited descriptor. */
export function openSession(
  engine: Engine,
  folder: Folder,
  launcher: readonly string[] = [],
): { session: EngineSession; imagesDir: string } {
  const images = openSync(folder.path, 'r');
  const session = EngineSession.start({ engine, cgroup: null, inherit: [images], logFolder: folder.path, launcher });
  closeSync(images);
  return { session, imagesDir: `/proc/self/fd/${session.inheritedFd(0)}` };
}
