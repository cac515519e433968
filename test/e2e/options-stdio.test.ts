/** `--stdio`, `--shell-job`, `--inherit-fd`: what becomes of a program's pipes and terminals whose other end stays. */
import { existsSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';
import type { LabHost } from '../../src/lab/lab-host.js';
import { findCriu } from '../targets/in-place.js';
import { OptionsLab, type Ticker } from './options-lab.js';

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

const ticks = (ticker: Ticker, file: string, word: 'out' | 'err' = 'out') =>
  expect.poll(() => ticker.numbers(file, word).length, { timeout: 5000 });

/** The numbers of both files are one row: nothing was lost, doubled or overwritten. */
function expectOneRow(ticker: Ticker, before: string, after: string, word: 'out' | 'err'): void {
  const row = [...ticker.numbers(before, word), ...ticker.numbers(after, word)];
  expect(row).toEqual(row.map((_, index) => index + 1));
}

function descriptor(host: LabHost, pid: number, fd: number): string {
  return readlinkSync(host.outside(`/proc/${pid}/fd/${fd}`));
}

async function keepers(host: LabHost): Promise<number> {
  return (await host.processes()).filter(({ name }) => name === 'phaul-terminal').length;
}

test('danger 12: --stdio keep: pipes to outsiders are refused', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  await ticks(ticker, 'outside-out').toBeGreaterThan(3);
  const { exitCode, stderr } = await lab.migrate(ticker.pid);
  expect(exitCode, stderr).toBe(3);
  expect(stderr).toContain('pipe-shared');
});

test('--stdio null: pipes become /dev/null', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  await ticks(ticker, 'outside-out').toBeGreaterThan(3);
  await lab.move(ticker.pid, ['--stdio', 'null']);
  for (const fd of [0, 1, 2]) expect(descriptor(lab.b, ticker.pid, fd)).toBe('/dev/null');
  expect(lab.b.isAlive(ticker.pid)).toBe(true);
  expectOneRow(ticker, 'outside-out', 'none', 'out');
});

test('--stdio file: both outputs go on at the end of the file', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  const file = join(ticker.folder, 'inside');
  writeFileSync(file, 'what was there\n');
  await ticks(ticker, 'outside-err', 'err').toBeGreaterThan(3);
  await lab.move(ticker.pid, ['--stdio', `file:${file}`]);
  await ticks(ticker, file, 'err').toBeGreaterThan(3);
  expect(readFileSync(file, 'utf8')).toMatch(/^what was there\n/);
  for (const word of ['out', 'err'] as const) expectOneRow(ticker, `outside-${word}`, file, word);
  expect(descriptor(lab.b, ticker.pid, 0)).toBe('/dev/null');
});

test.each([
  { flags: ['--stdio', 'file:/nowhere/output'], code: 'stdio-file-wrong' },
  { flags: ['--stdio', 'file:/run'], code: 'stdio-file-wrong' },
  { flags: ['--stdio', 'null', '--inherit-fd', '/nowhere:pipe:[1]'], code: 'inherit-fd-wrong' },
])('$flags: refused by the checks', async ({ flags, code }) => {
  if (reason !== null) return;
  await using ticker = await lab.ticker('pipes');
  const { exitCode, stderr } = await lab.migrate(ticker.pid, [...flags, '--dry-run']);
  expect(exitCode, stderr).toBe(3);
  expect(stderr).toContain(`(${code})`);
});

test('--stdio file: an abort leaves no file and no keeper behind, the program goes on', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('terminal');
  const file = join(ticker.folder, 'inside');
  const hooks = join(ticker.folder, 'hooks');
  mkdirSync(hooks, { mode: 0o700 });
  writeFileSync(join(hooks, 'refuse'), '#!/bin/sh\n[ "$PHAUL_PHASE" != freeze ]\n', { mode: 0o700 });
  const { exitCode, stderr } = await lab.migrate(ticker.pid, ['--stdio', `file:${file}`, '--hook', hooks]);
  expect(exitCode, stderr).toBe(1);
  expect(stderr).toContain('hook-refused');
  expect(existsSync(file)).toBe(false);
  await expect.poll(() => keepers(lab.b)).toBe(0);
  const before = ticker.numbers('outside-out', 'out').length;
  await ticks(ticker, 'outside-out').toBeGreaterThan(before + 3);
});

test('--external and --inherit-fd: a file of the destination takes the place of an open file', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('files');
  const file = join(ticker.folder, 'second');
  writeFileSync(file, '');
  await ticks(ticker, 'first').toBeGreaterThan(3);
  const { ino } = statSync(join(ticker.folder, 'first'));
  const info = readFileSync(lab.a.outside(`/proc/${ticker.pid}/fdinfo/1`), 'utf8');
  const key = `file[${Number(/mnt_id:\s+(\d+)/.exec(info)?.[1]).toString(16)}:${ino.toString(16)}]`;
  await lab.move(ticker.pid, ['--external', key, '--inherit-fd', `${file}:${key}`]);
  await ticks(ticker, file).toBeGreaterThan(3);
  expectOneRow(ticker, 'first', file, 'out');
});

test('--inherit-fd: a file of the destination takes the place of a pipe', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  const file = join(ticker.folder, 'inherited');
  writeFileSync(file, '');
  await ticks(ticker, 'outside-out').toBeGreaterThan(3);
  const pipe = descriptor(lab.a, ticker.pid, 1);
  await lab.move(ticker.pid, ['--stdio', 'null', '--inherit-fd', `${file}:${pipe}`]);
  await ticks(ticker, file).toBeGreaterThan(3);
  expectOneRow(ticker, 'outside-out', file, 'out');
  expect(descriptor(lab.b, ticker.pid, 2)).toBe('/dev/null');
});

test.each(['null', 'file'] as const)('--stdio %s: a session leader on a terminal gets another one', async (kind) => {
  if (reason !== null) return;
  await using ticker = await lab.ticker('terminal');
  const file = join(ticker.folder, 'inside');
  await ticks(ticker, 'outside-out').toBeGreaterThan(3);
  await lab.move(ticker.pid, ['--stdio', kind === 'file' ? `file:${file}` : 'null']);
  expect(lab.b.isAlive(ticker.pid)).toBe(true);
  expect(descriptor(lab.b, ticker.pid, 1)).toMatch(/^\/dev\/pts\//);
  if (kind === 'file') {
    await ticks(ticker, file).toBeGreaterThan(3);
    for (const word of ['out', 'err'] as const) expectOneRow(ticker, 'outside-out', file, word);
  }
  expect(await keepers(lab.b)).toBe(1);
  await lab.kill(ticker.pid);
  await expect.poll(() => keepers(lab.b)).toBe(0);
});

test('--shell-job --stdio file: what a job writes on its terminal goes to the file', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('terminal');
  const file = join(ticker.folder, 'inside');
  await ticks(ticker, 'outside-out').toBeGreaterThan(3);
  await lab.move(ticker.pid, ['--shell-job', '--stdio', `file:${file}`]);
  await ticks(ticker, file).toBeGreaterThan(3);
  expectOneRow(ticker, 'outside-out', file, 'out');
});
