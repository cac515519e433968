/**
 * Takes the sockets of a tree out of TCP repair mode after a dumping CRIU was killed (dangers.md 2). A socket in repair
 * mode swallows what it is given; left there, its connection dies as soon as the task touches it.
 */
import { closeSync, readdirSync, readlinkSync } from 'node:fs';
import { errnoOf } from '../failure/phaul-error.js';
import type { TaskIdentity } from '../migration/ports.js';
import { addon } from '../native/addon.js';
import { TaskHandle } from './pidfd.js';

/** Returns how many sockets were taken out. The tasks must be frozen, or the rescue races with them. */
export function endRepairMode(tasks: readonly TaskIdentity[]): number {
  let ended = 0;
  for (const task of tasks) {
    using handle = TaskHandle.open(task);
    if (handle === null) continue;
    for (const fd of socketsOf(task.pid)) {
      const copy = handle.descriptor(fd);
      try {
        if (!addon().tcpInRepair(copy)) continue;
        addon().tcpLeaveRepair(copy);
        ended++;
      } finally {
        closeSync(copy);
      }
    }
  }
  return ended;
}

function socketsOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('socket:') ? [Number(name)] : [];
    } catch (thrown) {
      if (errnoOf(thrown) === 'ENOENT') return [];
      throw thrown;
    }
  });
}
