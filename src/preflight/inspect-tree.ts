/** What a tree is made of and every reason on this host not to touch it. Reads /proc only: the real process is never dumped to find out (dangers.md 17d). */
import { arch, release } from 'node:os';
import { isShared } from '../host/mappings.js';
import { bootId, pidNamespace } from '../host/tasks.js';
import type { MigrationOrder } from '../migration/order.js';
import type { Finding, TaskIdentity, TreeIdentity } from '../migration/ports.js';
import { type FileNeeds, fileNeedsOf } from './file-needs.js';
import { findingsOf, type Say } from './finding.js';
import { foldersToProve, Nonces } from './nonces.js';
import { checkRoot } from './root-checks.js';
import { socketInode } from './sharing-checks.js';
import { mappedThing, type Snapshot, takeSnapshot } from './snapshot.js';
import { sourceChecks } from './source-checks.js';
import { type StdioEnd, stdioEnds } from './stdio.js';
import { ptysInside } from './terminal-checks.js';
import type { TreeFacts } from './tree-facts.js';

/** What CRIU must be told for this tree; set by itself because it is harmless. */
export interface TreeNeeds {
  readonly fileLocks: boolean;
  readonly linkRemap: boolean;
  /** Bytes; null: CRIU's own limit. */
  readonly ghostLimit: number | null;
  readonly extUnixSk: boolean;
}

