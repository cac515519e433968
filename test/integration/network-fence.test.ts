/** Fences and announcements on real stacks: what the clients see, and what they do not. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { moving, NetworkLab, whyNoLab } from './network-lab.js';

const reason = whyNoLab();
const both = [moving.v4, moving.v6] as const;
const addresses = JSON.stringify(both.map((ip) => ({ ip })));

/** An echo server on all addresses and a place for what the tests open. */
const serve = (port: number) => `
  state.server = sockets.createServer((socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  await new Promise((resolve) => state.server.listen(${port}, '::', resolve));`;
const open = (ip: string, port: number) => `
  const events = [];
  state.events = events;
  state.socket = sockets.connect({ host: '${ip}', port: ${port}, noDelay: true });
  for (const name of ['connect', 'error', 'close']) state.socket.on(name, (what) => events.push(what?.code ?? name));
  state.socket.on('data', (data) => events.push(String(data)));`;
const addMoving = `
  state.interfaces = await net.listInterfaces(signal);
  state.placed = ['${moving.v4}', '${moving.v6}'].map((ip) => net.placeFor(net.parseAddressOrder(ip), state.interfaces));
  for (const each of state.placed) await net.addSilently(each, signal);`;

describe.each(both)('%s', (ip) => {
  let lab: NetworkLab;

  beforeAll(() => {
    if (reason === null) lab = new NetworkLab(ip === moving.v4 ? 'f4' : 'f6');
  });
  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  test('danger 14: behind the source fence nothing comes in or goes out, ARP and ND neither, and nobody is reset', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.a.run(`${addMoving}${serve(7000)}
      state.server.on('connection', (socket) => { state.accepted = socket; });
      state.fence = await net.SourceFence.install('m-1', [], signal);`);
    await lab.client.run(`${open(ip, 7000)} await sleep(100); state.socket.write('1'); await sleep(100);`);
    await lab.a.run(`state.fence.close(${addresses});`);
    await lab.client.run(`state.socket.write('2'); await sleep(50);`);
    await lab.a.run(`state.accepted.write('pushed'); await sleep(300);`);
    expect(await lab.client.run('return state.events')).toEqual(['connect', '1']);

    lab.client.command('ip', 'neigh', 'flush', 'dev', 'eth0');
    await lab.client.run(
      `state.probe = sockets.connect(7000, '${ip}'); state.probe.on('error', () => {}); await sleep(300); state.probe.destroy();`,
    );
    expect(lab.client.neighbour(ip)).toBeNull();

    await lab.a.run('state.fence.lift();');
    await lab.client.run('for (let i = 0; i < 60 && state.events.join("").length < 15; i++) await sleep(100);');
    expect((await lab.client.run<string[]>('return state.events')).join(' ')).toMatch(
      /^connect 1 (pushed 2|2 pushed|2pushed|pushed2)$/,
    );
    await lab.client.run('state.socket.destroy();');
  });

  test('danger 14: an address behind the destination fence is silent; opened and announced, the clients follow it', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.b.run(`${serve(7000)}
      state.fence = await net.DestinationFence.install('m-1', ${addresses}, [], signal);
      ${addMoving}`);
    // Both hosts have it now: the client must find only the source, also when it asks anew.
    lab.client.command('ip', 'neigh', 'flush', 'dev', 'eth0');
    await lab.client.run(`${open(ip, 7000)} await sleep(100); state.socket.write('x'); await sleep(200);`);
    expect(await lab.client.run('return state.events')).toEqual(['connect', 'x']);
    expect(lab.client.neighbour(ip)).toBe(lab.a.mac());
    await lab.client.run('state.socket.destroy(); await sleep(50);');

    await lab.a.run(`state.fence.close(${addresses}); for (const each of state.placed) await net.removeAddress(each);`);
    await lab.client.run(`${open(ip, 7000)} await sleep(200);`);
    expect(await lab.client.run('return state.events')).toEqual([]);
    // The waiting client must not ask by itself before the announcement is looked at.
    await lab.client.run('state.socket.destroy();');

    const device = `state.interfaces.find((each) => each.name === 'eth0')`;
    expect(await lab.b.run(`state.fence.open(); return net.announceOnce({ ip: '${ip}' }, ${device});`)).toBe(true);
    await lab.client.run('await sleep(50);');
    expect(lab.client.neighbour(ip)).toBe(lab.b.mac());
    await lab.client.run(`${open(ip, 7000)} await sleep(100); state.socket.write('y'); await sleep(200);`);
    expect(await lab.client.run('return state.events')).toEqual(['connect', 'y']);
    await lab.client.run('state.socket.destroy();');
  });

  test('danger 14: four more announcements, and none once the address has left again', async (context) => {
    if (reason !== null) return context.skip(reason);
    const device = `state.interfaces.find((each) => each.name === 'eth0')`;
    // The client is told a lie, which only a later announcement can correct.
    await lab.b.run(`state.repeated = net.announceRepeatedly({ ip: '${ip}' }, ${device}, signal);`);
    lab.client.command('ip', 'neigh', 'replace', ip, 'lladdr', '02:00:00:00:00:99', 'dev', 'eth0', 'nud', 'stale');
    await lab.client.run('await sleep(250);');
    expect(lab.client.neighbour(ip)).toBe(lab.b.mac());
    await lab.b.run(`await net.removeAddress(state.placed.find((each) => each.ip === '${ip}'));`);
    lab.client.command('ip', 'neigh', 'replace', ip, 'lladdr', '02:00:00:00:00:99', 'dev', 'eth0', 'nud', 'stale');
    await lab.b.run('await state.repeated;');
    expect(lab.client.neighbour(ip)).toBe('02:00:00:00:00:99');
  });

  test('danger 13: new connections are held back, the old ones go on', async (context) => {
    if (reason !== null) return context.skip(reason);
    await lab.a.run(`state.fence.lift(); for (const each of state.placed) await net.addSilently(each, signal);`);
    lab.client.command('ip', 'neigh', 'flush', 'dev', 'eth0');
    await lab.client.run(
      `${open(ip, 7000)} await sleep(200); state.old = state.socket; state.oldEvents = state.events;`,
    );
    for (const listener of [
      { ip, port: 7000 },
      { ip: '::', port: 7000 },
    ]) {
      await lab.a.run(`state.fence.holdNewConnections([${JSON.stringify(listener)}]);`);
      await lab.client.run(`${open(ip, 7000)} state.old.write('z'); await sleep(300);`);
      expect(await lab.client.run('return state.events')).toEqual([]);
      await lab.a.run('state.fence.releaseNewConnections();');
      await lab.client.run(
        'for (let i = 0; i < 30 && state.events.length === 0; i++) await sleep(100); state.socket.destroy();',
      );
      expect(await lab.client.run('return state.events[0]')).toBe('connect');
    }
    expect((await lab.client.run<string[]>('return state.oldEvents')).join('')).toBe('connectzz');
  });

  test('danger 17a: TCP over loopback inside the tree waits behind the destination fence, other loopback goes on', async (context) => {
    if (reason !== null) return context.skip(reason);
    const host = ip === moving.v4 ? '127.0.0.1' : '::1';
    const pairOf = (name: string) => `
      state.${name} = sockets.connect({ host: '${host}', port: 7000, noDelay: true });
      await new Promise((resolve) => state.${name}.once('connect', resolve));
      state.${name}.seen = ''; state.${name}.on('data', (data) => { state.${name}.seen += data; });`;
    await lab.b.run(`${pairOf('inside')}${pairOf('outside')}
      state.tcp = await net.DestinationFence.install('m-2', [], [7000, state.inside.localPort], signal);
      state.inside.write('i'); state.outside.write('o'); await sleep(200);`);
    expect(await lab.b.run('return [state.inside.seen, state.outside.seen]')).toEqual(['', 'o']);
    await lab.b.run('state.tcp.open(); for (let i = 0; i < 30 && state.inside.seen === ""; i++) await sleep(50);');
    expect(await lab.b.run('return state.inside.seen')).toBe('i');
  });

  test('danger 14: fences outlive the agent and are removed by the id alone, more than once', async (context) => {
    if (reason !== null) return context.skip(reason);
    lab.a.process.kill('SIGKILL');
    await new Promise((resolve) => lab.a.process.once('exit', resolve));
    expect(lab.a.command('nft', 'list', 'tables')).toBe('table inet phaul-m-1-source\ntable arp phaul-m-1-source\n');
    const found = await lab.b.run<{ kind: string; id: string }[]>('return await net.listNetworkLeftovers(signal)');
    expect(found.map((each) => `${each.kind} ${each.id}`).toSorted()).toEqual([
      'fence m-1',
      'fence m-1',
      'fence m-2',
      'fence m-2',
    ]);
    await lab.b.run(`for (const id of ['m-1', 'm-2', 'm-1']) await net.DestinationFence.removeByName(id);`);
    expect(await lab.b.run('return await net.listNetworkLeftovers(signal)')).toEqual([]);
    expect(lab.b.command('nft', 'list', 'tables')).toBe('');
  });

  test('danger 14: closing, lifting and opening take no time of the window', async (context) => {
    if (reason !== null) return context.skip(reason);
    const took = await lab.client.run<number[]>(`
      const source = await net.SourceFence.install('m-4', [80, 81], signal);
      const times = [];
      const timed = (step) => { const start = performance.now(); step(); times.push(performance.now() - start); };
      for (let round = 0; round < 5; round++) timed(() => { source.close(${addresses}); source.lift(); });
      await source.remove();
      for (let round = 0; round < 3; round++) {
        const destination = await net.DestinationFence.install('m-4', ${addresses}, [80], signal);
        timed(() => destination.open());
        await destination.remove();
      }
      return times;`);
    // A deletion that waits for a grace period of RCU takes 9 ms for each element; an idle one 0.05 ms.
    expect(Math.min(...took.slice(0, 5))).toBeLessThan(5);
    expect(Math.min(...took.slice(5))).toBeLessThan(5);
  });
});
