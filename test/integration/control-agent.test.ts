import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { dial } from '../../src/agent/control/dial.js';
import { RemoteDestination } from '../../src/agent/control/remote-destination.js';
import { rpc } from '../../src/agent/control/rpc-service.js';
import { readTlsIdentity } from '../../src/agent/control/tls-identity.js';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { Lifetime } from '../../src/migration/lifetime.js';
import { PageDoor } from '../../src/pages/door.js';
import { PageSender } from '../../src/pages/sender.js';
import {
  agent,
  certificates,
  codeOf,
  config,
  duties,
  Folder,
  landingRequest,
  Pages,
  tlsOf,
} from './control-support.js';

const loopback = '127.0.0.1';
let token: Uint8Array = Buffer.alloc(32);

async function twoHosts(folder: Folder, changes: { peers?: unknown; operators?: string[] } = {}) {
  await certificates(folder.path, `a,${loopback}`, `b,${loopback}`, 'c');
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const peers = changes.peers ?? [{ name: 'a', mayMove: ['10.0.0.0/24'] }];
  return {
    to: `${loopback}:${port}`,
    a: config(folder.path, { name: 'a', certificates: folder.path }),
    b: config(folder.path, {
      name: 'b',
      certificates: folder.path,
      listen: `${loopback}:${port}`,
      peers,
      operators: changes.operators ?? [],
    }),
  };
}

