/** The options of `phaul migrate` that say what moves and what stays, one short migration each. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';
import { LabClients, twentyClosedLoops } from '../../src/lab/clients.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { findCriu } from '../targets/in-place.js';
import { OptionsLab, type Server } from './options-lab.js';

const reason =
  process.getuid?.() !== 0
    ? 'needs root for isolated hosts'
    : findCriu() === null
      ? 'no criu: see ./phaul engine'
      : null;

let lab: OptionsLab;
beforeAll(async () => {
  if (reason === null) lab = await OptionsLab.create();
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

function skipUnlessPossible(context: TestContext): void {
  context.skip(reason !== null, reason ?? '');
}

const unharmed = { lost: 0, errors: 0, corrupt: 0, badPages: 0 };

/** State letter of a process (proc_pid_stat(5)), or null. */
function state(host: LabHost, pid: number): string | null {
  const path = host.outside(`/proc/${pid}/stat`);
  return existsSync(path) ? (/\) (\S)/.exec(readFileSync(path, 'utf8'))?.[1] ?? null) : null;
}

async function answering(server: Server, host: string): Promise<void> {
  await server.clients.mark();
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { hostAnswers, ...rest } = await server.clients.finish();
  expect(rest).toMatchObject(unharmed);
  expect([...hostAnswers.keys()]).toContain(host);
}

test('by default connections move; --json tells the story in lines; --keep-images keeps them', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server();
  const { events, report, exitCode } = await lab.migrate(server.pid, [
    ...server.move,
    '--keep-images',
    '--log-level',
    'debug',
  ]);
  expect(exitCode).toBe(0);
  expect(events.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['started', 'phase', 'done']));
  const phases = events.flatMap((event) => (event.kind === 'phase' ? [event.phase] : []));
  expect(phases).toEqual([
    'checking',
    'preparing',
    'armed',
    'freezing',
    'restoring',
    'committing',
    'taking-over',
    'moved',
  ]);
  expect(report).toMatchObject({ outcome: 'moved', pid: server.pid, source: 'a', destination: 'b' });
  const kept = report?.imagesFolder ?? '';
  expect(readdirSync(kept)).toEqual(expect.arrayContaining(['inventory.img', 'pstree.img']));
  await answering(server, 'b');
  rmSync(kept, { recursive: true });
});

test('--tcp-close: listeners move, clients see the end of their connections and come again', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server({ verifyAtEnd: false });
  // One that says nothing and waits: only the server's side can tell it.
  const waiting = lab.client.spawn([
    'bash',
    '-c',
    `exec 3<>/dev/tcp/${server.address}/${server.port}; echo up; cat <&3; echo ended`,
  ]);
  await new Promise((resolve) => waiting.child.stdout?.once('data', resolve));
  const report = await lab.move(server.pid, [...server.move, '--tcp-close']);
  expect(report.outcome).toBe('moved');
  const ended = await Promise.race([
    waiting.finished,
    new Promise((resolve) => setTimeout(resolve, 3000, 'it still waits')),
  ]);
  expect(ended).toMatchObject({ stdout: expect.stringContaining('ended') });
  const clients = await server.clients.finish();
  expect(clients.portsAfter).toEqual([]);
  expect(clients.errors).toBe(4);

  const { address, port } = server;
  await using anew = await LabClients.start(lab.client, { ...twentyClosedLoops, address, port, connections: 2 });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const { hostAnswers, ...rest } = await anew.finish();
  expect(rest).toMatchObject(unharmed);
  expect([...hostAnswers.keys()]).toEqual(['b']);
});

test('--leave-running: images go, the process and its connections stay; plain criu restores them', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server();
  const born = readFileSync(lab.a.outside(`/proc/${server.pid}/cgroup`), 'utf8');
  const report = await lab.move(server.pid, [...server.move, '--leave-running']);
  expect(report).toMatchObject({ outcome: 'images-kept', pid: server.pid });
  expect(report.remarks.join()).toContain('--manage-cgroups=ignore');
  expect(state(lab.b, server.pid)).toBe(null);
  expect(await lab.b.check(['ip', '-o', 'addr'])).not.toContain(server.address);
  // Announcements of the migration before go on for 1.5 s behind its fence.
  const tables = async () =>
    `${await lab.a.check(['nft', 'list', 'tables'])}${await lab.b.check(['nft', 'list', 'tables'])}`;
  await expect.poll(tables, { timeout: 5000 }).not.toMatch(/phaul-|CRIU-/);
  expect(readFileSync(lab.a.outside(`/proc/${server.pid}/cgroup`), 'utf8')).toBe(born);
  await answering(server, 'a');

  await lab.kill(server.pid);
  await lab.a.check(['ip', 'addr', 'del', `${server.address}/32`, 'dev', lab.a.device]);
  await lab.lab.addAddress(lab.b, server.address);
  const images = report.imagesFolder ?? '';
  const criu = [
    findCriu() ?? 'criu',
    'restore',
    '-d',
    '-D',
    images,
    '-v2',
    '-o',
    'plain.log',
    '--tcp-established',
    '--manage-cgroups=ignore',
  ];
  const restored = await lab.b.run(criu, { stdio: 'ignore', timeoutMs: 20_000 });
  const log = readFileSync(join(images, 'plain.log'), 'utf8');
  expect(restored.exitCode, log).toBe(0);
  expect(state(lab.b, server.pid)).toMatch(/[SR]/);
  await lab.b.check(['ip', 'addr', 'del', `${server.address}/32`, 'dev', lab.b.device]);
  expect((await lab.b.phaul(['leftovers', '--clean'])).stdout).toContain(images);
  expect(existsSync(images)).toBe(false);
});

test('--start-stopped: the process is stopped on the destination until SIGCONT', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server();
  await lab.move(server.pid, [...server.move, '--start-stopped']);
  await expect.poll(() => state(lab.b, server.pid)).toBe('T');
  expect(state(lab.a, server.pid)).toBe(null);
  await lab.b.check(['kill', '-CONT', String(server.pid)]);
  await answering(server, 'b');
});

test('--dry-run: both hosts look, nobody touches', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server();
  const before = await lab.a.check([
    'sh',
    '-c',
    `cat /proc/${server.pid}/cgroup; nft list ruleset; ip addr; ls ${lab.a.stateFolder}/migrations`,
  ]);
  const { report, events } = await lab.migrate(server.pid, [...server.move, '--dry-run', '--id', 'only-looked']);
  expect(report).toMatchObject({ outcome: 'checked', bytes: 0, frozenMs: null });
  expect(events.flatMap((event) => (event.kind === 'phase' ? [event.phase] : []))).toEqual(['checking', 'checked']);
  const after = await lab.a.check([
    'sh',
    '-c',
    `cat /proc/${server.pid}/cgroup; nft list ruleset; ip addr; ls ${lab.a.stateFolder}/migrations`,
  ]);
  expect(after.replace(/(valid|preferred)_lft \S+/g, '')).toBe(before.replace(/(valid|preferred)_lft \S+/g, ''));
  expect(existsSync(join(lab.b.stateFolder, 'migrations', 'only-looked'))).toBe(false);
  await answering(server, 'a');
});

test('--dry-run of what cannot move: refused with the reason', async (context) => {
  skipUnlessPossible(context);
  await using server = await lab.server();
  const { exitCode, stderr } = await lab.migrate(server.pid, ['--dry-run']);
  expect(exitCode).toBe(3);
  expect(stderr).toMatch(/neither moves nor exists on b/);
});
