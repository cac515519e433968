/** Names in file systems that a dump or a restore makes, takes away or replaces: after a move and after an abort. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';
import type { LabHost } from '../../src/lab/lab-host.js';
import { findCriu } from '../targets/in-place.js';
import { OptionsLab } from './options-lab.js';

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

let serial = 0;
function newPlace(): { folder: string; pid: number } {
  serial++;
  const folder = join(lab.folder, `names-${serial}`);
  mkdirSync(folder, { mode: 0o755 });
  return { folder, pid: 40_000 + 100 * serial };
}

/** Writes numbers into a file that it has opened under a name which is gone, but which has another one. */
const writer = `
cd "$1"; echo begin >kept; ln kept name; exec 5>>name; rm name; echo ready >ready
i=0; exec {own}<> <(:)
while :; do i=$((i + 1)); echo "$i" >&5; read -r -t 0.03 -u "$own"; done
`;

async function startWriter(): Promise<{ folder: string; pid: number }> {
  const { folder, pid } = newPlace();
  writeFileSync(join(folder, 'writer.sh'), writer);
  await lab.a.startAtHighPid(['bash', join(folder, 'writer.sh'), folder], { pid, folder });
  await expect.poll(() => existsSync(join(folder, 'ready'))).toBe(true);
  return { folder, pid };
}

const lines = (folder: string): number => readFileSync(join(folder, 'kept'), 'utf8').split('\n').length;
const remaps = (folder: string): string[] => readdirSync(folder).filter((name) => /remap|phaul/.test(name));

test('link-remap names are gone from both hosts after a move', async (context) => {
  skipUnlessPossible(context);
  const { folder, pid } = await startWriter();
  const report = await lab.move(pid);
  expect(report.findings.map(({ code }) => code)).toContain('link-remap-set');
  const before = lines(folder);
  await expect.poll(() => lines(folder)).toBeGreaterThan(before + 3);
  expect(remaps(folder)).toEqual([]);
  await lab.kill(pid);

  // As a run that was broken off would leave it.
  writeFileSync(join(folder, 'link_remap.4711'), '');
  for (const clean of [[], ['--clean']]) {
    const { stdout } = await lab.a.phaul(['leftovers', ...clean]);
    expect(stdout).toMatch(
      new RegExp(`link-remap +${folder}/link_remap.4711 .*${clean.length > 0 ? 'removed' : 'there'}`),
    );
  }
  expect(remaps(folder)).toEqual([]);
});

test('link-remap names are gone from both hosts after an abort, and the file is whole', async (context) => {
  skipUnlessPossible(context);
  const { folder, pid } = await startWriter();
  const command = await lab.migrateUpTo('held', pid, ['--id', 'remap-abort']);
  await lab.a.check(lab.a.phaulArgv(['cancel', 'remap-abort']));
  await lab.goOn();
  expect(await command.finished).toMatchObject({ exitCode: 4 });
  const before = lines(folder);
  await expect.poll(() => lines(folder)).toBeGreaterThan(before + 3);
  expect(remaps(folder)).toEqual([]);
  // And once more, to the end.
  await lab.move(pid);
  await lab.kill(pid);
});

test('danger 4: a restore that needs link-remap names can be repeated', async (context) => {
  skipUnlessPossible(context);
  const { folder, pid } = await startWriter();
  const command = await lab.migrateUpTo('committed', pid, []);
  await lab.b.check(['bash', '-c', killEngines]);
  await lab.goOn();
  const finished = await command.finished;
  expect(finished.exitCode, finished.stderr).toBe(0);
  expect(finished.stdout).toContain('restored again');
  const before = lines(folder);
  await expect.poll(() => lines(folder)).toBeGreaterThan(before + 3);
  expect(remaps(folder)).toEqual([]);
  await lab.kill(pid);
});

/** Those of this host: it has a pid namespace of its own. */
const killEngines = "for pid in $(pgrep -f '[s]wrk [0-9]'); do kill -9 $pid; done";

const listener =
  'my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 5); while (my $c = $s->accept) { print $c "pid $$"; close $c }';
const asker = 'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "refused: $!"; print <$s>';

async function startListener(
  host = lab.a,
  at: string | null = null,
): Promise<{ folder: string; pid: number; path: string }> {
  const { folder, pid } = newPlace();
  const path = at ?? join(folder, 'socket');
  await host.startAtHighPid(['perl', '-MIO::Socket::UNIX', '-e', listener, path], { pid, folder });
  await expect.poll(() => existsSync(host.outside(path))).toBe(true);
  return { folder, pid, path };
}

const ask = (host: LabHost, path: string): Promise<string> =>
  host.check(['perl', '-MIO::Socket::UNIX', '-e', asker, path]);

test('danger 44: the path of a listening unix socket leads to the source again after an abort at READY', async (context) => {
  skipUnlessPossible(context);
  const { folder, pid, path } = await startListener();
  expect(await ask(lab.a, path)).toBe(`pid ${pid}`);
  const command = await lab.migrateUpTo('held', pid, ['--id', 'socket-abort']);
  await lab.a.check(lab.a.phaulArgv(['cancel', 'socket-abort']));
  await lab.goOn();
  expect(await command.finished).toMatchObject({ exitCode: 4 });
  expect(await ask(lab.a, path)).toBe(`pid ${pid}`);
  expect(readdirSync(folder)).toEqual(['socket']);

  await lab.move(pid);
  expect(await ask(lab.b, path)).toBe(`pid ${pid}`);
  expect(readdirSync(folder)).toEqual(['socket']);
  await lab.kill(pid);
});

test('danger 44: the same when the agent of the destination dies at READY, after recovery', async (context) => {
  skipUnlessPossible(context);
  const { folder, pid, path } = await startListener();
  const command = await lab.migrateUpTo('held', pid, ['--id', 'socket-crash']);
  await lab.killAgentOfB();
  expect((await command.finished).exitCode).not.toBe(0);
  await lab.startAgentOfB();
  await lab.b.check(lab.b.phaulArgv(['recover', 'socket-crash']));
  await expect.poll(() => ask(lab.a, path).catch(String), { timeout: 20_000 }).toBe(`pid ${pid}`);
  expect(readdirSync(folder)).toEqual(['socket']);
  await lab.kill(pid);
});

test('danger 44: with separate file systems an abort leaves no socket behind; one that is served there is refused', async (context) => {
  skipUnlessPossible(context);
  const { pid, path } = await startListener(lab.a, '/run/of-the-tree');
  const command = await lab.migrateUpTo('held', pid, ['--id', 'socket-apart']);
  expect(existsSync(lab.b.outside(path))).toBe(true);
  await lab.a.check(lab.a.phaulArgv(['cancel', 'socket-apart']));
  await lab.goOn();
  expect(await command.finished).toMatchObject({ exitCode: 4 });
  await expect.poll(() => existsSync(lab.b.outside(path))).toBe(false);
  expect(await ask(lab.a, path)).toBe(`pid ${pid}`);

  const other = await startListener(lab.b, path);
  const { exitCode, stderr } = await lab.migrate(pid);
  expect(exitCode, stderr).toBe(3);
  expect(stderr).toContain('unix-path-taken');
  expect(await ask(lab.b, path)).toBe(`pid ${other.pid}`);
  for (const each of [pid, other.pid]) await lab.kill(each);
});
