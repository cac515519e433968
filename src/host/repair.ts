/**
 * Takes the sockets of a tree out of TCP repair mode after a dumping CRIU was killed (dangers.md 2). A socket in repair
 * mode swallows what it is given; left there, its connection dies as soon as the task touches it.
 */
import { closeSync } from 'node:fs';
import { errnoOf, messageOf, PhaulError } from '../failure/phaul-error.js';
import type { TaskIdentity } from '../migration/ports.js';
import { addon } from '../native/addon.js';
import { targetsOf } from './descriptors.js';
import { TaskHandle } from './pidfd.js';

/**
 * Returns how many sockets were taken out. The tasks must be frozen, or the rescue races with them. One socket that
 * cannot be helped does not keep the others from it: its failure is thrown when all have been tried.
 * Throws `still-in-repair`.
 */
export function endRepairMode(tasks: readonly TaskIdentity[]): number {
  let ended = 0;
  const failures: unknown[] = [];
  for (const task of tasks) {
    using handle = TaskHandle.open(task);
    if (handle === null) continue;
    for (const { fd, target } of targetsOf(task.pid)) {
      if (!target.startsWith('socket:')) continue;
      try {
        if (leaveRepairMode(handle, fd)) ended++;
      } catch (thrown) {
        // Closed, or its task gone, since the look.
        if (errnoOf(thrown) !== 'EBADF' && errnoOf(thrown) !== 'ESRCH') failures.push(thrown);
      }
    }
  }
  if (failures.length > 0) {
    throw new PhaulError({
      code: 'still-in-repair',
      what: `${failures.length} TCP sockets could not be taken out of repair mode: ${messageOf(failures[0])}`,
      remedy: 'their connections are lost; the process goes on',
      cause: failures[0],
    });
  }
  return ended;
}

function leaveRepairMode(handle: TaskHandle, fd: number): boolean {
  const copy = handle.descriptor(fd);
  try {
    if (!addon().tcpInRepair(copy)) return false;
    addon().tcpLeaveRepair(copy);
    return true;
  } finally {
    closeSync(copy);
  }
}
