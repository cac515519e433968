/** Who would start a second copy when this one is gone (dangers.md 9). */
import { readProc, readStat } from '../host/tasks.js';
import type { Finding } from '../migration/ports.js';
import { unlessForced } from './finding.js';
import type { Look } from './look.js';

/** Programs whose purpose it is to start their children again. */
const respawning = new Set([
  'circusd',
  'containerd-shim',
  'dinit',
  'immortal',
  'monit',
  'perpd',
  'procd',
  'runsv',
  's6-supervise',
  'supervise',
  'supervise-daemo',
  'supervisord',
]);

export function checkSupervisor({ snapshot, order, say }: Look): Finding[] {
  const root = snapshot.tasks.find((task) => task.stat.pid === snapshot.root);
  if (root === undefined) return [];
  const blamed = { pid: snapshot.root, fd: null };
  const unit = supervisingUnit(snapshot.root);
  if (unit !== null) {
    // Nobody masks units yet: --stop-unit must not lift this before somebody does.
    return [
      say(
        unlessForced(order.force),
        'supervised-by-systemd',
        {
          what: `Process ${snapshot.root} belongs to the systemd unit ${unit}.`,
          why: 'systemd sees it die here and may start it again: two copies, on two hosts.',
          remedy: order.stopUnit
            ? `--stop-unit is not implemented yet: run systemctl mask --runtime ${unit}, then use --force.`
            : `Run systemctl mask --runtime ${unit} (unmask it when the move has failed), then use --force.`,
        },
        blamed,
      ),
    ];
  }
  const parent = readStat(root.stat.parent);
  if (parent === null || parent.pid <= 1) return [];
  if (respawning.has(parent.comm.slice(0, 15))) {
    return [
      say(
        unlessForced(order.force),
        'supervised',
        {
          what: `The parent of process ${snapshot.root} is ${parent.comm} (pid ${parent.pid}), which starts its children again.`,
          why: 'It sees the process die here: two copies, on two hosts.',
          remedy: `Tell ${parent.comm} to leave the process alone, then use --force.`,
        },
        blamed,
      ),
    ];
  }
  return [
    say(
      'note',
      'parent-notices',
      {
        what: `The parent of process ${snapshot.root} (${parent.comm}, pid ${parent.pid}) stays here.`,
        why: 'It will see its child killed, and the process finds init as its parent on the destination.',
        remedy: 'Nothing to do, unless the parent starts a new one.',
      },
      blamed,
    ),
  ];
}

/** Unit of the `.service` in which a process or its parent lives, or null. */
export function supervisingUnit(pid: number): string | null {
  const parent = readStat(pid)?.parent ?? 0;
  for (const each of parent > 1 ? [pid, parent] : [pid]) {
    const unit = serviceOf(readProc(`/proc/${each}/cgroup`) ?? '');
    if (unit !== null) return unit;
  }
  return null;
}

/**
 * The service that a task's cgroups name (cgroups(7): `hierarchy:controllers:path`), or null. The innermost unit counts:
 * what lives in a scope below user@1000.service was started by hand.
 */
export function serviceOf(cgroups: string): string | null {
  for (const line of cgroups.split('\n')) {
    const match = /^\d+:(|name=systemd):(.*)$/.exec(line);
    const unit = match?.[2]?.split('/').findLast((part) => /\.(service|scope)$/.test(part));
    if (unit?.endsWith('.service') === true) return unit;
  }
  return null;
}
