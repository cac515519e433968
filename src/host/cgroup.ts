/**
 * cgroup v2 (cgroups(7), Documentation/admin-guide/cgroup-v2.rst): a leaf of its own for a tree, because a frozen leaf
 * holds its tasks whatever happens to CRIU, to its tracer or to the agent, and `cgroup.kill` reaches them all at once.
 */
import { accessSync, constants, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, messageOf, PhaulError } from '../failure/phaul-error.js';

/** Freezing takes 0.05-0.3 ms; a task in uninterruptible sleep (D) can take longer. ms. */
const freezeMs = 2000;

/** Mount point of cgroup v2 where this process may make cgroups, or the reason why there is none. */
export function cgroupMount(): { mount: string; reason: null } | { mount: null; reason: string } {
  const lines = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const mount = lines.map((line) => line.split(' ')).find((fields) => fields[2] === 'cgroup2')?.[1];
  if (mount === undefined) return { mount: null, reason: 'no cgroup v2 is mounted' };
  try {
    accessSync(mount, constants.W_OK);
    readFileSync(join(mount, 'cgroup.procs'));
    return { mount, reason: null };
  } catch (thrown) {
    return { mount: null, reason: `${mount} cannot be written: ${messageOf(thrown)}` };
  }
}

/** Folder of the cgroup v2 of a task below `mount`, or null when the task is gone. */
export function cgroupOf(pid: number, mount: string): string | null {
  try {
    const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
    // A task in a deleted cgroup, or above our cgroup namespace, has no folder that can be named.
    if (path === undefined || path.endsWith(' (deleted)') || path.startsWith('/..')) return null;
    return join(mount, path);
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT' || errnoOf(thrown) === 'ESRCH') return null;
    throw thrown;
  }
}

/** Where a task was before it was moved. */
export interface CgroupOrigin {
  readonly pid: number;
  readonly cgroup: string;
}

export class LeafCgroup {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Creates `parent/name`; missing parents too. */
  static create(parent: string, name: string): LeafCgroup {
    const path = join(parent, name);
    mkdirSync(path, { recursive: true });
    return new LeafCgroup(path);
  }

  /** A leaf that is known by its path, from a journal. */
  static at(path: string): LeafCgroup {
    return new LeafCgroup(path);
  }

  get exists(): boolean {
    return this.#read('cgroup.events') !== null;
  }

  /** Pids inside, as seen from the reader's pid namespace (0 for those that cannot be seen). */
  members(): number[] {
    return (this.#read('cgroup.procs') ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map(Number);
  }

  /** Moves processes in (each move costs 6-16 ms of RCU whatever the threads). A process that is gone is passed over. */
  moveIn(pids: readonly number[]): void {
    for (const pid of pids) moveTo(this.path, pid);
  }

  /** Moves each task back where it came from, and tasks born in the leaf to the origin of the first one. */
  moveBack(origins: readonly CgroupOrigin[]): void {
    const fallback = origins[0]?.cgroup ?? dirname(this.path);
    for (const pid of this.members()) {
      const origin = origins.find((candidate) => candidate.pid === pid)?.cgroup ?? fallback;
      try {
        moveTo(origin, pid);
      } catch (thrown) {
        // Its old cgroup may have been removed meanwhile; the parent always takes it.
        if (errnoOf(thrown) !== 'ENOENT' && errnoOf(thrown) !== 'EOPNOTSUPP') throw thrown;
        moveTo(dirname(this.path), pid);
      }
    }
  }

  /** Returns when the kernel says `frozen 1`. Throws `not-frozen` after 2 s. */
  async freeze(): Promise<void> {
    writeFileSync(join(this.path, 'cgroup.freeze'), '1');
    const deadline = performance.now() + freezeMs;
    const busyUntil = performance.now() + 5;
    while (!this.frozen) {
      if (performance.now() > deadline) {
        throw new PhaulError({
          code: 'not-frozen',
          what: `the cgroup ${basename(this.path)} did not freeze within ${freezeMs} ms`,
          remedy: 'a task is in uninterruptible sleep (state D): look for hung I/O, then try again',
        });
      }
      // 0.05-0.3 ms is usual: look again at once, without keeping the loop; a task that takes longer is not worth a CPU.
      if (performance.now() < busyUntil) await new Promise((resolve) => setImmediate(resolve));
      else await delay(1);
    }
  }

  get frozen(): boolean {
    return /^frozen 1$/m.test(this.#read('cgroup.events') ?? '');
  }

  /** What was last asked of it, which `kill` and the end of its tasks do not change; null when it is gone. */
  get frozenByOrder(): boolean | null {
    const order = this.#read('cgroup.freeze');
    return order === null ? null : order.trim() === '1';
  }

  get populated(): boolean {
    return /^populated 1$/m.test(this.#read('cgroup.events') ?? '');
  }

  thaw(): void {
    if (this.exists) writeFileSync(join(this.path, 'cgroup.freeze'), '0');
  }

  /** SIGKILL to everything inside (Linux >= 5.14); works on a frozen cgroup, and newborn tasks get it too. */
  kill(): void {
    if (this.exists) writeFileSync(join(this.path, 'cgroup.kill'), '1');
  }

  /** Removes the empty leaf; waits up to `patienceMs` for dying tasks. Idempotent. Throws `cgroup-busy`. */
  async remove(patienceMs = 5000): Promise<void> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      try {
        rmdirSync(this.path);
        return;
      } catch (thrown) {
        if (errnoOf(thrown) === 'ENOENT') return;
        if (errnoOf(thrown) !== 'EBUSY' || performance.now() > deadline) {
          throw new PhaulError({
            code: 'cgroup-busy',
            what: `the cgroup ${this.path} could not be removed: ${messageOf(thrown)}`,
            remedy: 'phaul leftovers --clean, when its tasks have ended',
            cause: thrown,
          });
        }
        await delay(10);
      }
    }
  }

  #read(file: string): string | null {
    try {
      return readFileSync(join(this.path, file), 'utf8');
    } catch (thrown) {
      if (errnoOf(thrown) === 'ENOENT' || errnoOf(thrown) === 'ENODEV') return null;
      throw thrown;
    }
  }
}

function moveTo(cgroup: string, pid: number): void {
  try {
    writeFileSync(join(cgroup, 'cgroup.procs'), String(pid));
  } catch (thrown) {
    if (errnoOf(thrown) !== 'ESRCH') throw thrown;
  }
}
