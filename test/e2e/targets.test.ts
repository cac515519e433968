/** The targets of test/targets, moved by phaul: all of them as one tree, and those that need a look of their own. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';
import { waitForReady } from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { targetFolder } from '../targets/catalog.js';
import { findCriu } from '../targets/in-place.js';
import { moveByPhaul } from './workloads/movers.js';

const reason =
  process.getuid?.() !== 0
    ? 'needs root for isolated hosts'
    : findCriu() === null
      ? 'no criu: see ./phaul engine'
      : null;
/** all-in-one itself waits 60 s for its members. */
const answerLimitMs = 70_000;

let lab: Lab;
let a: LabHost;
let b: LabHost;
let folder: string;
const agents: LabAgent[] = [];
let serial = 0;

beforeAll(async () => {
  if (reason !== null) return;
  folder = mkdtempSync(join(tmpdir(), 'phaul-targets-'));
  chmodSync(folder, 0o755);
  lab = await Lab.create({ name: 'targets' });
  a = await lab.addHost('a');
  b = await lab.addHost('b');
  await lab.configureAgents();
  for (const host of [a, b]) agents.push(await LabAgent.start(host));
}, 60_000);

afterAll(async () => {
  if (reason !== null) return;
  for (const agent of agents) await agent[Symbol.asyncDispose]();
  await lab?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

/** A target on host a. Disposed: it and its tree are killed, wherever they are. */
class Running implements AsyncDisposable {
  readonly #folder: string;
  readonly pid: number;

  private constructor(work: string, pid: number) {
    this.#folder = work;
    this.pid = pid;
  }

  static async start(name: string, options: readonly string[] = []): Promise<Running> {
    serial++;
    const work = join(folder, String(serial));
    mkdirSync(work, { mode: 0o755 });
    const files = ['--dir', work, '--control', join(work, 'ready'), '--report', join(work, 'report')];
    const argv = ['unshare', '-i', join(targetFolder, name), ...files, ...options];
    const output = join(work, 'output');
    const pid = await a.startAtHighPid(argv, { pid: 20_000 + serial * 1000, folder: work, output });
    await waitForReady(a, join(work, 'ready'), pid);
    return new Running(work, pid);
  }

  /** Has it verify itself where it now is. */
  async report(host: LabHost): Promise<string> {
    const file = join(this.#folder, 'report');
    await rm(file, { force: true });
    await host.check(['kill', '-USR1', String(this.pid)]);
    const end = performance.now() + answerLimitMs;
    while (!existsSync(file) && performance.now() < end) await sleep(20);
    return existsSync(file) ? readFileSync(file, 'utf8') : 'no report';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of [a, b]) await host.run(['bash', '-c', killTree, 'bash', String(this.pid)]);
  }
}

const killTree = `
tree() { for child in $(cat /proc/$1/task/*/children 2>/dev/null); do tree $child; done; echo $1; }
kill -9 $(tree "$1") 2>/dev/null
`;

function skipUnlessPossible(context: TestContext): void {
  context.skip(reason !== null, reason ?? '');
}

async function thereAndBack(target: Running, flags: readonly string[] = []): Promise<void> {
  expect(await target.report(a)).toMatch(/^ok /);
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    await moveByPhaul(from, to, target.pid, flags);
    expect(from.isAlive(target.pid), `still on ${from.name}`).toBe(false);
    expect(await target.report(to), `on ${to.name}`).toMatch(/^ok /);
    expect(await target.report(to), `on ${to.name}, asked again`).toMatch(/^ok /);
  }
}

test('all targets as one tree move there and back', { timeout: 240_000 }, async (context) => {
  skipUnlessPossible(context);
  await using target = await Running.start('all-in-one');
  await thereAndBack(target);
});

test('danger 17a: busy loopback connections inside a tree survive', { timeout: 120_000 }, async (context) => {
  skipUnlessPossible(context);
  // With an address CRIU locks nothing by itself: phaul's own fence must close loopback.
  const { ip4 } = lab.serviceAddress(1);
  await lab.addAddress(a, ip4);
  await using target = await Running.start('tcp-loopback');
  await thereAndBack(target, ['--move-address', ip4]);
});

test('danger 41: file locks on a file system that both hosts share', { timeout: 120_000 }, async (context) => {
  skipUnlessPossible(context);
  await using target = await Running.start('locks');
  await thereAndBack(target);
});

test('danger 43: a FIFO that both hosts share is refused, the process goes on', {
  timeout: 120_000,
}, async (context) => {
  skipUnlessPossible(context);
  await using target = await Running.start('fifo');
  await expect(moveByPhaul(a, b, target.pid, [])).rejects.toThrow(/fifo/i);
  expect(await target.report(a)).toMatch(/^ok bytes=10/);
});
