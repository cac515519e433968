/**
 * Cgroup v2 folders of a lab. Each host is the root of a cgroup namespace of its own, so that what an agent does to
 * "the root" there stays inside, and so that one `cgroup.kill` ends everything of the host (cgroup-v2.rst).
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../failure/phaul-error.js';

/** Where this machine has cgroup v2 mounted, or null (pure v1, or a container without it). */
export function cgroup2Mount(): string | null {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left, right] = line.split(' - ');
    if (right?.startsWith('cgroup2 ') === true) return left?.split(' ')[4] ?? null;
  }
  return null;
}

/** A cgroup of the lab, made below the v2 root; null where none can be made: the hosts then do without. */
export function createCgroup(name: string): LabCgroup | null {
  const mount = cgroup2Mount();
  if (mount === null) return null;
  const folder = join(mount, name);
  try {
    mkdirSync(folder);
    mkdirSync(join(folder, 'agent'));
    mkdirSync(join(folder, 'work'));
  } catch (error) {
    if (errnoOf(error) === 'EROFS' || errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM') return null;
    throw error;
  }
  return new LabCgroup(folder);
}

export class LabCgroup implements AsyncDisposable {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Kills every process below and removes all folders, whatever was made inside. */
  async [Symbol.asyncDispose](): Promise<void> {
    writeFileSync(join(this.folder, 'cgroup.kill'), '1');
    for (let attempt = 0; ; attempt++) {
      try {
        await removeTree(this.folder);
        return;
      } catch (error) {
        // EBUSY while the killed are still being reaped.
        if (errnoOf(error) !== 'EBUSY' || attempt === 200) throw error;
        await sleep(20);
      }
    }
  }
}

async function removeTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(folder, entry.name));
  }
  rmdirSync(folder);
}
