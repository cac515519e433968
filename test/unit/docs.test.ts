/** What the documents list is what the code has. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { exitCode } from '../../src/cli/exit-codes.js';
import { addMigrateOptions } from '../../src/cli/migrate-options.js';
import { journalRecord } from '../../src/migration/journal.js';
import { packageRoot } from '../../src/native/addon.js';
import { FrameKind } from '../../src/pages/frame.js';

const read = (path: string): string => readFileSync(join(packageRoot, path), 'utf8');
const below = (folder: string, ending: string): string[] =>
  readdirSync(join(packageRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(ending))
    .map((path) => join(folder, path));
const sources = below('src', '.ts').filter((path) => !path.startsWith('src/gen/'));

/** Codes of failures (`code: '…'`) and of findings (first words of the checks' functions that make them). */
function codesIn(text: string): string[] {
  const codes: string[] = [];
  for (const [, one, other] of text.matchAll(/\bcode: (?:\w+ \? )?'([a-z0-9-]+)'(?: : '([a-z0-9-]+)')?/g))
    codes.push(...[one, other].filter((code) => code !== undefined));
  for (const [, one, other] of text.matchAll(/\bcode: [^?\n]*\? '([a-z0-9-]+)' : '([a-z0-9-]+)'/g))
    codes.push(...[one, other].filter((code) => code !== undefined));
  for (const call of text.matchAll(/\b(?:say|finding|refuse|tell|blocker)\(/g)) {
    const words = text.slice(call.index, call.index + 250).matchAll(/'([^'\n]*)'/g);
    const first = [...words].map(([, word = '']) => word).find((word) => !/^(blocker|warning|note)$/.test(word)) ?? '';
    if (/^[a-z0-9]+(-[a-z0-9]+)+$/.test(first)) codes.push(first);
  }
  return codes;
}

describe('docs/error-codes.md', () => {
  const documented = new Set([...read('docs/error-codes.md').matchAll(/`([a-z0-9-]+)`/g)].map(([, code]) => code));
  const inSource = new Set(sources.flatMap((path) => codesIn(read(path))));

  test('has every code of the source', () => {
    const missing = [...inSource].filter((code) => !documented.has(code) && !/^(lab|demo)-/.test(code));
    expect(missing.sort()).toEqual([]);
  });

  test('has no code that the source does not have', () => {
    const rows = read('docs/error-codes.md').split('\n');
    const inTables = rows.flatMap((row) =>
      [...(row.split('|')[1] ?? '').matchAll(/`([a-z0-9-]+)`/g)].map(([, code]) => code ?? ''),
    );
    expect(inTables.length).toBeGreaterThan(100);
    const text = sources.map(read).join('\n');
    expect(inTables.filter((code) => !text.includes(`'${code}'`))).toEqual([]);
  });
});

describe('docs/operations.md', () => {
  const text = read('docs/operations.md');

  test('has every option of migrate', () => {
    const options = addMigrateOptions(new Command()).options.map((option) => option.long ?? '');
    expect(options.length).toBeGreaterThan(25);
    expect(options.filter((option) => !text.includes(`\`${option}`))).toEqual([]);
  });

  test('has every exit code', () => {
    for (const code of Object.values(exitCode)) expect(text).toContain(`\n| ${code} | `);
  });

  test('has every key of the configuration, every variable of hooks, every kind of leftover', () => {
    const keys = /const file = z\.strictObject\(\{(.*?)\n\}\);/s.exec(read('src/agent/config.ts'))?.[1] ?? '';
    const names = [...keys.matchAll(/\b(\w+): (?:z|certifiedName|absolutePath)\b/g)].map(([, key]) => key ?? '');
    expect(names.length).toBeGreaterThan(8);
    expect(names.filter((name) => !text.includes(name))).toEqual([]);
    const variables = [...read('src/hooks/hooks.ts').matchAll(/\b(PHAUL_[A-Z]+):/g)].map(([, name]) => name ?? '');
    const kinds = [...read('src/agent/recovery/leftovers.ts').matchAll(/\bkind: '([a-z-]+)'/g)].map(
      ([, kind]) => kind ?? '',
    );
    expect([...variables, ...kinds].filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
    expect(variables.length * kinds.length).toBeGreaterThan(30);
  });
});

test('docs/protocol.md has every call, frame and record', () => {
  const text = read('docs/protocol.md');
  const calls = [...read('proto/phaul/v1/agent.proto').matchAll(/\n {2}rpc (\w+)/g)].map(([, name]) => name ?? '');
  expect(calls.length).toBeGreaterThan(15);
  expect(calls.filter((call) => !text.includes(`\`${call}\``))).toEqual([]);
  for (const [name, kind] of Object.entries(FrameKind))
    expect(text).toContain(`\n| ${kind} | \`${name.toUpperCase()}\``);
  for (const option of journalRecord.options) expect(text).toContain(`\n| \`${option.shape.record.value}\` | `);
});

test('links between documents lead somewhere', () => {
  const documents = ['README.md', 'CONTRIBUTING.md', ...below('docs', '.md')];
  for (const document of documents) {
    for (const [, target = ''] of read(document).matchAll(/\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)/g)) {
      if (target === '') continue;
      expect(existsSync(join(packageRoot, dirname(document), target)), `${target} in ${document}`).toBe(true);
    }
  }
});

test('README shows the output of the demo as it is today', () => {
  const report = read('src/demo/demo-report.ts');
  const titles = [...report.matchAll(/\bline\(\s*'([a-z ]+)'/g)].map(([, title = '']) => title);
  expect(titles.length).toBeGreaterThan(8);
  const missing = titles.filter((title) => title !== 'remark' && !read('README.md').includes(`\n      ${title} `));
  expect(missing).toEqual([]);
});
