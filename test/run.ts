/**
 * All checks of the project, one after the other: Biome, types, tests. Ends with `N passed, N failed, N skipped`.
 * Arguments choose test files as those of vitest do; then only these run.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../src/native/addon.js';
import { seed, soak } from './sample.js';
import type { ResultLine } from './summary-reporter.js';

/** For everything together, on two cores; a soak takes its time. */
const limitMs = soak ? 6 * 3_600_000 : 15 * 60_000;
const started = Date.now();

/** Runs one program of node_modules; true when it ends well within what is left of the time. */
async function runs(
  script: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<boolean> {
  const child = spawn(process.execPath, [join(packageRoot, 'node_modules', script), ...args], {
    cwd: packageRoot,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  const stop = setTimeout(
    () => {
      process.stdout.write(`\nthe time limit of ${limitMs / 60_000} minutes is over\n`);
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 10_000).unref();
    },
    limitMs - (Date.now() - started),
  );
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  clearTimeout(stop);
  return code === 0;
}

async function check(name: string, script: string, args: readonly string[]): Promise<ResultLine> {
  const well = await runs(script, args);
  return { name, state: well ? 'passed' : 'failed', note: well ? '' : 'see its messages above' };
}

async function tests(filters: readonly string[]): Promise<ResultLine[]> {
  const folder = mkdtempSync(join(tmpdir(), 'phaul-test-'));
  const summary = join(folder, 'results.jsonl');
  writeFileSync(summary, '');
  try {
    const args = ['run', '--config', 'test/vitest.config.ts', ...filters];
    const well = await runs('vitest/vitest.mjs', args, { PHAUL_TEST_SUMMARY: summary, PHAUL_SEED: String(seed) });
    const lines = readFileSync(summary, 'utf8').split('\n').filter(Boolean);
    const results = lines.map((line) => JSON.parse(line) as ResultLine);
    if (!well && !results.some((result) => result.state === 'failed')) {
      results.push({ name: 'vitest', state: 'failed', note: 'it did not end well: see its messages above' });
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Vitest skips the tests of a group or file whose hooks failed, without a word; groups that are skipped say why in their name. */
function silentReason(name: string): string {
  const need = /\((needs [^)]+)\)/.exec(name)?.[1];
  if (need !== undefined) return need;
  const group = inState('failed').find((failure) => name.startsWith(failure.name));
  return group === undefined ? 'no reason given' : `the set-up of ${group.name} failed`;
}

const filters = process.argv.slice(2);
process.stdout.write(`seed ${seed} (PHAUL_SEED), ${soak ? 'full counts' : 'sample'} (PHAUL_SOAK)\n`);
const results: ResultLine[] = [];
if (filters.length === 0) {
  results.push(await check('biome check', '@biomejs/biome/bin/biome', ['check', '--error-on-warnings', '.']));
  results.push(await check('types', 'typescript/bin/tsc', ['-p', 'tsconfig.json', '--noEmit']));
}
results.push(...(await tests(filters)));

const inState = (state: ResultLine['state']): ResultLine[] => results.filter((result) => result.state === state);
for (const { name, note } of inState('skipped'))
  process.stdout.write(`skipped: ${name}: ${note || silentReason(name)}\n`);
for (const { name, note } of inState('failed')) process.stdout.write(`failed: ${name}: ${note.split('\n')[0]}\n`);
process.stdout.write(
  `${inState('passed').length} passed, ${inState('failed').length} failed, ${inState('skipped').length} skipped\n`,
);
process.exitCode = inState('failed').length > 0 ? 1 : 0;
