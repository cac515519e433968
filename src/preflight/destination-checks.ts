/** Every reason on the destination why a tree could not be restored here. Looks only. */

import { readFileSync, statSync } from 'node:fs';
import { arch, release } from 'node:os';
import { allProcesses, bootId, pidNamespace, readStat, threadsOf } from '../host/tasks.js';
import type { MigrationOrder } from '../migration/order.js';
import type { Finding } from '../migration/ports.js';
import { checkFiles } from './file-checks.js';
import { findingsOf, type Say } from './finding.js';
import { checkRoom } from './room-checks.js';
import type { TreeFacts } from './tree-facts.js';
import { readUnixSockets } from './unix-sockets.js';

export interface Destination {
  /** Name of this host. */
  readonly host: string;
  /** Where the images will be. */
  readonly stateFolder: string;
  /** True when the source sends hashes of written files from the freeze (`hashWrittenFiles`) and this host compares them. */
  readonly comparesFrozenFiles: boolean;
}

export async function checkDestination(
  facts: TreeFacts,
  order: MigrationOrder,
  destination: Destination,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const say = findingsOf(destination.host);
  const sameHost = checkNotTheSame(facts, say);
  // Everything else would be said of the source itself.
  if (sameHost !== null) return [sameHost];
  return [
    ...checkMachine(facts, say),
    ...checkPids(facts, order.shellJob, say),
    ...checkTerminals(facts, say),
    ...checkUnixPaths(facts, say),
    ...(await checkUnixPathsFree(facts, say, signal)),
    ...(await checkFiles(facts, order, destination, signal)),
    ...(await checkRoom(facts, destination.stateFolder, say)),
  ];
}

function checkNotTheSame(facts: TreeFacts, say: Say): Finding | null {
  if (facts.bootId !== bootId() || facts.pidNamespace !== pidNamespace('self')) return null;
  return say('blocker', 'same-host', {
    what: 'Source and destination are the same host.',
    why: 'A process cannot stand beside its own copy.',
    remedy: 'Name another host.',
  });
}

function checkMachine(facts: TreeFacts, say: Say): Finding[] {
  if (facts.architecture !== arch()) {
    return [
      say('blocker', 'architecture-differs', {
        what: `The source is ${facts.architecture}, this host is ${arch()}.`,
        why: 'The code in the memory of the process cannot run here.',
        remedy: 'Choose a destination of the same architecture.',
      }),
    ];
  }
  if (!isOlder(release(), facts.kernel)) return [];
  return [
    say('warning', 'kernel-older', {
      what: `The kernel here (${release()}) is older than the source's (${facts.kernel}).`,
      why: 'The process may use what this kernel does not have; then the restore fails and the process goes on at the source.',
      remedy: 'Nothing to do if it works; else update the kernel here.',
    }),
  ];
}

/** Compares `major.minor`. */
export function isOlder(one: string, other: string): boolean {
  const parts = (version: string): number[] => version.split('.', 2).map((part) => Number.parseInt(part, 10));
  const [[major = 0, minor = 0], [otherMajor = 0, otherMinor = 0]] = [parts(one), parts(other)];
  return major < otherMajor || (major === otherMajor && minor < otherMinor);
}

/**
 * dangers.md 17c: pids, thread ids, process groups and sessions come back with their numbers. A number is taken as long
 * as anything bears it: a group or session outlives its leader.
 */
