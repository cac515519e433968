/** What /proc/net says, and what it means for a move. */
import { describe, expect, test } from 'vitest';
import { checkConnectionsOnDestination, checkConnectionsOnSource } from '../../src/network/connection-checks.js';
import {
  connectionsInFlight,
  loopbackPortsInsideTree,
  orphansWithData,
  treeConnections,
  treeListeners,
  waitForOrphans,
} from '../../src/network/connections.js';
import { parseSockets, type SocketEntry, type SocketState } from '../../src/network/sockets.js';

const header = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
// As printed by a little-endian host.
const tcp = `${header}
   0: 00000000:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 101 1 0000 100 0 0 10 0
   1: 6400000A:1F90 0200000A:9C40 01 00000010:00000000 01:00000014 00000000  1000        0 102 2 0000 20 4 30 10 -1
   2: 6400000A:1F90 0200000A:9C42 01 00000000:00000005 00:00000000 00000000     0        0 0 1 0000 20 0 0 10 -1
   3: 6400000A:1F90 0200000A:9C44 03 00000000:00000000 01:00000063 00000000     0        0 0 1 0000
   4: 6400000A:1F90 0200000A:9C46 04 00000400:00000000 01:00000014 00000000     0        0 0 4 0000 20 4 30 10 -1
   5: 6400000A:1F90 0200000A:9C48 06 00000000:00000000 03:00000AB3 00000000     0        0 0 3 0000
   6: 0100007F:B1A4 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0000 20 0 0 10 -1
   7: 0100007F:1538 0100007F:B1A4 01 00000000:00000000 00:00000000 00000000     0        0 900 1 0000 20 0 0 10 -1
`;
const tcp6 = `${header}
   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 104 1 0000 100 0 0 10 0
   1: 0000000000000000FFFF00006400000A:1F91 0000000000000000FFFF00000200000A:9C4A 01 00000000:00000000 00:00000000 00000000     0        0 105 1 0000 20 0 0 10 -1
   2: B80D0120000000000000000005000000:1F91 B80D0120000000000000000006000000:9C4C 01 00000000:00000000 00:00000000 00000000     0        0 106 1 0000 20 0 0 10 -1
`;
const all = [...parseSockets(tcp, 'tcp'), ...parseSockets(tcp6, 'tcp')];
const tree = new Map([101, 102, 103, 104, 105, 106].map((inode, fd) => [inode, { pid: 50, fd }]));

function entry(local: string, remote: string, state: SocketState, inode: number): SocketEntry {
  const end = (text: string) => ({ ip: text.split(' ')[0] ?? '', port: Number(text.split(' ')[1]) });
  return { protocol: 'tcp', local: end(local), remote: end(remote), state, inode, txQueue: 0, rxQueue: 0, ipv6: false };
}

describe('parseSockets', () => {
  test('reads addresses, ports, queues and states', () => {
    expect(all).toHaveLength(11);
    expect(all[1]).toEqual({
      protocol: 'tcp',
      local: { ip: '10.0.0.100', port: 8080 },
      remote: { ip: '10.0.0.2', port: 40000 },
      state: 'established',
      txQueue: 16,
      rxQueue: 0,
      inode: 102,
      ipv6: false,
    });
    expect(all[9]).toMatchObject({ local: { ip: '10.0.0.100', port: 8081 }, ipv6: true });
    expect(all[10]).toMatchObject({ local: { ip: '2001:db8::5' }, remote: { ip: '2001:db8::6' } });
  });
});

describe('danger 13', () => {
  test('handshakes and connections not yet accepted are in flight', () => {
    expect(connectionsInFlight(all, tree).map((each) => each.remote.port)).toEqual([40002, 40004]);
    expect(connectionsInFlight(all, new Map())).toEqual([]);
  });

  test('listeners are told with their addresses', () => {
    expect(treeListeners(all, tree)).toEqual([
      { ip: '0.0.0.0', port: 8080 },
      { ip: '::', port: 8081 },
    ]);
  });

  test('an orphan with data is waited for, TIME-WAIT is not', async () => {
    const orphans = orphansWithData(all, new Set([8080]), []);
    expect(orphans.map((each) => each.remote.port)).toEqual([40006]);
    expect(orphansWithData(all, new Set(), ['10.0.0.100'])).toEqual(orphans);
    let looks = 0;
    const left = await waitForOrphans(async () => (++looks < 3 ? all : []), new Set([8080]), [], 1000);
    expect({ left, looks }).toEqual({ left: [], looks: 3 });
    expect(await waitForOrphans(async () => all, new Set([8080]), [], 10)).toEqual(orphans);
  });
});

describe('danger 17b', () => {
  const check = (holders: ReadonlyMap<number, { pid: number; fd: number }>) =>
    checkConnectionsOnSource({ host: 'a', sockets: all, tree: holders, hostIps: ['127.0.0.1', '10.0.0.100'] });

  test('a loopback peer outside the tree is a blocker with its pid and fd', () => {
    expect(check(tree).filter((each) => each.weight === 'blocker')).toMatchObject([
      { code: 'connection-to-local-process', pid: 50, fd: 2, host: 'a' },
    ]);
  });

  test('a loopback peer inside the tree moves along; its ports are those of the loopback fence (danger 17a)', () => {
    const both = new Map([...tree, [900, { pid: 51, fd: 3 }]]);
    expect(check(both).filter((each) => each.weight === 'blocker')).toEqual([]);
    expect(loopbackPortsInsideTree(all, both).toSorted()).toEqual([45476, 5432]);
    expect(loopbackPortsInsideTree(all, tree)).toEqual([]);
  });

  test('a client on the source itself, by the address of the host, is a blocker too', () => {
    const sockets = [
      entry('10.0.0.100 80', '10.0.0.1 4000', 'established', 1),
      entry('10.0.0.1 4000', '10.0.0.100 80', 'established', 2),
    ];
    const holders = new Map([[1, { pid: 9, fd: 4 }]]);
    const found = checkConnectionsOnSource({ host: 'a', sockets, tree: holders, hostIps: ['10.0.0.1', '10.0.0.100'] });
    expect(found).toMatchObject([{ code: 'connection-to-local-process' }]);
  });
});

describe('danger 14', () => {
  const facts = {
    host: 'b',
    connections: treeConnections(all, tree),
    hostIps: ['127.0.0.1', '10.0.0.9'],
    keepEstablished: true,
  };

  test('a connection whose address neither moves nor is on the destination is a blocker', () => {
    const codes = checkConnectionsOnDestination({ ...facts, movedIps: ['2001:db8::5'] }).map((each) => [
      each.code,
      each.fd,
    ]);
    expect(codes).toEqual([
      ['connection-address-stays', 1],
      ['connection-address-stays', 4],
    ]);
    expect(checkConnectionsOnDestination({ ...facts, movedIps: ['2001:db8::5', '10.0.0.100'] })).toEqual([]);
  });

  test('with --tcp-close only what must be bound again counts', () => {
    expect(checkConnectionsOnDestination({ ...facts, movedIps: [], keepEstablished: false })).toEqual([]);
    const listener = treeConnections([entry('10.0.0.100 80', '0.0.0.0 0', 'listen', 101)], tree);
    const found = checkConnectionsOnDestination({
      ...facts,
      connections: listener,
      movedIps: [],
      keepEstablished: false,
    });
    expect(found).toMatchObject([{ code: 'socket-address-stays', weight: 'blocker' }]);
  });
});
