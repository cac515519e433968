/** What the sockets of a tree mean for its move: listeners, connections not yet accepted, sockets that nobody holds. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Listener } from './fence-table.js';
import { isAny, isLoopback } from './ip-address.js';
import type { Endpoint, SocketEntry, SocketHolder, SocketState, TreeSockets } from './sockets.js';

/** A socket of the tree with its holder; plain data, sent to the destination for its checks. */
export interface TreeConnection extends SocketHolder {
  readonly protocol: SocketEntry['protocol'];
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly state: SocketState;
  readonly ipv6: boolean;
}

/** Reads the sockets of the tree's namespace afresh (`readSockets`). */
export type SocketReader = () => Promise<readonly SocketEntry[]>;

// A socket is looked at again after so long: an accept of a waiting program takes less.
const pollMs = 2;

const notConnected = new Set<SocketState>(['listen', 'close', 'bound-inactive']);

/** The sockets that the tree holds. */
export function treeConnections(all: readonly SocketEntry[], tree: TreeSockets): readonly TreeConnection[] {
  return all.flatMap((entry) => {
    const holder = tree.get(entry.inode);
    if (holder === undefined) return [];
    const { protocol, local, remote, state, ipv6 } = entry;
    return { protocol, local, remote, state, ipv6, ...holder };
  });
}

/** True for TCP with a peer, whatever is left of it. */
export function isConnected(entry: { readonly protocol: string; readonly state: SocketState }): boolean {
  return entry.protocol === 'tcp' && !notConnected.has(entry.state);
}

/** Addresses and ports on which the tree takes new TCP connections. */
export function treeListeners(all: readonly SocketEntry[], tree: TreeSockets): readonly Listener[] {
  const listening = all.filter((each) => each.protocol === 'tcp' && each.state === 'listen' && tree.has(each.inode));
  return [...new Map(listening.map((each) => [`${each.local.ip} ${each.local.port}`, each.local])).values()];
}

/**
 * Connections on their way to a listener of the tree: in the handshake, or whole and not accepted. One of them fails
 * the dump (dangers.md 13).
 */
export function connectionsInFlight(all: readonly SocketEntry[], tree: TreeSockets): readonly SocketEntry[] {
  const listeners = treeListeners(all, tree);
  return all.filter(
    (each) =>
      each.inode === 0 &&
      (each.state === 'syn-recv' || each.state === 'new-syn-recv' || isAccepted(each.state)) &&
      each.protocol === 'tcp' &&
      listeners.some((listener) => listener.port === each.local.port && covers(listener.ip, each.local.ip)),
  );
}

/**
 * Sockets that no process holds any more but that still have data for a client: closed by the program, not yet
 * acknowledged. They are not in the image (dangers.md 13). FIN-WAIT-2 and TIME-WAIT have nothing left to say.
 */
export function orphansWithData(
  all: readonly SocketEntry[],
  ports: ReadonlySet<number>,
  movedIps: readonly string[],
): readonly SocketEntry[] {
  const unfinished = new Set<SocketState>(['fin-wait-1', 'closing', 'last-ack']);
  return all.filter(
    (each) =>
      each.protocol === 'tcp' &&
      each.inode === 0 &&
      unfinished.has(each.state) &&
      (ports.has(each.local.port) || movedIps.includes(each.local.ip)),
  );
}

/** Waits at most `limitMs` until no orphan has data left; returns those that still have. */
export async function waitForOrphans(
  read: SocketReader,
  ports: ReadonlySet<number>,
  movedIps: readonly string[],
  limitMs = 200,
): Promise<readonly SocketEntry[]> {
  return await waitForNone(async () => orphansWithData(await read(), ports, movedIps), limitMs);
}

/**
 * Waits at most `limitMs` until the tree has accepted all that is on its way; returns what still is. New connections
 * must be held back (`SourceFence.holdNewConnections`), or others follow.
 */
export async function waitForAccepted(
  read: SocketReader,
  tree: TreeSockets,
  limitMs: number,
): Promise<readonly SocketEntry[]> {
  return await waitForNone(async () => connectionsInFlight(await read(), tree), limitMs);
}

/** Local ports of TCP connections with both ends in the tree: the loopback ports of the fences (dangers.md 17a). */
export function loopbackPortsInsideTree(all: readonly SocketEntry[], tree: TreeSockets): readonly number[] {
  const inside = all.filter((each) => tree.has(each.inode) && isConnected(each));
  const ends = new Set(inside.map((each) => pair(each.local, each.remote)));
  return [...new Set(inside.filter((each) => ends.has(pair(each.remote, each.local))).map((each) => each.local.port))];
}

/** The other end of a connection when it is on this host, or null. */
export function peerOf(entry: SocketEntry, all: readonly SocketEntry[]): SocketEntry | null {
  const wanted = pair(entry.remote, entry.local);
  return all.find((each) => each.protocol === entry.protocol && pair(each.local, each.remote) === wanted) ?? null;
}

/** True when the remote end of a connected socket is on this host itself. */
export function isLocalPeer(remote: Endpoint, hostIps: readonly string[]): boolean {
  return remote.port !== 0 && (isLoopback(remote.ip) || hostIps.includes(remote.ip));
}

// A connection may also be half-closed by its client before it is accepted.
function isAccepted(state: SocketState): boolean {
  return state === 'established' || state === 'close-wait';
}

// A listener on `::` takes IPv4 as well; one on `0.0.0.0` is found by the port, which is enough here.
function covers(listenerIp: string, ip: string): boolean {
  return isAny(listenerIp) || listenerIp === ip;
}

function pair(one: Endpoint, other: Endpoint): string {
  return `${one.ip} ${one.port} ${other.ip} ${other.port}`;
}

async function waitForNone<T>(look: () => Promise<readonly T[]>, limitMs: number): Promise<readonly T[]> {
  const end = performance.now() + limitMs;
  for (;;) {
    const left = await look();
    if (left.length === 0 || performance.now() >= end) return left;
    await sleep(pollMs);
  }
}
