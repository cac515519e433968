/** Is the pid that the operator named a process that can be moved at all? Everything else is asked only if it is. */
import { hasEnded, kernelThreadFlag, readStat, readStatus, treeOf } from '../host/tasks.js';
import type { Finding } from '../migration/ports.js';
import type { Say } from './finding.js';

/** The first reason why not, or null. Reads /proc only. */
export function checkRoot(pid: number, say: Say): Finding | null {
  const blamed = { pid, fd: null };
  const refuse = (code: string, what: string, why: string, remedy: string): Finding =>
    say('blocker', code, { what, why, remedy }, blamed);
  const stat = readStat(pid);
  const status = readStatus(pid);
  if (stat === null || status === null) {
    return refuse(
      'pid-not-found',
      `There is no process ${pid} on this host.`,
      'It has ended, or the number counts in another pid namespace.',
      'Look it up where the agent runs (ps -e), and give that number.',
    );
  }
  if (pid === 1) {
    return refuse(
      'pid-is-init',
      'Pid 1 is the init process of this host.',
      'It cannot leave: the host would end with it, and the destination has a pid 1 of its own.',
      'Migrate a service below it.',
    );
  }
  const leader = Number(status.get('Tgid'));
  if (leader !== pid) {
    return refuse(
      'pid-is-thread',
      `${pid} is a thread of process ${leader}.`,
      'Threads share memory and descriptors with their process and can only move with it.',
      `Migrate the process: phaul migrate ${leader}.`,
    );
  }
  if ((stat.flags & kernelThreadFlag) !== 0) {
    return refuse(
      'pid-is-kernel-thread',
      `${pid} (${stat.comm}) is a thread of the kernel.`,
      'It belongs to this kernel and has no memory of its own.',
      'Migrate a user process.',
    );
  }
  if (hasEnded(stat)) {
    return refuse(
      'pid-is-zombie',
      `Process ${pid} (${stat.comm}) has ended already.`,
      `It is a zombie: nothing is left of it but its exit code, for its parent (pid ${stat.parent}) to read.`,
      'Migrate a process that runs.',
    );
  }
  if (treeOf(pid).includes(process.pid)) {
    return refuse(
      'pid-is-agent',
      pid === process.pid
        ? `Process ${pid} is the agent of phaul.`
        : `The agent of phaul runs inside the tree of process ${pid}.`,
      'It would have to freeze itself.',
      'Migrate another process, or start the agent outside of this tree (phaul agent, or its systemd unit).',
    );
  }
  return null;
}
