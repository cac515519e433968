/** Packets caught while the tree was frozen, given back to a real stack; and sockets that /proc really shows. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { moving, NetworkLab, whyNoLab } from './network-lab.js';

const reason = whyNoLab();
const addresses = JSON.stringify([moving.v4, moving.v6].map((ip) => ({ ip })));

// The least retransmission time-out of Linux is 200 ms (TCP_RTO_MIN); what comes sooner was not sent again by a client.
const rtoMs = 200;

/** Both addresses, a fence, a catcher and a TUN, all before the window. */
const prepare = `
  state.interfaces = await net.listInterfaces(signal);
  state.placed = ['${moving.v4}', '${moving.v6}'].map((ip) => net.placeFor(net.parseAddressOrder(ip), state.interfaces));
  for (const each of state.placed) await net.addSilently(each, signal);
  state.fence = await net.SourceFence.install('m-3', [], signal);
  const device = state.interfaces.find((each) => each.name === 'eth0');
  state.catcher = net.SourceCatcher.prepare(state.placed.map(({ ip }) => ({ ip, device })));
  state.replayer = await net.Replayer.open(state.placed, signal);`;

/** TCP and UDP echo; the TCP server answers only what is there after \`settleMs\`, in one piece. */
const serve = `
  state.server = sockets.createServer((socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  await new Promise((resolve) => state.server.listen(7000, '::', resolve));
  state.datagrams = [];
  state.udp = dgram.createSocket('udp6');
  state.udp.on('message', (data, from) => { state.datagrams.push(String(data)); state.udp.send('re:' + data, from.port, from.address); });
  await new Promise((resolve) => state.udp.bind(7001, '::', resolve));`;

