/** Every reason on the source not to touch a tree, each a small function of one look; told in this order. */
import type { Finding } from '../migration/ports.js';
import { unlessForced } from './finding.js';
import { checkDescriptorKinds, checkMappingKinds } from './kind-checks.js';
import type { Look } from './look.js';
import { checkSharedFiles, checkSharedMemory, checkUnixPeers, checkUnseenPipeEnds } from './sharing-checks.js';
import { namespaceKinds } from './snapshot.js';
import { checkSupervisor } from './supervisor.js';
import { checkSessions, checkTerminals } from './terminal-checks.js';

export const sourceChecks: readonly ((look: Look) => Finding[])[] = [
  checkTracers,
  checkNamespaces,
  checkSupervisor,
  checkSessions,
  checkTerminals,
  checkSharedFiles,
  checkSharedMemory,
  checkUnixPeers,
  checkUnseenPipeEnds,
  checkDescriptorKinds,
  checkMappingKinds,
  checkLeases,
  checkThreads,
];

function checkTracers({ snapshot, say }: Look): Finding[] {
  return snapshot.tasks.flatMap(({ stat, status }) => {
    const tracer = Number(status.get('TracerPid') ?? 0);
    if (tracer === 0) return [];
    return [
      say(
        'blocker',
        'traced',
        {
          what: `Pid ${stat.pid} (${stat.comm}) is traced by pid ${tracer}.`,
          why: 'A task has one tracer at a time, and the engine must become it.',
          remedy: 'Detach the debugger or strace first.',
        },
        { pid: stat.pid, fd: null },
      ),
    ];
  });
}

/**
 * Namespaces that the engine dumps and makes anew without help: System V IPC (criu.md 9: PostgreSQL needs its own), and
 * the clock offsets in which every restored tree lives.
 */
const travelling: ReadonlySet<string> = new Set(['ipc', 'time']);

/** Trees in namespaces of their own are containers: more has to move than the processes. */
function checkNamespaces({ snapshot, order, say }: Look): Finding[] {
  const root = snapshot.tasks.find((task) => task.stat.pid === snapshot.root);
  if (root === undefined) return [];
  const foreign = namespaceKinds.filter(
    (kind) => !travelling.has(kind) && differs(root.namespaces[kind], snapshot.own[kind]),
  );
  const nested = snapshot.tasks.flatMap(({ stat, namespaces }) => {
    // A zombie has left its namespaces already.
    const kinds =
      stat.state === 'Z' ? [] : namespaceKinds.filter((kind) => differs(namespaces[kind], root.namespaces[kind]));
    return kinds.length === 0 ? [] : [{ stat, kinds }];
  });
  return [
    ...(foreign.length === 0
      ? []
      : [
          say(
            unlessForced(order.force),
            'foreign-namespaces',
            {
              what: `Process ${snapshot.root} lives in other namespaces than the agent (${foreign.join(', ')}).`,
              why: 'Its paths, addresses or pids do not mean the same here, and moving the namespaces themselves is not supported yet.',
              remedy: 'Start the agent inside these namespaces (nsenter), or use --force if the engine is to try.',
            },
            { pid: snapshot.root, fd: null },
          ),
        ]),
    ...nested.map(({ stat, kinds }) =>
      say(
        'blocker',
        'nested-namespaces',
        {
          what: `Pid ${stat.pid} (${stat.comm}) lives in other namespaces than the root of its tree (${kinds.join(', ')}).`,
          why: 'The engine dumps such a tree and then cannot restore it.',
          remedy: 'Migrate that part of the tree from inside its namespaces, or start it without.',
        },
        { pid: stat.pid, fd: null },
      ),
    ),
  ];
}

/** A task that is about to end has left its namespaces: it names none. */
function differs(one: string | null, other: string | null): boolean {
  return one !== null && other !== null && one !== other;
}

/** dangers.md 42: the destination's open(2) breaks the lease of the source, and an abort cannot mend it. */
function checkLeases({ snapshot, say }: Look): Finding[] {
  return snapshot.tasks.flatMap((task) =>
    task.files
      .filter((file) => file.locks.some((lock) => lock.kind === 'LEASE'))
      .map((file) =>
        say(
          'blocker',
          'file-lease',
          {
            what: `Pid ${file.pid} holds a lease on ${file.target} (descriptor ${file.fd}).`,
            why: 'Opening the file for the copy breaks the lease, and the program gets a signal for it even if the migration is aborted.',
            remedy: 'Let the program give up its lease (fcntl F_SETLEASE F_UNLCK).',
          },
          file,
        ),
      ),
  );
}

/** A process whose first thread has ended while others go on: the engine reads everything through the first. */
function checkThreads({ snapshot, say }: Look): Finding[] {
  return snapshot.tasks
    .filter(({ stat }) => stat.state === 'Z' && stat.threads > 1)
    .map(({ stat }) =>
      say(
        'blocker',
        'first-thread-ended',
        {
          what: `The first thread of pid ${stat.pid} (${stat.comm}) has ended while others go on.`,
          why: 'The engine cannot dump such a process.',
          remedy: 'Wait until it ends, or restart it.',
        },
        { pid: stat.pid, fd: null },
      ),
    );
}
