/**
 * Real programs, each with clients attached, from one host to the other and back again.
 *
 * `PHAUL_E2E_MOVER=criu` moves them in place with plain CRIU instead: shows whether a failure is the engine's or phaul's.
 */
import { chmodSync, cpSync, mkdirSync, mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { findCriu } from '../targets/in-place.js';
import { moveByCriu, moveByPhaul } from './workloads/movers.js';
import { missing, type Place, type Workload } from './workloads/workload.js';
import { pythonAsyncio, workloads } from './workloads.js';

const byCriu = process.env.PHAUL_E2E_MOVER === 'criu';
const reason =
  process.getuid?.() !== 0
    ? 'needs root for isolated hosts'
    : findCriu() === null
      ? 'no criu: see ./phaul engine'
      : null;
/** The host's own disk in the case with separate file systems; else both see the same. */
const privateFolder = '/srv';

let lab: Lab;
let a: LabHost;
let b: LabHost;
let client: LabHost;
let folder: string;
const agents: LabAgent[] = [];
let serial = 0;

beforeAll(async () => {
  if (reason !== null) return;
  folder = mkdtempSync(join(tmpdir(), 'phaul-workloads-'));
  chmodSync(folder, 0o755);
  lab = await Lab.create({ name: 'workloads' });
  a = await lab.addHost('a', { privateFolders: [privateFolder] });
  b = await lab.addHost('b', { privateFolders: [privateFolder] });
  client = await lab.addClient();
  if (byCriu) return;
  await lab.configureAgents();
  for (const host of [a, b]) agents.push(await LabAgent.start(host));
}, 60_000);

afterAll(async () => {
  if (reason !== null) return;
  for (const agent of agents) await agent[Symbol.asyncDispose]();
  await lab[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

function newPlace(root = folder): Place {
  serial++;
  return {
    host: a,
    folder: join(root, String(serial)),
    address: lab.serviceAddress(serial).ip4,
    port: 6000 + serial,
    pid: 20_000 + serial * 1000,
  };
}

async function move(workload: Workload, place: Place, pid: number, from: LabHost, to: LabHost): Promise<void> {
  if (byCriu) {
    await moveByCriu(a, pid, workload.flags, join(folder, `images-${serial}`));
    return;
  }
  const address = workload.hasAddress ? ['--move-address', place.address] : [];
  await moveByPhaul(from, to, pid, [...address, ...workload.flags]);
  expect(from.isAlive(pid), `pid ${pid} still lives on ${from.name}`).toBe(false);
  expect(to.isAlive(pid), `pid ${pid} lives on ${to.name}`).toBe(true);
}

/** The program that kept the terminal of a job ends with the job. */
async function expectNoKeeper(host: LabHost): Promise<void> {
  const keepers = async (): Promise<number> =>
    (await host.processes()).filter(({ name }) => name === 'phaul-terminal').length;
  await expect.poll(keepers, { timeout: 3000 }).toBe(0);
}

async function thereAndBack(workload: Workload, place: Place, beforeMove: (to: LabHost) => void): Promise<void> {
  if (workload.hasAddress) await lab.addAddress(a, place.address);
  const pid = await workload.start(place);
  try {
    await using witness = await workload.attend(place, client);
    await witness.progress();
    beforeMove(b);
    await move(workload, place, pid, a, b);
    await witness.progress();
    beforeMove(a);
    await move(workload, place, pid, b, a);
    await witness.progress();
    expect(await witness.finish()).toEqual([]);
    await expectNoKeeper(b);
  } finally {
    for (const host of [a, b]) await host.run(['bash', '-c', 'kill -9 -- -$1 $1 2>/dev/null', 'bash', String(pid)]);
  }
}

describe.each(workloads.map((workload) => ({ name: workload.name, workload })))('$name', ({ workload }) => {
  test('moves there and back with its clients attached', { timeout: 180_000 }, async (context) => {
    context.skip(reason !== null, reason ?? '');
    const why = missing(workload);
    context.skip(why !== null, why ?? '');
    const place = newPlace();
    mkdirSync(place.folder, { mode: 0o755 });
    await thereAndBack(workload, place, () => {});
  });
});

describe('danger 11: separate file systems', () => {
  /** Copies what the program has on its disk, as an operator would. */
  function synchronise(place: Place, from: LabHost, to: LabHost): void {
    cpSync(from.outside(place.folder), to.outside(place.folder), { recursive: true, preserveTimestamps: true });
  }

  test('equal files on both hosts: the program moves there and back', { timeout: 180_000 }, async (context) => {
    context.skip(reason !== null || byCriu, reason ?? 'needs two hosts');
    const place = newPlace(privateFolder);
    mkdirSync(a.outside(place.folder), { recursive: true });
    await thereAndBack(pythonAsyncio, place, (to) => synchronise(place, to === b ? a : b, to));
  });

  test('a file of equal size and other content: refused, the program goes on', {
    timeout: 180_000,
  }, async (context) => {
    context.skip(reason !== null || byCriu, reason ?? 'needs two hosts');
    const place = newPlace(privateFolder);
    mkdirSync(a.outside(place.folder), { recursive: true });
    await lab.addAddress(a, place.address);
    const pid = await pythonAsyncio.start(place);
    await using witness = await pythonAsyncio.attend(place, client);
    synchronise(place, a, b);
    const log = join(place.folder, 'counter.log');
    writeFileSync(b.outside(log), 'x'.repeat(statSync(a.outside(log)).size));
    await expect(moveByPhaul(a, b, pid, ['--move-address', place.address])).rejects.toThrow(/counter\.log/);
    await witness.progress();
    expect(await witness.finish()).toEqual([]);
    expect(a.isAlive(pid)).toBe(true);
    expect(b.isAlive(pid)).toBe(false);
    await a.run(['kill', '-9', String(pid)]);
  });
});
