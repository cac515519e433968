/** Processes with one strange habit each, for the checks to find: a parent that stays outside and a child that is the tree. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { treeOf } from '../../src/host/tasks.js';
import { defaultOrder, type MigrationOrder } from '../../src/migration/order.js';

/**
 * `before` runs in the parent, then it forks; `child` runs in the child, which leads a session of its own, says that it is
 * ready and sleeps; `parent` runs in the parent beside it. `folder` is a private folder, `libc` the C library, `pid` the child.
 */
export interface ActorScript {
  readonly before?: string;
  readonly child?: string;
  readonly parent?: string;
}

// The lowest descriptors are /dev/null, all inherited ones are closed: only what the script opens is there.
const play = `
import ctypes, fcntl, mmap, os, socket, sys, threading, time
folder, ready = sys.argv[1], sys.argv[1] + '/ready'
libc = ctypes.CDLL(None, use_errno=True)
def say(text):
    with open(ready + '.part', 'w') as file: file.write(str(text))
    os.rename(ready + '.part', ready)
exec(sys.argv[2])
pid = os.fork()
if pid == 0:
    os.setsid()
    exec(sys.argv[3])
    say(os.getpid())
else:
    exec(sys.argv[4])
time.sleep(1000)
`;

export class Actor implements AsyncDisposable {
  readonly #parent: ChildProcess;
  readonly folder: string;
  /** The child: root of the tree that is to move. */
  readonly pid: number;

  private constructor(parent: ChildProcess, folder: string, pid: number) {
    this.#parent = parent;
    this.folder = folder;
    this.pid = pid;
  }

  static async start({ before = '', child = '', parent = '' }: ActorScript): Promise<Actor> {
    const folder = mkdtempSync(join(tmpdir(), 'phaul-actor-'));
    const process = spawn('bash', ['-c', closingOthers, 'bash', 'python3', '-c', play, folder, before, child, parent], {
      stdio: 'ignore',
      detached: true,
      cwd: '/',
    });
    for (let attempt = 0; attempt < 500 && !existsSync(join(folder, 'ready')); attempt++) await delay(10);
    const ready = join(folder, 'ready');
    const pid = existsSync(ready) ? Number(readFileSync(ready, 'utf8')) : 0;
    const actor = new Actor(process, folder, pid);
    if (pid > 0) return actor;
    await actor[Symbol.asyncDispose]();
    throw new Error('the actor did not start: run its script by hand');
  }

  get parentPid(): number {
    return this.#parent.pid ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#parent.exitCode !== null || this.#parent.signalCode !== null;
    const gone = ended ? null : new Promise((resolve) => this.#parent.once('exit', resolve));
    for (const pid of treeOf(this.parentPid).reverse()) killIfThere(pid);
    await gone;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Whoever runs these tests may have left descriptors open; a service manager would not pass them on. */
export const closingOthers =
  'for fd in $(ls /proc/$$/fd); do [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done 2>/dev/null; exec "$@"';

export function orderOf(pid: number, more: Partial<MigrationOrder> = {}): MigrationOrder {
  return { ...defaultOrder, id: `t-${randomBytes(4).toString('hex')}`, pid, ...more };
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
