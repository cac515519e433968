/**
 * What an operator can get wrong, through the real command line: each is refused with one exit code, says what, where,
 * what became of the process and what to do, and leaves the process and its clients alone.
 */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issueCertificates } from '../../src/agent/control/certificates.js';
import { privatePrefix } from '../../src/criu/engine.js';
import type { Finished } from '../../src/lab/host-process.js';
import { findCriu } from '../targets/in-place.js';
import { BadInputLab } from './bad-input-lab.js';

const reason =
  process.getuid?.() !== 0
    ? 'needs root for isolated hosts'
    : findCriu() === null
      ? 'no criu: see ./phaul engine'
      : null;

interface Case {
  readonly name: string;
  readonly code: string;
  readonly exit: number;
  /** In the message. */
  readonly says: RegExp;
  /** `was not touched`, unless preparations had begun. */
  readonly process?: string;
  readonly attempt: (bad: BadInputLab) => Promise<Finished>;
}

const cases: readonly Case[] = [
  {
    name: 'a pid that does not exist',
    ...{ code: 'pid-not-found', exit: 3, says: /no process 999999/ },
    attempt: (bad) => bad.migrate(999_999, 'b'),
  },
  { name: 'pid 1', code: 'pid-is-init', exit: 3, says: /init/, attempt: (bad) => bad.migrate(1, 'b') },
  {
    name: 'a zombie',
    ...{ code: 'pid-is-zombie', exit: 3, says: /has ended already/ },
    attempt: async (bad) => {
      const parent = await bad.a.startAtHighPid(['sh', '-c', 'sleep 0 & exec sleep 600'], { pid: 31_000 });
      const child = async () => readFileSync(bad.a.outside(`/proc/${parent}/task/${parent}/children`), 'utf8').trim();
      const isZombie = async () => readFileSync(bad.a.outside(`/proc/${await child()}/stat`), 'utf8').includes(') Z ');
      await expect.poll(isZombie).toBe(true);
      const finished = await bad.migrate(Number(await child()), 'b');
      await bad.a.check(['kill', '-9', String(parent)]);
      return finished;
    },
  },
  {
    name: 'a thread',
    ...{ code: 'pid-is-thread', exit: 3, says: /thread of process 30000/ },
    attempt: async (bad) => {
      const tasks = await bad.a.check(['ls', `/proc/${bad.pid}/task`]);
      const thread = tasks
        .trim()
        .split('\n')
        .map(Number)
        .find((task) => task !== bad.pid);
      if (thread === undefined) throw new Error('the server has one thread only');
      return await bad.migrate(thread, 'b');
    },
  },
  {
    name: "the agent's own pid",
    ...{ code: 'pid-is-agent', exit: 3, says: /agent of phaul/ },
    attempt: async (bad) => bad.migrate(await bad.agentA.process.pid(), 'b'),
  },
  {
    name: 'a process that migrates already',
    ...{ code: 'tree-busy', exit: 3, says: /on its way already, by migration bad-first/ },
    attempt: async (bad) => {
      const hook = bad.hook('slow', 'case $PHAUL_PHASE in prepare) exec sleep 20;; esac');
      const first = bad.a.spawn(
        bad.a.phaulArgv([
          'migrate',
          String(bad.pid),
          'b',
          '--id',
          'bad-first',
          '--move-address',
          bad.address,
          '--hook',
          hook,
        ]),
      );
      const phase = async () => (await bad.a.phaul(['status', 'bad-first', '--json'])).stdout;
      await expect.poll(phase, { timeout: 15_000 }).toContain('preparing');
      const second = await bad.migrate(bad.pid, 'b');
      expect((await bad.a.phaul(['cancel', 'bad-first'])).exitCode).toBe(0);
      expect(await first.finished).toMatchObject({ exitCode: 4 });
      return second;
    },
  },
  {
    name: 'a host that does not exist',
    ...{ code: 'host-unreachable', exit: 6, says: /10\.77\.0\.99/ },
    attempt: (bad) => bad.migrate(bad.pid, '10.77.0.99'),
  },
  {
    name: 'a host without an agent',
    ...{ code: 'host-unreachable', exit: 6, says: /ECONNREFUSED|refused/i },
    attempt: (bad) => bad.migrate(bad.pid, 'c'),
  },
  {
    name: 'a destination that is none',
    ...{ code: 'destination-wrong', exit: 2, says: /no destination/ },
    attempt: (bad) => bad.migrate(bad.pid, 'c:99999'),
  },
  {
    name: 'a certificate of another authority',
    ...{ code: 'certificate-refused', exit: 3, says: /certificate/ },
    attempt: async (bad) => {
      const other = await issueCertificates(
        join(bad.lab.folder, 'other'),
        [{ name: 'c', alternatives: [bad.c.ip4] }],
        null,
      );
      const [own] = other.hosts;
      if (own === undefined) throw new Error('no certificate was issued');
      await bad.startC({
        config: (before) => ({ ...before, tls: { ca: other.ca, certificate: own.certificate, key: own.key } }),
      });
      return await bad.migrate(bad.pid, 'c');
    },
  },
  {
    name: 'a destination that does not take from this host',
    ...{ code: 'peer-not-allowed', exit: 3, says: /c does not take process trees from a/ },
    attempt: async (bad) => {
      await bad.startC({
        config: (before) => ({ ...before, peers: before.peers.filter((peer) => peer.name !== 'a') }),
      });
      return await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
    },
  },
  {
    name: 'an address that the destination does not take',
    ...{ code: 'address-not-allowed', exit: 3, says: /c does not take 10\.77\.0\.200 from a/ },
    attempt: async (bad) => {
      await bad.startC({
        config: (before) => ({
          ...before,
          peers: before.peers.map((peer) => ({ ...peer, mayMove: ['10.77.0.220/32'] })),
        }),
      });
      return await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
    },
  },
  {
    name: 'a destination without an engine',
    ...{ code: 'no-engine', exit: 3, says: /c has no CRIU that works/ },
    attempt: async (bad) => {
      await bad.startC({ env: { PHAUL_CRIU: '/nonexistent' } });
      return await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
    },
  },
  {
    name: 'a destination with an older engine',
    ...{ code: 'engine-older', exit: 3, says: /c has CRIU 4\.2, the source has 4\./ },
    attempt: async (bad) => {
      const wrapper = join(bad.lab.folder, 'older-criu');
      writeFileSync(wrapper, olderCriu);
      chmodSync(wrapper, 0o755);
      await bad.startC({ env: { PHAUL_CRIU: wrapper } });
      return await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
    },
  },
  {
    name: 'a disk that is too small',
    ...{ code: 'disk-full', exit: 3, says: /images need/ },
    attempt: async (bad) => {
      await bad.c.check(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', '/srv']);
      await bad.startC({ env: { PHAUL_STATE_DIR: '/srv/state' } });
      const finished = await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
      await bad.stopC();
      await bad.c.check(['umount', '/srv']);
      return finished;
    },
  },
  {
    name: 'a disk that fills up after the checks',
    ...{ code: 'destination-full', exit: 1, says: /full|no space|room/i, process: 'runs on a' },
    attempt: async (bad) => {
      const fill = bad.hook(
        'fill',
        'case $PHAUL_PHASE in prepare) [ -d /srv/state ] && cat /dev/zero >/srv/rest; true;; esac',
      );
      await bad.c.check(['mount', '-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', '/srv']);
      await bad.startC({ env: { PHAUL_STATE_DIR: '/srv/state' } });
      const finished = await bad.migrate(bad.pid, 'c', ['--move-address', bad.address, '--hook', fill]);
      expect(await bad.leftBehind()).toEqual([]);
      await bad.stopC();
      await bad.c.check(['umount', '/srv']);
      return finished;
    },
  },
  {
    name: 'a pid that is taken on the destination',
    ...{ code: 'pid-taken', exit: 3, says: /30000.*taken here: sleep/ },
    attempt: async (bad) => {
      await bad.startC();
      const taker = await bad.c.startAtHighPid(['sleep', '600'], { pid: bad.pid });
      const finished = await bad.migrate(bad.pid, 'c', ['--move-address', bad.address]);
      await bad.c.check(['kill', '-9', String(taker)]);
      return finished;
    },
  },
  {
    name: 'the same host, by its name',
    ...{ code: 'same-host', exit: 3, says: /same host/ },
    attempt: (bad) => bad.migrate(bad.pid, 'a'),
  },
  {
    name: 'the same host, by its socket',
    ...{ code: 'same-host', exit: 3, says: /same host/ },
    attempt: (bad) => bad.migrate(bad.pid, 'unix:/run/phaul/agent.sock'),
  },
];

/** A CRIU that says it were 4.2.0: passes everything on to the real one, and changes the answer to VERSION. */
const olderCriu = `#!/usr/bin/env python3
import os, select, socket, subprocess, sys
inherited = [int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) > 3]
ours = socket.socket(fileno=3)
near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
real = os.dup2(far.fileno(), 200)
os.set_inheritable(real, True)
criu = subprocess.Popen(['${join(privatePrefix, 'bin', 'criu')}', 'swrk', '200'], close_fds=False)
far.close(); os.close(200)
while True:
    for ready in select.select([ours, near], [], [])[0]:
        other = near if ready is ours else ours
        packet = ready.recv(1 << 20)
        if not packet: near.close(); ours.close(); sys.exit(criu.wait())
        # VERSION { major 4, minor 2, sublevel n }: sublevel is field 4, the last.
        if ready is near and packet[:2] == b'\\x08\\x0a': packet = packet.replace(packet[packet.index(b'\\x08\\x04\\x10\\x02') + 4:][:2], b'\\x20\\x00')
        other.send(packet)
`;

describe('what an operator can get wrong', () => {
  let bad: BadInputLab;
  let born = '';
  beforeAll(async () => {
    if (reason !== null) return;
    bad = await BadInputLab.create();
    born = await bornAt();
  });
  afterAll(async () => {
    await bad?.[Symbol.asyncDispose]();
  });

  /** Start time and cgroup of the server: the same process, where it was. */
  async function bornAt(): Promise<string> {
    const stat = readFileSync(bad.a.outside(`/proc/${bad.pid}/stat`), 'utf8')
      .split(') ')[1]
      ?.split(' ')[19];
    return `${stat} ${readFileSync(bad.a.outside(`/proc/${bad.pid}/cgroup`), 'utf8')}`;
  }

  test.each(cases)('$name: $code', { timeout: 90_000 }, async ({ code, exit, says, process: fate, attempt }) => {
    const finished = await attempt(bad);
    const { stderr } = finished;
    expect(finished.exitCode, stderr).toBe(exit);
    expect(stderr).toContain(`(${code})`);
    expect(stderr).toMatch(says);
    expect(stderr).toMatch(/^ {2}remedy: {2}\S/m);
    if (exit !== 2) expect(stderr).toMatch(/^ {2}phase: .* on [abc]$/m);
    if (exit !== 2) expect(stderr).toContain(`process: ${fate ?? 'was not touched'}`);
    expect(await bornAt()).toBe(born);
    expect(await bad.leftBehind()).toEqual([]);
  });

  test('the clients of the process have noticed nothing of all that', async (context) => {
    context.skip(reason !== null, reason ?? '');
    const clients = await bad.clients.finish();
    expect(clients).toMatchObject({ lost: 0, errors: 0, corrupt: 0, badPages: 0, newConnections: { failed: 0 } });
  });
});