export interface TreeInspection extends AsyncDisposable {
  readonly tree: TreeIdentity;
  /** Sum of RSS, bytes. */
  readonly memoryBytes: number;
  readonly needs: TreeNeeds;
  /** What `--stdio` rewires on the destination. */
  readonly stdio: readonly StdioEnd[];
  /** For the destination's checks: JSON. */
  readonly facts: string;
  readonly findings: readonly Finding[];
  /** Removes the nonces; when the destination has looked. They go by themselves after two minutes. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Another migration that has not ended on this host. */
export interface OpenMigration {
  readonly id: string;
  readonly tasks: readonly TaskIdentity[];
}

const noNeeds: TreeNeeds = { fileLocks: false, linkRemap: false, ghostLimit: null, extUnixSk: false };
const mib = 1024 ** 2;
/** CRIU's own limit (criu(8) --ghost-limit), and what its RPC can carry (uint32). */
const ownGhostLimit = mib;
const maxGhostLimit = 4 * 1024 ** 3 - mib;

/**
 * Inspects the tree of `order.pid`. Nothing is touched, but for nonce files beside files that the tree writes to.
 * With a pid that cannot be moved at all, the tree is empty and the findings say why.
 */
export async function inspectTree(
  order: MigrationOrder,
  host: string,
  signal: AbortSignal,
  open: readonly OpenMigration[] = [],
): Promise<TreeInspection> {
  signal.throwIfAborted();
  const say = findingsOf(host);
  const refused = checkRoot(order.pid, say);
  if (refused !== null) return nothing(refused);
  const snapshot = await takeSnapshot(order.pid, signal);
  const gone = snapshot.tasks.length === 0 ? checkRoot(order.pid, say) : null;
  if (gone !== null) return nothing(gone);

  const findings = [
    ...checkOtherMigrations(snapshot, open, say),
    ...sourceChecks.flatMap((check) => check({ snapshot, order, say })),
  ];
  const blocked = findings.some((finding) => finding.weight === 'blocker');
  const files = await fileNeedsOf(snapshot, !blocked && !order.filesAreSame, signal);
  const needs = needsOf(order, files, findings, say);
  const nonces = await Nonces.leave(order.id, blocked || order.filesAreSame ? [] : foldersToProve(files));
  const facts = factsOf(snapshot, files, nonces, findings);
  return {
    tree: treeOf(snapshot),
    memoryBytes: facts.memory.resident,
    needs,
    stdio: stdioEnds(snapshot, order),
    facts: JSON.stringify(facts),
    findings,
    [Symbol.asyncDispose]: () => nonces[Symbol.asyncDispose](),
  };
}

function nothing(finding: Finding): TreeInspection {
  return {
    tree: { bootId: bootId(), pidNamespace: pidNamespace('self'), tasks: [] },
    memoryBytes: 0,
    needs: noNeeds,
    stdio: [],
    facts: '{}',
    findings: [finding],
    [Symbol.asyncDispose]: async () => {},
  };
}

function treeOf(snapshot: Snapshot): TreeIdentity {
  return {
    bootId: bootId(),
    pidNamespace: pidNamespace('self'),
    tasks: snapshot.tasks.map(({ stat }) => ({ pid: stat.pid, startTime: stat.startTime })),
  };
}

/** dangers.md 6: one owner of a task at a time. */
function checkOtherMigrations(snapshot: Snapshot, open: readonly OpenMigration[], say: Say): Finding[] {
  return open.flatMap(({ id, tasks }) => {
    const shared = snapshot.tasks.find(({ stat }) =>
      tasks.some((task) => task.pid === stat.pid && task.startTime === stat.startTime),
    );
    if (shared === undefined) return [];
    return [
      say(
        'blocker',
        'already-migrating',
        {
          what: `Migration ${id} works on pid ${shared.stat.pid} already.`,
          why: 'Two migrations of one process would undo each other.',
          remedy: `Wait for it (phaul status ${id} --watch), or end it: phaul cancel ${id}, phaul recover ${id}.`,
        },
        { pid: shared.stat.pid, fd: null },
      ),
    ];
  });
}

/** Options that are set by themselves, each told as a note in `findings`. */
function needsOf(order: MigrationOrder, files: FileNeeds, findings: Finding[], say: Say): TreeNeeds {
  const { engine } = order;
  const tell = (code: string, what: string, why: string): void => {
    findings.push(say('note', code, { what, why, remedy: 'Nothing to do.' }));
  };
  const fileLocks = files.locks.some((lock) => lock.kind !== 'LEASE');
  if (fileLocks && !engine.fileLocks)
    tell('file-locks-set', `The tree holds ${files.locks.length} file locks.`, '--file-locks is set.');
  const linkRemap = files.linkRemaps.length > 0;
  if (linkRemap && !engine.linkRemap) {
    tell(
      'link-remap-set',
      `${files.linkRemaps[0]} was deleted or replaced, but has another name.`,
      '--link-remap is set.',
    );
  }
  return {
    fileLocks,
    linkRemap,
    ghostLimit: ghostLimitOf(order, files, findings, say),
    extUnixSk: findings.some((finding) => finding.code === 'external-unix-socket'),
  };
}

function ghostLimitOf(order: MigrationOrder, files: FileNeeds, findings: Finding[], say: Say): number | null {
  const biggest = files.ghosts.reduce((most, ghost) => (ghost.bytes > most.bytes ? ghost : most), {
    path: '',
    bytes: 0,
  });
  if (biggest.bytes <= (order.engine.ghostLimit ?? ownGhostLimit)) return null;
  // Twice, because it may grow until the freeze.
  const limit = Math.min(2 * Math.ceil(biggest.bytes / mib) * mib, maxGhostLimit);
  const what = `The deleted file ${biggest.path} has ${Math.ceil(biggest.bytes / mib)} MiB and travels in the images.`;
  findings.push(
    biggest.bytes > limit
      ? say('blocker', 'ghost-too-large', {
          what,
          why: 'The engine carries deleted files up to 4 GiB.',
          remedy: 'Let the program close it, or give it a name.',
        })
      : say(biggest.bytes > 64 * mib ? 'warning' : 'note', 'ghost-limit-set', {
          what,
          why: `--ghost-limit is set to ${limit / mib} MiB; the copy is made while the tree is frozen.`,
          remedy: 'Nothing to do.',
        }),
  );
  return limit;
}

function factsOf(snapshot: Snapshot, files: FileNeeds, nonces: Nonces, findings: readonly Finding[]): TreeFacts {
  const sockets = new Set(snapshot.tasks.flatMap((task) => task.files.flatMap((file) => socketInode(file) ?? [])));
  const ours = [...snapshot.unix.values()].filter((socket) => sockets.has(socket.inode));
  const paths = new Set(ours.flatMap(({ name }) => (name?.startsWith('/') === true ? [name] : [])));
  const peers = findings.some((finding) => finding.code === 'external-unix-socket')
    ? ours.flatMap(({ type, peer }) =>
        type === 'datagram' && !sockets.has(peer) ? (snapshot.unix.get(peer)?.name ?? []) : [],
      )
    : [];
  return {
    architecture: arch(),
    kernel: release(),
    bootId: bootId(),
    pidNamespace: pidNamespace('self'),
    tasks: snapshot.tasks.map(({ stat, threads }) => ({
      pid: stat.pid,
      comm: stat.comm,
      processGroup: stat.processGroup,
      session: stat.session,
      threads: [...threads],
    })),
    memory: memoryOf(snapshot),
    ...files,
    unixPaths: [...paths].map((path) => ({
      path,
      listening: ours.some(({ name, listening }) => name === path && listening),
    })),
    unixPeers: [...new Set(peers.filter((name) => name.startsWith('/')))],
    terminals: ptysInside({ snapshot }),
    nonces: [...nonces.left],
  };
}

function memoryOf(snapshot: Snapshot): TreeFacts['memory'] {
  const sum = (field: string): number =>
    snapshot.tasks.reduce(
      (bytes, { status }) => bytes + 1024 * Number(/^\d+/.exec(status.get(field) ?? '')?.[0] ?? 0),
      0,
    );
  const shared = new Map<string, number>();
  for (const mapping of snapshot.tasks.flatMap((task) => task.mappings.filter(isShared))) {
    const [start = '0', end = '0'] = mapping.range.split('-');
    const nameless = mapping.path.endsWith(' (deleted)');
    if (nameless)
      shared.set(`${mappedThing(mapping)} ${mapping.path}`, Number(BigInt(`0x${end}`) - BigInt(`0x${start}`)));
  }
  const mapped = [...shared.values()].reduce((bytes, each) => bytes + each, 0);
  // Reservations can be far larger than what is there.
  return { resident: sum('VmRSS'), private: sum('RssAnon') + sum('VmSwap') + Math.min(mapped, sum('RssShmem')) };
}
