import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/native/addon.js';

interface Seen {
  catcher: {
    shut: string[];
    open: { packets: string[]; lost: number };
    empty: string[];
    flood: { kept: number; lost: number };
    long: string[];
    expected: { small: string[]; great: string[] };
    failures: Record<string, string | null>;
  };
  sets: { added: string[][]; deleted: string[][]; microseconds: number; failures: Record<string, string | null> };
  tun: { name: string; text: string; from: string; failure: string | null };
}

/** All of it needs a network namespace and CAP_NET_ADMIN. */
function whyNot(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  if (spawnSync('unshare', ['-n', 'nft', 'list', 'tables']).status !== 0) return 'no network namespace or no nft here';
  return existsSync('/dev/net/tun') ? null : 'no /dev/net/tun here';
}

const reason = whyNot();

describe('in a network namespace of its own', () => {
  let seen: Seen;

  beforeAll(() => {
    if (reason !== null) return;
    const probe = join(packageRoot, 'test', 'integration', 'native-network-probe.mjs');
    const child = spawnSync('unshare', ['-n', process.execPath, probe], { encoding: 'utf8', timeout: 30_000 });
    if (child.status !== 0) throw new Error(`the probe failed: ${child.stderr}`);
    seen = JSON.parse(child.stdout) as Seen;
  });

  test('danger 38c: the packet catcher keeps nothing before it is opened and after it is shut', (context) => {
    if (reason !== null) return context.skip(reason);
    expect([seen.catcher.shut, seen.catcher.empty]).toEqual([[], []]);
  });

  test('danger 52: it keeps IPv4 and IPv6 packets to its addresses only, up to 64 KiB, without Ethernet padding', (context) => {
    if (reason !== null) return context.skip(reason);
    const { small, great } = seen.catcher.expected;
    expect(seen.catcher.open.packets).toEqual([...small, ...great]);
    expect(seen.catcher.open.lost).toBe(0);
    expect(seen.catcher.long).toEqual(small);
  });

  test('it counts what found no room', (context) => {
    if (reason !== null) return context.skip(reason);
    const { kept, lost } = seen.catcher.flood;
    expect(kept).toBeGreaterThan(0);
    expect(lost).toBeGreaterThan(0);
    expect(kept + lost).toBe(100);
  });

  test('an element enters and leaves the sets of an inet and an arp table', (context) => {
    if (reason !== null) return context.skip(reason);
    expect(seen.sets.added).toEqual([['10.99.0.5'], ['fd00::5'], ['10.99.0.5']]);
    expect(seen.sets.deleted).toEqual([[], [], []]);
  });

  test('a packet written to the TUN arrives as from a link', (context) => {
    if (reason !== null) return context.skip(reason);
    expect(seen.tun).toMatchObject({ name: 'phaultest0', text: 'through the tunnel', from: '10.97.0.2' });
  });

  test('failures name errno and system call', (context) => {
    if (reason !== null) return context.skip(reason);
    expect(seen.catcher.failures).toEqual({
      closed: 'EBADF recv',
      length: 'undefined undefined',
      noInterface: 'ENODEV bind',
      noInterfaceFrame: 'ENXIO sendto',
    });
    expect(seen.sets.failures).toEqual({
      again: 'ENOENT nf_tables',
      noTable: 'ENOENT nf_tables',
      wrongLength: 'EINVAL nf_tables',
      tooLong: 'EINVAL nf_tables',
    });
    expect(seen.tun.failure).toBe('ENAMETOOLONG ioctl');
  });
});
