/** What /proc, ss and peers say, as text. */
import { describe, expect, test } from 'vitest';
import { parseFdinfo } from '../../src/host/descriptors.js';
import { isShared, isWritable, parseMaps } from '../../src/host/mappings.js';
import { isOlder } from '../../src/preflight/destination-checks.js';
import { deviceNumbers, unsupportedKind } from '../../src/preflight/kind-checks.js';
import { serviceOf } from '../../src/preflight/supervisor.js';
import { parseTreeFacts } from '../../src/preflight/tree-facts.js';
import { parseUnixSockets } from '../../src/preflight/unix-sockets.js';

test('fdinfo: flags are octal, every kind of lock is seen, the number of a pty master too', () => {
  const locks = [
    'lock:\t1: POSIX  ADVISORY  WRITE 16699 fe:00:2146408 0 EOF',
    'lock:\t2: LEASE  ACTIVE    READ 16699 fe:00:2146410 0 EOF',
    'lock:\t3: OFDLCK ADVISORY  READ -1 fe:00:1 0 9',
  ];
  const info = parseFdinfo(`pos:\t10\nflags:\t02100002\nmnt_id:\t27\nino:\t2146408\n${locks.join('\n')}\n`);
  expect(info).toMatchObject({ flags: 0o2100002, mountId: 27, inode: 2146408, ttyIndex: null });
  expect(info.locks.map((lock) => `${lock.kind} ${lock.mode}`)).toEqual(['POSIX WRITE', 'LEASE READ', 'OFDLCK READ']);
  expect(parseFdinfo('flags:\t02\nmnt_id:\t9\nino:\t2\ntty-index:\t0\n').ttyIndex).toBe(0);
});

test('maps: paths with blanks and newlines, shared and writable', () => {
  const [code, shared, heap] = parseMaps(
    [
      '561b2e3cd000-561b2e3ce000 r-xp 00000000 fe:00 26723                      /opt/a b\\012c',
      '7fa289826000-7fa289828000 rw-s 00000000 00:01 1428                       /memfd:mm (deleted)',
      '561b4d88b000-561b4da3b000 rw-p 00000000 00:00 0                          [heap]',
      'nonsense',
    ].join('\n'),
  );
  expect(code).toMatchObject({
    path: '/opt/a b\nc',
    device: 'fe:00',
    inode: '26723',
    range: '561b2e3cd000-561b2e3ce000',
  });
  expect([code, shared].map((each) => each && [isShared(each), isWritable(each)])).toEqual([
    [false, false],
    [true, true],
  ]);
  expect(heap?.inode).toBe('0');
});

test('ss: names with blanks, listeners, peers', () => {
  const text = [
    'u_str ESTAB  0      0              * 218614 * 218615',
    'u_str ESTAB  0      0      /tmp/_s q 218615 * 218614',
    'u_str LISTEN 0      128    /tmp/_s q 218613 * 0     ',
    'u_dgr ESTAB  0      0              * 31 * 7',
    'u_seq ESTAB  0      0      @abstract 41 * 42',
  ].join('\n');
  const sockets = parseUnixSockets(text);
  expect(sockets.get(218614)).toEqual({ inode: 218614, type: 'stream', listening: false, name: null, peer: 218615 });
  expect(sockets.get(218613)).toMatchObject({ listening: true, name: '/tmp/_s q', peer: 0 });
  expect(sockets.get(31)).toMatchObject({ type: 'datagram', peer: 7 });
  expect(sockets.get(41)).toMatchObject({ type: 'seqpacket', name: '@abstract' });
});

test.each([
  ['0::/system.slice/nginx.service', 'nginx.service'],
  ['9:name=systemd:/system.slice/nginx.service\n0::/', 'nginx.service'],
  ['0::/system.slice/docker.service/payload', 'docker.service'],
  // Started by hand from a desktop or a login.
  ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-4.scope', null],
  ['0::/user.slice/user-1000.slice/session-3.scope', null],
  ['4:memory:/looks/like.service', null],
  ['0::/', null],
])('danger 9: the unit of %j is %j', (cgroups, unit) => {
  expect(serviceOf(cgroups)).toBe(unit);
});

describe('kinds of descriptors', () => {
  const stat = null;
  test.each(['anon_inode:[eventfd]', 'anon_inode:inotify', 'anon_inode:[pidfd]', 'pipe:[1]', 'socket:[2]', 'net:[3]'])(
    '%s can move',
    (target) => expect(unsupportedKind({ target, stat })).toBeNull(),
  );
  test.each(['anon_inode:[io_uring]', 'anon_inode:[userfaultfd]', 'anon_inode:bpf-map', '/secretmem (deleted)', 'odd'])(
    '%s cannot',
    (target) => expect(unsupportedKind({ target, stat })).not.toBeNull(),
  );
  test('device numbers as the kernel packs them', () => {
    expect(deviceNumbers(0x0103n)).toEqual([1, 3]);
    // 259:300 (new_encode_dev, kdev_t.h): the low byte of the minor stands apart from the rest.
    expect(deviceNumbers(0x0011_032cn)).toEqual([259, 300]);
  });
});

test('kernel versions are compared as numbers', () => {
  expect(isOlder('6.9.0', '6.10.1-amd64')).toBe(true);
  expect(isOlder('6.10.0', '6.9.9')).toBe(false);
  expect(isOlder('6.1.0-18-amd64', '6.1.99')).toBe(false);
});

describe('danger 15: facts of a peer', () => {
  const facts = {
    architecture: 'x64',
    kernel: '6.1',
    bootId: '11111111-1111-4111-8111-111111111111',
    pidNamespace: 1,
    tasks: [],
    memory: { resident: 0, private: 0 },
    files: [],
    ghosts: [],
    linkRemaps: [],
    locks: [],
    unixPaths: [],
    unixPeers: [],
    terminals: [],
    nonces: [],
  };
  const content = '0'.repeat(32);
  test('are taken when they are what they should be', () => {
    expect(parseTreeFacts(JSON.stringify(facts)).kernel).toBe('6.1');
  });
  test.each([
    ['no JSON', '{'],
    ['a relative path', JSON.stringify({ ...facts, linkRemaps: ['../etc/shadow'] })],
    ['a path with NUL', JSON.stringify({ ...facts, unixPeers: ['/a\0b'] })],
    ['a nonce that leads elsewhere', JSON.stringify({ ...facts, nonces: [{ folder: '/a', name: '../b', content }] })],
    ['a nonce of another name', JSON.stringify({ ...facts, nonces: [{ folder: '/etc', name: 'shadow', content }] })],
    [
      'a pid that is none',
      JSON.stringify({ ...facts, tasks: [{ pid: 0, comm: '', processGroup: 0, session: 0, threads: [] }] }),
    ],
  ])('are refused: %s', (_, json) => {
    expect(() => parseTreeFacts(json)).toThrow(expect.objectContaining({ code: 'bad-tree-facts' }));
  });
});
