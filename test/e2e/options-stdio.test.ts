/** `--stdio`, `--shell-job`, `--inherit-fd`: what becomes of a program's pipes and terminals whose other end stays. */
import { existsSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
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

test('--stdio file: a folder that is not there is refused before the freeze; the program goes on', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  const { exitCode, stderr } = await lab.migrate(ticker.pid, ['--stdio', 'file:/nowhere/output']);
  expect(exitCode, stderr).not.toBe(0);
  expect(stderr).toContain('stdio-file-wrong');
  const before = ticker.numbers('outside-out', 'out').length;
  await ticks(ticker, 'outside-out').toBeGreaterThan(before + 3);
});

test('--stdio file: an abort leaves no file behind', async (context) => {
  skipUnlessPossible(context);
  await using ticker = await lab.ticker('pipes');
  const file = join(ticker.folder, 'inside');
  const { exitCode, stderr } = await lab.migrate(ticker.pid, [
    '--stdio',
    `file:${file}`,
    '--inherit-fd',
    '/nowhere:pipe:[1]',
  ]);
  expect(exitCode, stderr).not.toBe(0);
  expect(stderr).toContain('inherit-fd-wrong');
  expect(existsSync(file)).toBe(false);
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