describe.each([
  { ip: moving.v4, label: 'r4' },
  { ip: moving.v6, label: 'r6' },
])('$ip', ({ ip, label }) => {
  let lab: NetworkLab;

  beforeAll(() => {
    if (reason === null) lab = new NetworkLab(label);
  });
  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  /** What a client waits for its answer when it asks \`bytes\` while the fence is closed for 60 ms. */
  async function askThroughFreeze(
    bytes: number,
    replay: boolean,
  ): Promise<{ waitedMs: number; longest: number; replayed: number }> {
    await lab.client.run(`
      state.socket ??= sockets.connect({ host: '${ip}', port: 7000, noDelay: true });
      if (state.socket.connecting) await new Promise((resolve) => state.socket.once('connect', resolve));
      state.socket.removeAllListeners('data');
      state.answered = new Promise((resolve) => {
        let got = 0;
        state.socket.on('data', (data) => { got += data.length; if (got === ${bytes}) resolve(performance.now()); });
      });
      await sleep(50);`);
    await lab.a.run(`state.catcher.open(); state.fence.close(${addresses}); state.catcher.fenceIsClosed();`);
    await lab.client.run(
      `state.asked = performance.now(); state.socket.write(Buffer.alloc(${bytes})); await sleep(60);`,
    );
    const seen = await lab.a.run<{ longest: number; replayed: number }>(`
      const caught = state.catcher.drain();
      state.catcher.shut();
      state.fence.lift();
      const { replayed } = ${replay} ? state.replayer.replay(caught) : { replayed: 0 };
      return { longest: Math.max(...caught.packets.map((each) => each.length)), replayed };`);
    const waitedMs = await lab.client.run<number>('return (await state.answered) - state.asked;');
    return { waitedMs, ...seen };
  }

  test('danger 38c: a request that met the fence is answered without a retransmission, also under strict rp_filter', async (context) => {
    if (reason !== null) return context.skip(reason);
    lab.a.command(
      'sh',
      '-c',
      'echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter',
    );
    await lab.a.run(`${prepare}${serve}`);
    const replayed = await askThroughFreeze(100, true);
    expect(replayed.replayed).toBeGreaterThan(0);
    expect(replayed.waitedMs).toBeLessThan(rtoMs);
    // The control: without replay the same client waits.
    expect((await askThroughFreeze(100, false)).waitedMs).toBeGreaterThan(rtoMs);
  });

  test('danger 52: segments merged beyond the MTU arrive whole', async (context) => {
    if (reason !== null) return context.skip(reason);
    const { longest, replayed, waitedMs } = await askThroughFreeze(12_000, true);
    expect(longest).toBeGreaterThan(1500);
    expect(replayed).toBeGreaterThan(0);
    expect(waitedMs).toBeLessThan(rtoMs);
  });

  test('danger 52: 64 KiB in one packet arrive whole', async (context) => {
    if (reason !== null) return context.skip(reason);
    const header = ip === moving.v4 ? 20 : 40;
    // A datagram as large as it can be, made by the kernel of the client in fragments; here put together by hand.
    const port = await lab.client.run<number>(`
      state.udp = dgram.createSocket('${ip === moving.v4 ? 'udp4' : 'udp6'}');
      state.answers = [];
      state.udp.on('message', (data) => state.answers.push(String(data)));
      await new Promise((resolve) => state.udp.bind(0, resolve));
      return state.udp.address().port;`);
    const length = ip === moving.v4 ? 65535 - 20 : 65535;
    await lab.a.run(`
      const packet = Buffer.alloc(${header} + ${length}, 'x');
      const from = net.addressBytes({ ip: '${ip === moving.v4 ? '10.9.0.3' : 'fd09::3'}' }), to = net.addressBytes({ ip: '${ip}' });
      if (${header} === 20) {
        packet.set([0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, 17, 0, 0, ...from, ...to]);
        let sum = 0;
        for (let at = 0; at < 20; at += 2) sum += packet.readUInt16BE(at);
        packet.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10);
      } else packet.set([0x60, 0, 0, 0, 0xff, 0xff, 17, 64, ...from, ...to]);
      packet.writeUInt16BE(${port}, ${header}); packet.writeUInt16BE(7001, ${header} + 2);
      packet.writeUInt16BE(${length}, ${header} + 4);
      // The pseudo-header's sum alone, as a sender with checksum offload leaves it.
      let pseudo = 17 + ${length};
      for (const each of [Buffer.from(from), Buffer.from(to)]) for (let at = 0; at < each.length; at += 2) pseudo += each.readUInt16BE(at);
      while (pseudo > 0xffff) pseudo = (pseudo & 0xffff) + (pseudo >>> 16);
      packet.writeUInt16BE(pseudo, ${header} + 6);
      if (net.fixChecksums(packet, 65575) !== 'completed') throw new Error('checksum');
      state.datagrams.length = 0;
      const { replayed } = state.replayer.replay({ packets: [packet], lost: 0 });
      await sleep(100);
      if (replayed !== 1) throw new Error('not written');`);
    expect(await lab.a.run('return state.datagrams.map((each) => each.length)')).toEqual([length - 8]);
  });

  test('danger 52: datagrams of the freeze are given once, those before it are not repeated', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.a.run('state.datagrams.length = 0; state.catcher.open();');
    await lab.client.run(`state.answers.length = 0; state.udp.send('before', 7001, '${ip}'); await sleep(50);`);
    await lab.a.run(`state.fence.close(${addresses}); state.catcher.fenceIsClosed();`);
    await lab.client.run(`state.udp.send('during', 7001, '${ip}'); await sleep(50);`);
    await lab.a.run(
      'const caught = state.catcher.drain(); state.catcher.shut(); state.fence.lift(); state.replayer.replay(caught); await sleep(50);',
    );
    expect(await lab.a.run('return state.datagrams')).toEqual(['before', 'during']);
    expect(await lab.client.run('return state.answers')).toEqual(['re:before', 're:during']);
  });

  test('danger 13: a connection held back before the freeze is made by its replayed SYN, not a second later', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.a.run(`state.catcher.open(); state.fence.holdNewConnections([{ ip: '::', port: 7000 }]);`);
    await lab.client.run(`
      state.asked = performance.now();
      state.late = sockets.connect(7000, '${ip}');
      state.connected = new Promise((resolve) => state.late.once('connect', () => resolve(performance.now())));
      await sleep(30);`);
    await lab.a.run(`state.fence.close(${addresses}); state.catcher.fenceIsClosed();`);
    await lab.client.run('await sleep(30);');
    await lab.a.run(
      'const caught = state.catcher.drain(); state.catcher.shut(); state.fence.lift(); state.replayer.replay(caught);',
    );
    expect(await lab.client.run<number>('return (await state.connected) - state.asked;')).toBeLessThan(900);
    await lab.client.run('state.late.destroy();');
  });

  test('danger 15: packets of a peer that are not for a moved address never reach the stack', async (context) => {
    if (reason !== null) return context.skip(reason);
    const forged = await lab.a.run<{ replayed: number; remarks: string[] }>(`
      const stranger = Buffer.from('4500001c0000400040110000' + '0a090003' + '0a090001' + '1234' + '1b59' + '00080000', 'hex');
      return state.replayer.replay({ packets: [stranger, stranger.subarray(0, 10), Buffer.alloc(0)], lost: 2 });`);
    expect(forged.replayed).toBe(0);
    expect(forged.remarks).toEqual([
      '2 packets of clients were lost while the tree was frozen',
      '3 caught packets were not replayed: not a packet to a moved address',
    ]);
  });

  test('danger 38c: the TUN goes with its descriptor', async (context) => {
    if (reason !== null) return context.skip(reason);
    const tuns = `(await net.listNetworkLeftovers(signal)).filter((each) => each.kind === 'tun').length`;
    expect(
      await lab.a.run(`const before = ${tuns}; state.replayer[Symbol.dispose](); return [before, ${tuns}];`),
    ).toEqual([1, 0]);
  });
});

