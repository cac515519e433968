import { describe, expect, it } from 'vitest';
import { parseConfig, parseHostPort } from '../../src/agent/config.js';
import { parseAddressRange } from '../../src/agent/control/address-range.js';
import { callerOf } from '../../src/agent/control/caller.js';
import { parseDestination } from '../../src/agent/control/dial.js';
import {
  parseDelivered,
  parseLandingRequest,
  parseMigrationId,
  parseOrder,
} from '../../src/agent/control/order-schema.js';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { defaultOrder } from '../../src/migration/order.js';

const tls = { ca: '/c', certificate: '/h', key: '/k' };

function parse(value: unknown, environment: NodeJS.ProcessEnv = {}) {
  return parseConfig(JSON.stringify(value), 'agent.json', environment);
}

describe('the configuration', () => {
  it('danger 16: by default nothing listens, nobody may send, no address may come', () => {
    const config = parse({});
    expect(config).toMatchObject({
      listen: null,
      tls: null,
      peers: [],
      operators: [],
      stateDirectory: '/var/lib/phaul',
    });
    expect(parse({ peers: [{ name: 'b' }] }).peers[0]?.mayMove).toEqual([]);
  });

  it('danger 16: does not listen without TLS', () => {
    expect(() => parse({ listen: '10.0.0.1' })).toThrow(/listen needs tls/);
    expect(parse({ listen: '10.0.0.1', tls }).listen).toEqual({ host: '10.0.0.1', port: 7437 });
    expect(parse({ listen: '[::1]:99', tls }).listen).toEqual({ host: '::1', port: 99 });
  });

  it.each([
    { peer: [] },
    { listen: 'somewhere:1', tls },
    { peers: [{ name: '../b' }] },
    { peers: [{ name: 'b', mayMove: ['10.0.0.0/33'] }] },
    { peers: [{ name: 'b', mayMove: ['all'] }] },
    { peers: [{ name: 'b' }, { name: 'b' }] },
    { tls: { ...tls, key: 'relative' } },
    [],
  ])('refuses %j', (value) => {
    expect(() => parse(value)).toThrow(PhaulError);
  });

  it('matches addresses by range and family', () => {
    const range = parseAddressRange('10.0.0.0/24');
    expect(range?.contains('10.0.0.255')).toBe(true);
    expect(range?.contains('10.0.1.0')).toBe(false);
    expect(range?.contains('::ffff:10.0.1.1')).toBe(false);
    expect(parseAddressRange('10.0.0.1')?.contains('10.0.0.2')).toBe(false);
    expect(parseAddressRange('fd00::/64')?.contains('fd00::1:2:3:4')).toBe(true);
    for (const wrong of ['', '/24', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/1/2', 'fe80::1%eth0', '10.0.0.0/x']) {
      expect(parseAddressRange(wrong), wrong).toBeNull();
    }
  });
});

describe('destinations', () => {
  it.each([
    ['b', { way: 'tls', host: 'b', port: 7437 }],
    ['b.example:1', { way: 'tls', host: 'b.example', port: 1 }],
    ['fd00::2', { way: 'tls', host: 'fd00::2', port: 7437 }],
    ['[fd00::2]:8', { way: 'tls', host: 'fd00::2', port: 8 }],
    ['root@b', { way: 'ssh', user: 'root', host: 'b', port: 22 }],
    ['me@10.0.0.2:2222', { way: 'ssh', user: 'me', host: '10.0.0.2', port: 2222 }],
    ['unix:/run/x', { way: 'unix', path: '/run/x' }],
  ])('%s', (text, expected) => {
    expect(parseDestination(text)).toEqual(expected);
  });

  it.each([
    '',
    'b:',
    'b:0',
    'b:70000',
    '-oProxyCommand=x',
    'root@-oProxyCommand=x',
    '-x@b',
    '@b',
    'a b',
    'a@b@',
    'x/y',
  ])('danger 15: refuses %j', (text) => {
    expect(() => parseDestination(text)).toThrow(PhaulError);
  });

  it('takes only whole host and port pairs', () => {
    expect(parseHostPort('[1.2.3.4]:5')).toBeNull();
    expect(parseHostPort('h', 9)).toEqual({ host: 'h', port: 9 });
  });
});

describe('documents of a peer', () => {
  const order = { ...defaultOrder, id: 'm1', pid: 7 };
  const request = {
    order,
    sourceHost: 'a',
    tree: { bootId: '0'.repeat(36), pidNamespace: 1, tasks: [{ pid: 7, startTime: 1 }] },
    memoryBytes: 1,
    tcpEstablished: false,
    treeFacts: '{}',
  };

  it('pass when they are whole', () => {
    expect(parseOrder(JSON.stringify(order))).toEqual(order);
    expect(parseLandingRequest(JSON.stringify(request))).toEqual(request);
    const address = { family: 4, ip: '10.0.0.5', prefixLength: 24, device: 'eth0' } as const;
    expect(parseOrder(JSON.stringify({ ...order, addresses: [address] })).addresses).toEqual([address]);
  });

  it.each([
    ['id as a path', { id: '../../etc' }],
    ['id as an option', { id: '-rf' }],
    ['id too long', { id: 'a'.repeat(33) }],
    ['pid 0', { pid: 0 }],
    ['pid as text', { pid: '1; reboot' }],
    [
      'address as nft text',
      { addresses: [{ family: 4, ip: '10.0.0.1 } delete table inet x', prefixLength: null, device: null }] },
    ],
    ['address of the other family', { addresses: [{ family: 6, ip: '10.0.0.1', prefixLength: null, device: null }] }],
    ['loopback address', { addresses: [{ family: 4, ip: '127.0.0.1', prefixLength: null, device: null }] }],
    ['device as an option', { addresses: [{ family: 4, ip: '10.0.0.1', prefixLength: null, device: '-x' }] }],
    ['device as a path', { addresses: [{ family: 4, ip: '10.0.0.1', prefixLength: null, device: '../x' }] }],
    ['relative output file', { stdio: { kind: 'file', path: 'x' } }],
    ['NUL in an engine value', { engine: { ...order.engine, external: ['mnt[x]:\0y'] } }],
    ['line feed in an engine value', { engine: { ...order.engine, lsmProfile: 'apparmor:x\ny' } }],
    ['missing field', { engine: undefined }],
  ])('danger 15: %s is refused', (_name, change) => {
    expect(() => parseOrder(JSON.stringify({ ...order, ...change }))).toThrow(PhaulError);
    expect(() => parseLandingRequest(JSON.stringify({ ...request, order: { ...order, ...change } }))).toThrow(
      PhaulError,
    );
  });

  it.each(['../core.img', 'core.img\n', 'CORE.img', '.img', 'a/b.img', 'x'.repeat(300)])(
    'danger 15: image name %j is refused',
    (name) => {
      expect(() => parseDelivered([{ name, bytes: 1, hash: '0'.repeat(32) }])).toThrow(PhaulError);
    },
  );

  it('danger 15: ids and JSON', () => {
    expect(parseMigrationId('m2-x')).toBe('m2-x');
    for (const wrong of ['', 'a/b', 'A', 'a\n', '-a']) expect(() => parseMigrationId(wrong)).toThrow(PhaulError);
    expect(() => parseOrder('{')).toThrow(PhaulError);
  });
});

describe('callers', () => {
  const named = (subjectaltname: string) => callerOf({ subjectaltname } as never);

  it('danger 16: come from exactly one marker in the certificate', () => {
    expect(named('DNS:a, IP Address:10.0.0.1, URI:phaul://host/a')).toEqual({ kind: 'host', name: 'a' });
    expect(named('URI:phaul://operator/alice')).toEqual({ kind: 'operator', name: 'alice' });
    for (const wrong of [
      '',
      'DNS:a',
      'URI:phaul://host/a, URI:phaul://operator/a',
      'URI:phaul://host/',
      'URI:phaul://host/a/b',
      'URI:phaul://root/a',
      'DNS:"x, URI:phaul://host/a"',
      'xURI:phaul://host/a',
    ]) {
      expect(() => named(wrong), wrong).toThrow(PhaulError);
    }
  });
});
