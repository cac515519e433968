import { describe, expect, it } from 'vitest';
import { isUnharmed, LabClients, startServer, twentyClosedLoops } from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';

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
