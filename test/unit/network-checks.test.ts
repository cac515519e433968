/** Checks of addresses and sysctls, names of tables. */
import { describe, expect, test } from 'vitest';
import { parseAddressOrder } from '../../src/network/address.js';
import {
  checkAddressOnDestination,
  checkAddressOnSource,
  type SourceAddressFacts,
} from '../../src/network/address-checks.js';
import { fenceName, fenceScript, listenerElement, parseFenceName } from '../../src/network/fence-table.js';
import { deviceFor, parseInterfaces } from '../../src/network/interfaces.js';
import { tablesAmong } from '../../src/network/leftovers.js';
import { deleteLockTable, isLockTableName, lockTableName } from '../../src/network/lock-table.js';
import { placeFor, placeHere, removalWouldDropOthers } from '../../src/network/moved-address.js';
import type { SocketEntry } from '../../src/network/sockets.js';
import { compareSysctls, type NetworkSysctls } from '../../src/network/sysctls.js';

const forever = { valid_life_time: 4294967295 };
const interfaces = parseInterfaces(
  JSON.stringify([
    {
      ifindex: 1,
      ifname: 'lo',
      flags: ['LOOPBACK', 'UP'],
      mtu: 65536,
      link_type: 'loopback',
      address: '00:00:00:00:00:00',
      addr_info: [{ family: 'inet', local: '127.0.0.1', prefixlen: 8, scope: 'host', ...forever }],
    },
    {},
    {
      ifindex: 7,
      ifname: 'eth0',
      flags: ['UP'],
      mtu: 1500,
      link_type: 'ether',
      address: '02:00:5e:00:11:22',
      addr_info: [
        { family: 'inet', local: '10.0.0.1', prefixlen: 24, scope: 'global', ...forever },
        { family: 'inet', local: '10.0.0.5', prefixlen: 24, scope: 'global', secondary: true, ...forever },
        { family: 'inet', local: '10.0.0.7', prefixlen: 32, scope: 'global', ...forever },
        { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link', ...forever },
        { family: 'inet6', local: 'fd00::1', prefixlen: 64, scope: 'global', valid_life_time: 3600 },
      ],
    },
    {
      ifindex: 8,
      ifname: 'wg0',
      flags: [],
      mtu: 1420,
      link_type: 'none',
      addr_info: [{ family: 'inet', local: '10.0.0.129', prefixlen: 25, scope: 'global', ...forever }],
    },
  ]),
);

describe('danger 14: the address', () => {
  const facts: SourceAddressFacts = {
    host: 'a',
    interfaces,
    sockets: [],
    tree: new Map(),
    own: new Map(),
    promoting: new Set(),
  };
  const codes = (text: string, more: Partial<typeof facts> = {}) =>
    checkAddressOnSource(parseAddressOrder(text), { ...facts, ...more }).map((each) => each.code);
  const socket = (inode: number): SocketEntry => ({
    protocol: 'tcp',
    local: { ip: '10.0.0.7', port: 22 },
    remote: { ip: '10.0.0.2', port: 1 },
    state: 'established',
    txQueue: 0,
    rxQueue: 0,
    inode,
    ipv6: false,
  });

  test('a primary takes its secondaries along, unless they are promoted', () => {
    expect(codes('10.0.0.1')).toEqual(['address-carries-others']);
    expect(codes('10.0.0.1', { promoting: new Set(['eth0']) })).toEqual([]);
    expect(codes('10.0.0.5')).toEqual([]);
    const place = placeHere(parseAddressOrder('10.0.0.1'), interfaces);
    expect(removalWouldDropOthers(place, interfaces, false).map((each) => each.ip)).toEqual(['10.0.0.5']);
  });

  test('sockets outside the tree and those of phaul itself are told apart; those of the tree are welcome', () => {
    const holder = { pid: 1, fd: 3 };
    expect(codes('10.0.0.7', { sockets: [socket(5)] })).toEqual(['address-used-elsewhere']);
    expect(codes('10.0.0.7', { sockets: [socket(5)], own: new Map([[5, holder]]) })).toEqual(['address-carries-phaul']);
    expect(codes('10.0.0.7', { sockets: [socket(5)], tree: new Map([[5, holder]]) })).toEqual([]);
    expect(codes('10.0.0.7', { sockets: [socket(0)] })).toEqual([]);
  });

  test('an address that is elsewhere, and one that is leased', () => {
    expect(codes('10.0.0.99')).toEqual(['address-not-here']);
    expect(codes('fd00::1')).toEqual(['address-carries-subnet', 'address-leased']);
  });

  test('the destination: device of the narrowest subnet, none, taken, down', () => {
    const check = (text: string) =>
      checkAddressOnDestination(parseAddressOrder(text), 'b', interfaces).map((each) => each.code);
    expect(deviceFor(parseAddressOrder('10.0.0.99'), interfaces).name).toBe('eth0');
    expect(deviceFor(parseAddressOrder('10.0.0.200'), interfaces).name).toBe('wg0');
    expect(placeFor(parseAddressOrder('10.0.0.99'), interfaces)).toMatchObject({ device: 'eth0', prefixLength: 32 });
    expect(check('10.0.0.99')).toEqual([]);
    expect(check('10.0.0.200')).toEqual(['device-down']);
    expect(check('10.0.0.7')).toEqual(['address-taken']);
    expect(check('192.168.1.1')).toEqual(['no-device-for-address']);
    expect(check('192.168.1.1@eth0')).toEqual([]);
    expect(check('fdff:db8::1')).toEqual(['no-device-for-address']);
  });
});

describe('danger 15: names of tables', () => {
  test('only names of ours are told as ours', () => {
    expect(parseFenceName(fenceName('m-1', 'source'))).toEqual({ id: 'm-1', side: 'source' });
    expect(parseFenceName('phaul-m-1')).toBeNull();
    expect(() => fenceName('x; flush ruleset', 'source')).toThrow(TypeError);
    const table = (family: string, name: string) => ({ table: { family, name, handle: 1 } });
    const found = tablesAmong({
      nftables: [
        { metainfo: { version: '1.0.6' } },
        table('inet', 'phaul-m-1-source'),
        table('arp', 'phaul-m-1-source'),
        table('ip', 'phaul-m-1-source'),
        table('inet', 'filter'),
        table('inet', 'CRIU-0123456789abcdef-0123'),
        table('inet', 'CRIU-0123456789abcdef-01234'),
      ],
    });
    expect(found.map((each) => each.kind)).toEqual(['fence', 'fence', 'engine-lock']);
  });

  test('the lock table of a run has 21 characters of its id, and an id that is none is refused', async () => {
    expect(lockTableName('0123abcd-4567-89ab-cdef-0123456789ab')).toBe('CRIU-0123abcd-4567-89ab-cd');
    expect(isLockTableName('CRIU-*')).toBe(false);
    for (const id of ['', '*', 'a b', 'x\nflush ruleset', '../x']) {
      await expect(deleteLockTable(id)).rejects.toMatchObject({ code: 'bad-run-id' });
    }
  });

  test('ports and addresses stand in the script once', () => {
    const script = fenceScript('phaul-a-source', {
      addresses: [{ ip: '10.0.0.5' }, { ip: 'fd00::5' }],
      loopbackPorts: [80, 80, 70000, -1, 1.5],
      loopbackClosed: true,
    });
    expect(script.match(/elements = \{ 10\.0\.0\.5 \}/g)).toHaveLength(2);
    expect(script).toContain('elements = { fd00::5 }');
    expect(script).toContain('elements = { 80 }');
  });

  test('keys of listeners fill whole registers', () => {
    expect(listenerElement({ ip: '::', port: 443 })).toMatchObject({ set: 'held_ports', key: Uint8Array.of(1, 187) });
    expect(listenerElement({ ip: '10.0.0.5', port: 443 }).key).toEqual(Uint8Array.of(10, 0, 0, 5, 1, 187, 0, 0));
    expect(listenerElement({ ip: 'fd00::5', port: 443 })).toMatchObject({ set: 'held6', key: { length: 20 } });
  });
});

test('danger 17e: sysctls matter only to who needs them', () => {
  const same: NetworkSysctls = {
    'net/ipv4/ping_group_range': '0 2147483647',
    'net/ipv4/ip_unprivileged_port_start': '1024',
    'net/ipv4/ip_nonlocal_bind': '0',
    'net/core/somaxconn': '4096',
    'net/ipv6/bindv6only': '0',
    'net/ipv6/conf/all/disable_ipv6': '0',
    'net/netfilter/nf_conntrack_tcp_loose': null,
  };
  const none = { pingSockets: false, ipv6Sockets: false, listeners: false, tcpEstablished: false };
  const other: NetworkSysctls = {
    ...same,
    'net/ipv4/ping_group_range': '1 0',
    'net/core/somaxconn': '128',
    'net/ipv6/conf/all/disable_ipv6': '1',
    'net/netfilter/nf_conntrack_tcp_loose': '0',
  };
  const codes = (needs: Partial<typeof none>, there = other) =>
    compareSysctls(same, there, { ...none, ...needs }, 'b').map((each) => `${each.weight} ${each.what.split(' ')[0]}`);
  expect(codes({})).toEqual([]);
  expect(codes({ pingSockets: true })).toEqual(['blocker net.ipv4.ping_group_range']);
  expect(codes({ ipv6Sockets: true })).toEqual(['blocker net.ipv6.conf.all.disable_ipv6']);
  expect(codes({ listeners: true, tcpEstablished: true })).toEqual([
    'warning net.netfilter.nf_conntrack_tcp_loose',
    'warning net.core.somaxconn',
  ]);
  expect(codes({ pingSockets: true, ipv6Sockets: true, listeners: true, tcpEstablished: true }, same)).toEqual([]);
});