describe('agents over mutual TLS', () => {
  it('carry a whole landing, with pages on the same port', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder);
    const there = duties('b');
    const pages = new Pages();
    await using _server = await agent(b, there, pages);
    await using link = await dial(to, a);
    using life = new Lifetime();
    let token = '';
    const destination = new RemoteDestination(link, async (connection, opening) => {
      token = Buffer.from(opening.token).toString('hex');
      const echoed = new Promise<Buffer>((resolve) => connection.once('data', resolve));
      connection.write('PHAULPG1 and more');
      expect((await echoed).toString()).toBe('PHAULPG1 and more');
      return {
        bytesSent: 0,
        write: async () => undefined,
        end: async (name) => ({ name, bytes: 0, hash: '' }),
        flush: async () => undefined,
        [Symbol.asyncDispose]: async () => void connection.destroy(),
      };
    });
    expect(destination.name).toBe('b');
    const address = { family: 4 as const, ip: '10.0.0.100', prefixLength: 24, device: null };
    const request = landingRequest('m1', { addresses: [address] });
    expect(await destination.check(request, life)).toEqual([]);
    await using landing = await destination.prepare(request, life);
    expect(token).toBe('07'.repeat(32));
    await landing.arm(life);
    const image = { name: 'core-1.img', bytes: 2 ** 40, hash: 'a'.repeat(32) };
    expect(await landing.restoreAndHold([image], life)).toEqual({ restoreMs: 12.5 });
    const packets = [Buffer.from([1, 2]), Buffer.from([3])];
    expect(await landing.takeOver({ packets, lost: 0 })).toEqual({
      pid: 42,
      timeline: [{ step: 'unfenced', at: 1.5 }],
      replayedPackets: 2,
      remarks: ['r'],
      imagesFolder: null,
    });
    await landing[Symbol.asyncDispose]();
    // Behind COMMIT the disposal must never abort.
    expect(there.calls).toEqual(['facts', 'check', 'prepare', 'arm', 'restoreAndHold', 'takeOver']);
  });

  it('danger 16: only listed peers, with listed addresses, and never with an operator certificate', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder, { operators: ['alice'] });
    const there = duties('b');
    await using server = await agent(b, there);
    const asOperator = config(folder.path, { name: 'a', certificates: folder.path, certificate: 'operator-alice' });
    const asC = config(folder.path, { name: 'c', certificates: folder.path });

    expect(await codeOf(dial(to, asC))).toBe('peer-not-allowed');
    {
      await using host = await dial(to, a);
      expect(await codeOf(host.rpc.call(rpc.status, { id: '' }))).toBe('role-not-allowed');
      expect(await codeOf(host.rpc.call(rpc.migrate as never, { order: '{}', destination: 'x' } as never))).not.toBe(
        'no failure',
      );
      const foreign = { family: 4 as const, ip: '10.9.9.9', prefixLength: null, device: null };
      const request = JSON.stringify(landingRequest('m1', { addresses: [foreign] }));
      expect(await codeOf(host.rpc.call(rpc.check, { request }))).toBe('address-not-allowed');
      expect(await codeOf(host.rpc.call(rpc.prepare, { request }))).toBe('address-not-allowed');
    }
    {
      await using operator = await dial(to, asOperator);
      expect(await codeOf(operator.rpc.call(rpc.status, { id: '' }))).toBe('no failure');
      const request = JSON.stringify(landingRequest('m1'));
      expect(await codeOf(operator.rpc.call(rpc.check, { request }))).toBe('role-not-allowed');
      expect(await codeOf(operator.rpc.call(rpc.takeOver, { id: 'm1' }))).toBe('role-not-allowed');
      expect(await codeOf(operator.rpc.call(rpc.outcome, { id: 'm1', role: 'source' }))).toBe('role-not-allowed');
    }
    expect(there.calls.filter((call) => !['facts', 'status'].includes(call))).toEqual([]);
    expect(server.tcpPort).not.toBeNull();
  });

  it('danger 16: nobody is allowed by default', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder, { peers: [] });
    await using _server = await agent(b, duties('b'));
    expect(await codeOf(dial(to, a))).toBe('peer-not-allowed');
    const asOperator = config(folder.path, { name: 'a', certificates: folder.path, certificate: 'operator-alice' });
    expect(await codeOf(dial(to, asOperator))).toBe('operator-not-allowed');
  });

  it('danger 16: a migration belongs to the host that has prepared it', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder, { peers: [{ name: 'a' }, { name: 'c' }] });
    const there = duties('b', { peer: { ownerOf: async (id) => (id === 'old' ? 'host:a' : null) } });
    await using _server = await agent(b, there);
    await using mine = await dial(to, a);
    await using other = await dial(to, config(folder.path, { name: 'c', certificates: folder.path }));
    await mine.rpc.call(rpc.prepare, { request: JSON.stringify(landingRequest('m1')) });
    for (const id of ['m1', 'old']) {
      expect(await codeOf(other.rpc.call(rpc.takeOver, { id }))).toBe('not-your-migration');
      expect(await codeOf(other.rpc.call(rpc.abort, { id }))).toBe('not-your-migration');
    }
    expect(await codeOf(mine.rpc.call(rpc.abort, { id: 'old' }))).toBe('no failure');
    expect(there.calls).not.toContain('takeOver');
  });

  it('danger 16: a certificate of another CA, none, or another name than the dialled one is refused', async () => {
    using folder = new Folder();
    using elsewhere = new Folder();
    const { a, b, to } = await twoHosts(folder);
    await certificates(elsewhere.path, `a,${loopback}`);
    const there = duties('b');
    await using _server = await agent(b, there);
    const stranger = config(folder.path, { name: 'a', certificates: elsewhere.path });
    expect(await codeOf(dial(to, stranger))).toBe('certificate-refused');
    // Trusts the server, but shows a certificate of its own making.
    const half = { ...stranger, tls: { ...tlsOf(stranger), ca: tlsOf(a).ca } };
    expect(await codeOf(dial(to, half))).toBe('certificate-refused');
    expect(await codeOf(dial(to.replace(loopback, 'localhost'), a))).toBe('certificate-refused');
    expect(await codeOf(dial(to, { ...a, tls: null }))).toBe('no-certificate');
    expect(there.calls).toEqual([]);
  });

  it('danger 17: who does not say what he is goes after the time limit, and there are only so many of them', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder);
    await using _server = await agent(b, duties('b'), new Pages(), { patienceMs: 600, maxStrangers: 4 });
    const port = Number(to.split(':')[1]);
    const began = Date.now();
    const silentOnes = await Promise.all(
      Array.from({ length: 6 }, () => {
        const socket = connect(port, loopback);
        socket.on('error', () => undefined);
        return new Promise<number>((resolve) => socket.on('close', () => resolve(Date.now() - began)));
      }),
    );
    silentOnes.sort((x, y) => x - y);
    expect(silentOnes[1]).toBeLessThan(400);
    expect(silentOnes[2]).toBeGreaterThan(500);
    expect(silentOnes[5]).toBeLessThan(1500);
    // After TLS, too.
    const { context } = readTlsIdentity(tlsOf(a));
    const mute = connectTls({ port, host: loopback, secureContext: context });
    mute.write('PRI');
    const closed = Date.now();
    await new Promise((resolve) => mute.on('error', () => undefined).on('close', resolve));
    expect(Date.now() - closed).toBeLessThan(1500);
    await using link = await dial(to, a);
    expect(link.name).toBe('b');
  });

  it('danger 17: page connections need the certificate of an allowed peer', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder, { operators: ['alice'] });
    const pages = new Pages();
    await using _server = await agent(b, duties('b'), pages);
    const asOperator = config(folder.path, { name: 'a', certificates: folder.path, certificate: 'operator-alice' });
    await using operator = await dial(to, asOperator);
    const refused = await operator.openPages();
    refused.write('PHAULPG1');
    await new Promise((resolve) => refused.on('error', () => undefined).on('close', resolve));
    expect(pages.admitted).toHaveLength(0);
    await using host = await dial(to, a);
    const admitted = await host.openPages();
    admitted.write('PHAULPG1');
    await new Promise((resolve) => admitted.once('data', resolve));
    expect(pages.admitted).toHaveLength(1);
    admitted.destroy();
  });

  it('danger 17: the token of one migration opens its page connection once', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder);
    const door = new PageDoor();
    await using _server = await agent(b, duties('b'), door);
    await using link = await dial(to, a);
    const admitted = new Promise<Socket>((resolve) => {
      token = door.expect('m1', ({ connection }) => resolve(connection as Socket));
    });
    await expect(PageSender.connect(await link.openPages(), { migrationId: 'm2', token })).rejects.toThrow();
    await expect(
      PageSender.connect(await link.openPages(), { migrationId: 'm1', token: Buffer.alloc(32) }),
    ).rejects.toThrow();
    const connection = await link.openPages();
    const sender = await PageSender.connect(connection, { migrationId: 'm1', token });
    await expect(PageSender.connect(await link.openPages(), { migrationId: 'm1', token })).rejects.toThrow();
    const received = await admitted;
    let bytes = 0;
    received.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    received.resume();
    const megabyte = Buffer.alloc(2 ** 20, 3);
    for (let count = 0; count < 16; count++) await sender.write('pages-1.img', megabyte);
    await expect.poll(() => bytes).toBeGreaterThan(16 * 2 ** 20);
    connection.destroy();
  });

  it('refuse an unknown protocol with both lists', async () => {
    using folder = new Folder();
    const { a, b, to } = await twoHosts(folder);
    await using _server = await agent(b, duties('b'));
    await using link = await dial(to, a);
    const asked = link.rpc.call(rpc.hello, { protocols: [0, 99], programVersion: '9', hostName: 'a' });
    await expect(asked).rejects.toThrow(/b speaks 1, the caller 0, 99/);
    expect(await codeOf(asked)).toBe('protocol-mismatch');
  });
});

