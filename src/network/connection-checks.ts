/** Checks of a tree's sockets, before anything is touched (dangers.md 13, 14, 17b). */
import type { Finding } from '../migration/ports.js';
import { findingOf } from './address-checks.js';
import {
  connectionsInFlight,
  isConnected,
  isLocalPeer,
  peerOf,
  type TreeConnection,
  treeConnections,
} from './connections.js';
import { isAny, isGroup, isLoopback } from './ip-address.js';
import type { Endpoint, SocketEntry, TreeSockets } from './sockets.js';

export interface SourceConnectionFacts {
  readonly host: string;
  /** All sockets of the tree's network namespace. */
  readonly sockets: readonly SocketEntry[];
  readonly tree: TreeSockets;
  /** All addresses of that namespace, those that move included. */
  readonly hostIps: readonly string[];
}

/**
 * On the source: connections whose peer is on the source and stays there. "The address is on the destination" is true of
 * 127.0.0.1, yet nobody there knows the connection (dangers.md 17b).
 */
export function checkConnectionsOnSource(facts: SourceConnectionFacts): readonly Finding[] {
  const finding = findingOf(facts.host);
  const inFlight = connectionsInFlight(facts.sockets, facts.tree).length;
  const staying = facts.sockets.filter(
    (each) => facts.tree.has(each.inode) && each.state !== 'listen' && isLocalPeer(each.remote, facts.hostIps),
  );
  return [
    ...staying.flatMap((each) => {
      const peer = peerOf(each, facts.sockets);
      const holder = facts.tree.get(each.inode) ?? null;
      if (peer !== null && facts.tree.has(peer.inode)) return [];
      const connection = `${each.protocol} ${endpoint(each.local)} -> ${endpoint(each.remote)}`;
      const words = {
        what: `The tree is connected to a local process that does not move: ${connection}.`,
        why: 'The connection would be restored on the destination and reset at once: its peer is not there.',
        remedy: 'Close it, or move the process on its other end in the same tree.',
      };
      // A datagram socket finds the same service on the destination or says so; it has no state to lose.
      return each.protocol === 'tcp'
        ? finding('blocker', 'connection-to-local-process', words, holder)
        : finding(
            'warning',
            'socket-to-local-process',
            { ...words, why: 'The destination needs that service too.' },
            holder,
          );
    }),
    ...(inFlight === 0
      ? []
      : [
          finding('note', 'connections-in-flight', {
            what: `${inFlight} connections are not accepted yet.`,
            why: 'A connection in this state cannot be dumped.',
            remedy:
              'Nothing to do: before the freeze new connections are held back and the program gets time to accept.',
          }),
        ]),
  ];
}

/** What the destination needs to know about the tree's sockets; plain data. */
export interface DestinationConnectionFacts {
  readonly host: string;
  readonly connections: readonly TreeConnection[];
  readonly movedIps: readonly string[];
  /** All addresses of the destination. */
  readonly hostIps: readonly string[];
  /** False with --tcp-close: established connections are not bound again. */
  readonly keepEstablished: boolean;
}

/** On the destination: sockets bound to an address that neither moves nor exists here. The restore could not bind them. */
export function checkConnectionsOnDestination(facts: DestinationConnectionFacts): readonly Finding[] {
  const present = new Set([...facts.movedIps, ...facts.hostIps]);
  const lacking = facts.connections.filter(
    (each) =>
      !isAny(each.local.ip) &&
      !isGroup(each.local.ip) &&
      !isLoopback(each.local.ip) &&
      !present.has(each.local.ip) &&
      (facts.keepEstablished || !isConnected(each)),
  );
  return lacking.map((each) => {
    const connected = isConnected(each);
    const socket = `${each.protocol} ${endpoint(each.local)}${connected ? ` -> ${endpoint(each.remote)}` : ''}`;
    return findingOf(facts.host)(
      'blocker',
      connected ? 'connection-address-stays' : 'socket-address-stays',
      {
        what: `${socket} uses ${each.local.ip}, which neither moves nor exists on ${facts.host}.`,
        why: 'The destination cannot give the socket its address back.',
        remedy: connected
          ? `Move the address with it: --move-address ${each.local.ip}; or close its connections: --tcp-close.`
          : `Move the address with it: --move-address ${each.local.ip}; or bind the socket to every address.`,
      },
      each,
    );
  });
}

/** The facts that travel to the destination. */
export function connectionFacts(sockets: readonly SocketEntry[], tree: TreeSockets): readonly TreeConnection[] {
  return treeConnections(sockets, tree);
}

function endpoint(end: Endpoint): string {
  return end.ip.includes(':') ? `[${end.ip}]:${end.port}` : `${end.ip}:${end.port}`;
}
