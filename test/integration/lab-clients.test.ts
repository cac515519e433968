import { describe, expect, it } from 'vitest';
import {
  type ClientOrder,
  type ClientReport,
  isUnharmed,
  LabClients,
  startServer,
  twentyClosedLoops,
} from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';
import type { LabHost } from '../../src/lab/lab-host.js';

describe.skipIf(process.getuid?.() !== 0)('clients of a lab (needs root)', () => {
  it('see a pause of the server, and that nothing is lost by it', async () => {
    await using lab = await Lab.create({ name: 'clients' });
    const a = await lab.addHost('a');
    const client = await lab.addClient();
    const { ip4 } = lab.serviceAddress();
    await lab.addAddress(a, ip4);
    const pid = await startServer(a, { address: ip4, port: 7000, memoryMib: 4, dirtyRate: 100, pid: 30_000 });
    await using clients = await LabClients.start(client, { ...twentyClosedLoops, address: ip4, port: 7000 });
    await clients.mark();
    await a.check(['sh', '-c', `kill -STOP ${pid}; sleep 0.15; kill -CONT ${pid}`]);
    const report = await clients.finish();
    expect(report.longestSilenceMs.p50).toBeGreaterThan(145);
    expect(report.longestSilenceMs.each).toHaveLength(20);
    expect(isUnharmed(report)).toBe(true);
    expect(report.badPages).toBe(0);
    expect([...report.hostAnswers.keys()]).toEqual(['a']);
    expect(report.newConnections.ok).toBeGreaterThan(0);
  });

  it('danger 39: dropped packets cost a client that thinks 50 ms its retransmission time-out, a closed loop nothing', async () => {
    await using lab = await Lab.create({ name: 'clients' });
    const a = await lab.addHost('a');
    const client = await lab.addClient();
    await startServer(a, { address: a.ip4, port: 7000, memoryMib: 1, dirtyRate: 0, pid: 30_000 });
    const closed = { ...twentyClosedLoops, connectLoop: false, verifyAtEnd: false, address: a.ip4, port: 7000 };
    const thinking: ClientOrder = { ...closed, thinkMs: 50 };
    const figures = { closed: await blackout(a, client, closed), thinking: await blackout(a, client, thinking) };
    // Frozen 20 ms before packets are dropped: nothing of a closed loop is under way then, so it sees the 100 ms alone.
    expect(figures.closed.longestSilenceMs.p50).toBeGreaterThan(95);
    expect(figures.closed.longestSilenceMs.p50).toBeLessThan(180);
    // The least retransmission time-out of Linux is 200 ms (TCP_RTO_MIN, include/net/tcp.h).
    expect(figures.thinking.longestReplyMs.max).toBeGreaterThan(195);
  });

  it('tell of connections that are lost', async () => {
    await using lab = await Lab.create({ name: 'clients' });
    const a = await lab.addHost('a');
    const client = await lab.addClient();
    const pid = await startServer(a, { address: a.ip4, port: 7000, memoryMib: 1, dirtyRate: 0, pid: 30_000 });
    const order = { ...twentyClosedLoops, connectLoop: false, verifyAtEnd: false, address: a.ip4, port: 7000 };
    await using clients = await LabClients.start(client, order);
    await a.check(['sh', '-c', `kill -KILL ${pid}`]);
    const report = await clients.finish();
    expect(report.errors).toBe(20);
    expect(isUnharmed(report)).toBe(false);
  });
});

/** The server stands still for 100 ms; for the last 80 of them what comes to it is dropped, and never given back. */
async function blackout(server: LabHost, client: LabHost, order: ClientOrder): Promise<ClientReport> {
  const script = `nft add table inet blackout
    nft add chain inet blackout input '{ type filter hook input priority 0; }'
    kill -STOP 30000; sleep 0.02
    nft add rule inet blackout input tcp dport 7000 drop; sleep 0.08
    nft delete table inet blackout; kill -CONT 30000`;
  await using clients = await LabClients.start(client, order);
  await clients.mark();
  await server.check(['sh', '-ec', script]);
  await new Promise((resolve) => setTimeout(resolve, 500));
  return await clients.finish();
}