export function checkPids(facts: TreeFacts, shellJob: boolean, say: Say): Finding[] {
  const taken = takenNumbers();
  const travelling = new Set(facts.tasks.map((task) => task.pid));
  const comesBack = (number: number): boolean => number !== 0 && (!shellJob || travelling.has(number));
  const needed = facts.tasks.flatMap((task) => [
    ...task.threads.map((thread) => ({ task, number: thread, role: thread === task.pid ? 'pid' : 'thread' })),
    // The number of a group comes back even if its leader has ended; with --shell-job those outside are replaced.
    ...(comesBack(task.processGroup) ? [{ task, number: task.processGroup, role: 'process group' }] : []),
    ...(comesBack(task.session) ? [{ task, number: task.session, role: 'session' }] : []),
  ]);
  const told = new Set<number>();
  const findings = needed.flatMap(({ task, number, role }) => {
    const holder = taken.get(number);
    if (holder === undefined || told.has(number)) return [];
    told.add(number);
    return [
      say(
        'blocker',
        'pid-taken',
        {
          what: `The ${role} ${number} of the tree (${task.comm}) is taken here: ${holder}.`,
          why: 'A restored task gets its old number; two cannot have it.',
          remedy: "End that process here, or start both hosts' programs from different ranges of pids (ns_last_pid).",
        },
        { pid: number, fd: null },
      ),
    ];
  });
  const highest = Math.max(0, ...needed.map(({ number }) => number));
  const limit = Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8'));
  if (highest < limit) return findings;
  return [
    ...findings,
    say('blocker', 'pid-too-high', {
      what: `The tree has the pid ${highest}; this host gives pids below ${limit} only.`,
      why: 'A restored task gets its old number.',
      remedy: `sysctl -w kernel.pid_max=${highest + 1} here.`,
    }),
  ];
}

function takenNumbers(): ReadonlyMap<number, string> {
  const taken = new Map<number, string>();
  for (const pid of allProcesses()) {
    const stat = readStat(pid);
    if (stat === null) continue;
    const name = `${stat.comm} (pid ${pid})`;
    for (const thread of threadsOf(pid)) taken.set(thread, thread === pid ? name : `a thread of ${name}`);
    taken.set(pid, name);
    if (!taken.has(stat.processGroup)) taken.set(stat.processGroup, `the process group of ${name}`);
    if (!taken.has(stat.session)) taken.set(stat.session, `the session of ${name}`);
  }
  return taken;
}

/** dangers.md 43: the engine makes each pty under its old number. */
function checkTerminals(facts: TreeFacts, say: Say): Finding[] {
  const taken = facts.terminals.filter(
    (index) => statSync(`/dev/pts/${index}`, { throwIfNoEntry: false }) !== undefined,
  );
  return taken.map((index) =>
    say('blocker', 'terminal-taken', {
      what: `The terminal /dev/pts/${index}, which the tree has made for itself, exists here already.`,
      why: 'A restored terminal gets its old number.',
      remedy: 'Close that terminal here, or give the host a devpts of its own (mount -t devpts -o newinstance).',
    }),
  );
}

/** dangers.md 44: the restore unlinks the path, and whoever serves there now would never be reached again. */
async function checkUnixPathsFree(facts: TreeFacts, say: Say, signal: AbortSignal): Promise<Finding[]> {
  const here = facts.unixPaths.filter(({ path }) => statSync(path, { throwIfNoEntry: false })?.isSocket() === true);
  if (here.length === 0) return [];
  const sockets = [...(await readUnixSockets(signal)).values()];
  const served = new Set(
    sockets.flatMap(({ name, listening, type }) => (listening || type === 'datagram' ? [name] : [])),
  );
  return here.flatMap(({ path }) =>
    served.has(path)
      ? [
          say('blocker', 'unix-path-taken', {
            what: `A process here serves the socket ${path}, to which the tree is bound, too.`,
            why: 'The restored tree would take the path away from it.',
            remedy: 'End that process, or let one of the two use another path.',
          }),
        ]
      : [],
  );
}

function checkUnixPaths(facts: TreeFacts, say: Say): Finding[] {
  const lacking = facts.unixPeers.filter((path) => statSync(path, { throwIfNoEntry: false })?.isSocket() !== true);
  return lacking.map((path) =>
    say('blocker', 'unix-peer-missing', {
      what: `There is no socket ${path} here, to which the tree sends datagrams.`,
      why: 'The engine connects to it again and fails if it cannot.',
      remedy: 'Start the service that listens there.',
    }),
  );
}