describe('sockets as /proc shows them', () => {
  let lab: NetworkLab;

  beforeAll(() => {
    if (reason === null) lab = new NetworkLab('s');
  });
  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  test('danger 13: a connection that is not accepted is seen, with its listener, and its end is awaited', async (context) => {
    if (reason !== null) return context.skip(reason);
    // A server that listens and never gets to accept: its only thread sleeps.
    await lab.a.run(`
      const { spawn } = await import('node:child_process');
      state.deaf = spawn(process.execPath, ['-e', "require('net').createServer().listen(7002, '::', () => { console.log('up'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20000); })"]);
      await new Promise((resolve) => state.deaf.stdout.once('data', resolve));`);
    await lab.client.run(
      `state.socket = sockets.connect(7002, '10.9.0.1'); state.socket.on('error', () => {}); await new Promise((resolve) => state.socket.once('connect', resolve));`,
    );
    const seen = await lab.a.run<{ listeners: unknown; waiting: string[]; took: number; fds: number }>(`
      const tree = await net.socketsOf([state.deaf.pid]);
      const read = () => net.readSockets(state.deaf.pid);
      const start = performance.now();
      const left = await net.waitForAccepted(read, tree, 50);
      return { listeners: net.treeListeners(await read(), tree), waiting: left.map((each) => each.local.ip + ' ' + each.state), took: performance.now() - start };`);
    expect(seen.listeners).toEqual([{ ip: '::', port: 7002 }]);
    expect(seen.waiting).toEqual(['10.9.0.1 established']);
    expect(seen.took).toBeGreaterThanOrEqual(50);
    await lab.client.run('state.socket.destroy();');
    await lab.a.run(`state.deaf.kill('SIGKILL'); await new Promise((resolve) => state.deaf.once('exit', resolve));`);
  });

  test('danger 13: a socket that its program has closed with data unsent is an orphan until the client takes it', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.a.run(`
      state.server = sockets.createServer((socket) => { socket.on('error', () => {}); socket.end(Buffer.alloc(3_000_000)); });
      await new Promise((resolve) => state.server.listen(7003, '::', resolve));`);
    await lab.client.run(`state.slow = sockets.connect(7003, '10.9.0.1'); state.slow.pause(); await sleep(300);`);
    // The kernel has all of it only when its buffer takes the rest: kill the program, its sockets linger.
    const wait = `await net.waitForOrphans(() => net.readSockets('self'), new Set([7003]), [], 100)`;
    await lab.a.run(`
      const { spawn } = await import('node:child_process');
      state.child = spawn(process.execPath, ['-e', "require('net').createServer((s) => { s.write(Buffer.alloc(3_000_000)); setTimeout(() => process.exit(), 200); }).listen(7004, '::', () => console.log('up'))"]);
      await new Promise((resolve) => state.child.stdout.once('data', resolve));`);
    await lab.client.run(
      `state.other = sockets.connect(7004, '10.9.0.1'); state.other.on('error', () => {}); state.other.pause(); await sleep(500);`,
    );
    const orphans = (port: number) =>
      `(${wait.replace('7003', String(port))}).map((each) => each.state + ' ' + (each.txQueue > 0))`;
    expect(await lab.a.run(`return ${orphans(7004)};`)).toEqual(['fin-wait-1 true']);
    await lab.client.run('state.other.resume(); await sleep(200);');
    expect(await lab.a.run(`return ${orphans(7004)};`)).toEqual([]);
    await lab.client.run('state.slow.destroy();');
  });

  test('danger 15: only the lock table of this run is deleted', async (context) => {
    if (reason !== null) return context.skip(reason);
    const [ours, other] = ['0123abcd-4567-89ab-cdef-0123456789ab', 'ffffabcd-4567-89ab-cdef-0123456789ab'];
    for (const id of [ours, other]) lab.b.command('nft', 'add', 'table', 'inet', `CRIU-${id.slice(0, 21)}`);
    await lab.b.run(`await net.deleteLockTable('${ours}'); await net.deleteLockTable('${ours}');`);
    expect(lab.b.command('nft', 'list', 'tables')).toBe(`table inet CRIU-${other.slice(0, 21)}\n`);
    const [left] = await lab.b.run<{ kind: string; table: string }[]>('return await net.listNetworkLeftovers(signal)');
    expect(left).toEqual({ kind: 'engine-lock', table: `CRIU-${other.slice(0, 21)}` });
    await lab.b.run(`await net.removeNetworkLeftover(${JSON.stringify(left)});`);
    expect(lab.b.command('nft', 'list', 'tables')).toBe('');
  });

  test('danger 14: adding and removing an address twice is the same as once', async (context) => {
    if (reason !== null) return context.skip(reason);
    const seen = await lab.b.run(`
      const placed = net.placeFor(net.parseAddressOrder('10.9.0.77/24'), await net.listInterfaces(signal));
      const here = [];
      for (const step of [net.addSilently, net.addSilently, net.removeAddress, net.removeAddress]) {
        await step(placed, signal);
        here.push(await net.isHere(placed));
      }
      return here;`);
    expect(seen).toEqual([true, true, false, false]);
  });
});
