/** What the tests of the CRIU client share: an engine, a folder, a program whose state can be read from outside. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

  static async start(folder: Folder): Promise<Counter> {
    const file = join(folder.path, 'count');
    writeFileSync(file, '');
    const child = spawn('/usr/bin/perl', ['-e', counting, file], {
      detached: true,
      stdio: 'ignore',
      cwd: '/',
      env: {},
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
export function openSession(engine: Engine, folder: Folder): { session: EngineSession; imagesDir: string } {
  const images = openSync(folder.path, 'r');
  const session = EngineSession.start({ engine, cgroup: null, inherit: [images], logFolder: folder.path });
  return { session, imagesDir: `/proc/self/fd/${session.inheritedFd(0)}` };
}

/** Output of a Node program that was built with the tests, or null when it was not built. */
export async function runBuilt(program: string, args: string[]): Promise<{ child: ChildProcess } | null> {
  if (!existsSync(program)) return null;
  const child = spawn(process.execPath, [program, ...args], { detached: true, stdio: 'ignore', cwd: '/' });
  await once(child, 'spawn');
  return { child };
}