describe('the local socket', () => {
  it('is 0600 in a 0700 folder, and keeps a second agent out', async () => {
    using folder = new Folder();
    const own = config(folder.path, { name: 'a' });
    await using server = await agent(own, duties('a'));
    expect(statSync(own.runDirectory).mode & 0o777).toBe(0o700);
    expect(statSync(server.socketPath).mode & 0o777).toBe(0o600);
    expect(server.tcpPort).toBeNull();
    expect(await codeOf(agent(own, duties('a')))).toBe('agent-already-runs');
    await using link = await dial(`unix:${server.socketPath}`, own);
    expect(link.name).toBe('a');
  });

  it('replaces the socket of an agent that died', async () => {
    using folder = new Folder();
    const own = config(folder.path, { name: 'a' });
    await (await agent(own, duties('a')))[Symbol.asyncDispose]();
    const { createServer } = await import('node:net');
    const dead = createServer();
    // What a SIGKILL leaves: a socket file that nobody answers.
    await new Promise<void>((resolve) => dead.listen(`${own.runDirectory}/agent.sock`, resolve));
    const { renameSync } = await import('node:fs');
    renameSync(`${own.runDirectory}/agent.sock`, `${own.runDirectory}/kept`);
    await new Promise((resolve) => dead.close(resolve));
    renameSync(`${own.runDirectory}/kept`, `${own.runDirectory}/agent.sock`);
    expect(await codeOf(dial(`unix:${own.runDirectory}/agent.sock`, own))).toBe('host-unreachable');
    await using server = await agent(own, duties('a'));
    await using link = await dial(`unix:${server.socketPath}`, own);
    expect(link.name).toBe('a');
  });

  it('brings failures back whole, events as they come, and tells the duty when the caller hangs up', async () => {
    using folder = new Folder();
    const own = config(folder.path, { name: 'a' });
    const failure = new PhaulError(
      {
        code: 'criu-dump-failed',
        what: 'CRIU cannot dump',
        remedy: 'read the log',
        cause: new Error('x'.repeat(100_000)),
      },
      { phase: 'freezing', host: 'a', fate: { kind: 'running-on', host: 'a' } },
    );
    let hungUp = false;
    const ours = duties('a', {
      peer: {
        arm: async (_id, signal) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => {
              hungUp = true;
              reject(signal.reason as Error);
            });
          }),
      },
      operator: {
        cancel: async () => {
          throw failure;
        },
        migrate: async (order, destination, tell) => {
          tell({ kind: 'started', id: order.id, source: 'a', destination });
          tell({ kind: 'remark', text: 'so it goes' });
        },
      },
    });
    await using server = await agent(own, ours);
    await using link = await dial(`unix:${server.socketPath}`, own);

    const came = await link.rpc.call(rpc.cancel, { id: 'm1' }).catch((thrown: unknown) => thrown);
    expect(came).toBeInstanceOf(PhaulError);
    const { causes, ...rest } = (came as PhaulError).toJSON();
    expect(rest).toEqual({ code: failure.code, what: failure.message, remedy: failure.remedy, place: failure.place });
    expect(causes[0]?.length).toBeGreaterThan(1000);

    const events: unknown[] = [];
    const sent = { order: JSON.stringify(landingRequest('m7').order), destination: 'b' };
    for await (const { event } of link.rpc.stream(rpc.migrate, sent))
      events.push((JSON.parse(event) as { kind: string }).kind);
    expect(events).toEqual(['started', 'remark']);
    const bad = link.rpc.stream(rpc.migrate, { order: '{"id":"--"}', destination: 'b' });
    expect(await codeOf(bad.next())).toBe('bad-message');

    using life = new Lifetime();
    const arming = link.rpc.call(rpc.arm, { id: 'm1' }, { signal: life.signal });
    setTimeout(() => life.end(new PhaulError({ code: 'cancelled', what: 'cancelled', remedy: 'none' })), 50);
    expect(await codeOf(arming)).toBe('cancelled');
    await expect.poll(() => hungUp).toBe(true);
  });

  it('danger 7: a destination that no longer holds the landing ends the migration', async () => {
    using folder = new Folder();
    const own = config(folder.path, { name: 'b' });
    let held = true;
    const ours = duties('b', { peer: { heartbeat: () => held } });
    await using server = await agent(own, ours);
    await using link = await dial(`unix:${server.socketPath}`, own);
    using life = new Lifetime();
    const destination = new RemoteDestination(link, async (connection) => ({
      bytesSent: 0,
      write: async () => undefined,
      end: async (name) => ({ name, bytes: 0, hash: '' }),
      flush: async () => undefined,
      [Symbol.asyncDispose]: async () => void connection.destroy(),
    }));
    await using _landing = await destination.prepare(landingRequest('m1'), life);
    await new Promise((resolve) => setTimeout(resolve, 1300));
    expect(life.signal.aborted).toBe(false);
    held = false;
    await expect.poll(() => life.signal.aborted, { timeout: 3000 }).toBe(true);
    expect((life.signal.reason as PhaulError).code).toBe('landing-lost');
  });
});
