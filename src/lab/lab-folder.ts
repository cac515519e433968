/**
 * The temporary folder of a lab, and the remains of labs whose program was killed. The kernel takes their processes and
 * networks (PDEATHSIG); folder and cgroups stay until the next lab is made. A lab holds an flock(2) on a file in its
 * folder: whose lock can be taken is dead, whatever pid it had, and in whatever pid namespace.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errnoOf } from '../failure/phaul-error.js';
import { addon } from '../native/addon.js';
import { cgroup2Mount, LabCgroup } from './lab-cgroup.js';

const ownerFile = 'owner';

/** Disposed: removed with all that is in it. */
export class LabFolder implements AsyncDisposable {
  /** `phaul-NAME-XXXXXXXX`, in the name of everything that the lab makes. */
  readonly id: string;
  readonly path: string;
  readonly #lock: number;

  private constructor(id: string, path: string, lock: number) {
    this.id = id;
    this.path = path;
    this.#lock = lock;
  }

  static create(name: string): LabFolder {
    const id = `phaul-${name}-${randomBytes(4).toString('hex')}`;
    const path = mkdtempSync(join(tmpdir(), `${id}-`));
    // Locked before it has its name: who looks for dead labs must not find it unlocked.
    const unnamed = join(path, 'owner.new');
    writeFileSync(unnamed, id, { mode: 0o600 });
    const lock = openSync(unnamed, 'r');
    addon().flock(lock);
    renameSync(unnamed, join(path, ownerFile));
    return new LabFolder(id, path, lock);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    closeSync(this.#lock);
  }
}

/** Removes folders and cgroups of labs whose program is dead. */
export async function removeDeadLabs(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const path = join(tmpdir(), name);
    const id = /^(phaul-[a-z0-9-]+-[0-9a-f]{8})-[A-Za-z0-9_-]{6}$/.exec(name)?.[1];
    if (id !== undefined) await removeIfDead(id, path);
  }
}

async function removeIfDead(id: string, path: string): Promise<void> {
  let lock: number;
  try {
    lock = openSync(join(path, ownerFile), 'r');
  } catch (error) {
    // Not a lab's, being made, or just gone.
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return;
    throw error;
  }
  try {
    if (!addon().flock(lock) || readFileSync(lock, 'utf8') !== id) return;
    const mount = cgroup2Mount();
    const cgroups = mount === null ? [] : readdirSync(mount).filter((name) => name.startsWith(`${id}-`));
    for (const name of cgroups) {
      const folder = join(mount ?? '', name);
      if (existsSync(folder)) await new LabCgroup(folder)[Symbol.asyncDispose]();
    }
    await rm(path, { recursive: true, force: true });
  } finally {
    closeSync(lock);
  }
}
