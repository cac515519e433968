/** The checks of the destination: this machine plays a host with another kernel, to which a real tree wants to come. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { readStat } from '../../src/host/tasks.js';
import type { MigrationOrder } from '../../src/migration/order.js';
import type { Finding } from '../../src/migration/ports.js';
import { checkDestination, checkPids } from '../../src/preflight/destination-checks.js';
import { writtenFilesToCompare } from '../../src/preflight/file-checks.js';
import { findingsOf } from '../../src/preflight/finding.js';
import { parseTreeFacts, type TreeFacts } from '../../src/preflight/tree-facts.js';
import { compareWrittenFiles, hashWrittenFiles } from '../../src/preflight/written-files.js';
import {
  asFromElsewhere,
  blockers,
  eventually,
  idle,
  inspect,
  orderFor,
  PerlProgram,
  TestFolder,
} from './preflight-support.js';

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('the checks read /proc of other users: needs root');
});

const say = findingsOf('there');
const soon = (): AbortSignal => AbortSignal.timeout(20_000);

async function check(
  facts: TreeFacts,
  changes: Partial<MigrationOrder> = {},
  place: { comparesFrozenFiles?: boolean; stateFolder?: string } = {},
): Promise<readonly Finding[]> {
  const where = { host: 'there', stateFolder: '/tmp', comparesFrozenFiles: false, ...place };
  return await checkDestination(facts, orderFor(1, changes), where, soon());
}

/** The same tree as seen from a host where `from` lies at `to`. */
function moved(facts: TreeFacts, from: string, to: string): TreeFacts {
  const place = (path: string): string => path.replace(from, to);
  return { ...facts, files: facts.files.map((file) => ({ ...file, path: place(file.path) })) };
}

/** A program that has `$DIR/a/file` open as told (`<`, `>>`), and a copy of that folder at `b`. */
async function withFile(folder: TestFolder, mode: string): Promise<PerlProgram> {
  mkdirSync(folder.in('a'));
  mkdirSync(folder.in('b'));
  writeFileSync(folder.in('a/file'), 'the same content');
  copyFileSync(folder.in('a/file'), folder.in('b/file'));
  return await PerlProgram.start(folder, `open(my $f, "${mode}", "$ENV{DIR}/a/file") or die; ${idle}`);
}

test('a quiet process can come; not to where it already is', async () => {
  using folder = new TestFolder();
  await using perl = await PerlProgram.start(folder, idle);
  await using inspection = await inspect(perl.pid);
  expect(blockers(await check(asFromElsewhere(inspection)))).toEqual([]);
  expect(blockers(await check(parseTreeFacts(inspection.facts)))).toEqual(['same-host']);
});

describe('danger 11: files that only look the same', () => {
  test('a file that is only read is compared by content, not by name and size', async () => {
    using folder = new TestFolder();
    await using perl = await withFile(folder, '<');
    await using inspection = await inspect(perl.pid);
    const facts = moved(asFromElsewhere(inspection), folder.in('a'), folder.in('b'));
    expect(blockers(await check(facts))).toEqual([]);
    writeFileSync(folder.in('b/file'), 'a stranger, same');
    expect(blockers(await check(facts))).toEqual(['file-differs']);
    expect(blockers(await check(facts, { filesAreSame: true }))).toEqual([]);
    rmSync(folder.in('b/file'));
    // Even who says that files are the same must have them.
    expect(blockers(await check(facts, { filesAreSame: true }))).toEqual(['file-missing']);
  });

  test('a program is compared by its build id', async () => {
    using folder = new TestFolder();
    await using perl = await PerlProgram.start(folder, idle);
    await using inspection = await inspect(perl.pid);
    const facts = asFromElsewhere(inspection);
    const other = facts.files.map((file) => (file.uses.includes('exe') ? { ...file, buildId: '00'.repeat(20) } : file));
    expect(blockers(await check({ ...facts, files: other }))).toEqual(['file-differs']);
  });

  test('a file that is written to is proved by a nonce beside it, which is gone afterwards', async () => {
    using folder = new TestFolder();
    await using perl = await withFile(folder, '>>');
    const nonces = (): string[] => readdirSync(folder.in('a')).filter((name) => name.startsWith('.phaul-nonce'));
    {
      await using inspection = await inspect(perl.pid);
      expect(nonces()).toEqual(['.phaul-nonce-m-test']);
      const facts = asFromElsewhere(inspection);
      expect(blockers(await check(facts))).toEqual([]);
      // The nonce of another run, in a folder of the same name, proves nothing.
      const stale = facts.nonces.map((nonce) => ({ ...nonce, content: '0'.repeat(32) }));
      expect(blockers(await check({ ...facts, nonces: stale }))).toEqual(['file-unproved']);
      await inspection[Symbol.asyncDispose]();
      // What was seen once stays proved.
      expect(blockers(await check(facts))).toEqual([]);
    }
    expect(nonces()).toEqual([]);
  });

  test('on another file system it is compared while frozen, or refused', async () => {
    using folder = new TestFolder();
    await using perl = await withFile(folder, '>>');
    await using inspection = await inspect(perl.pid);
    const facts = moved(asFromElsewhere(inspection), folder.in('a'), folder.in('b'));
    expect(blockers(await check(facts))).toEqual(['file-unproved']);
    const later = await check(facts, {}, { comparesFrozenFiles: true });
    expect(blockers(later)).toEqual([]);
    expect(later.map((finding) => finding.code)).toContain('file-compared-when-frozen');

    const paths = (await writtenFilesToCompare(facts)).map((file) => file.path);
    expect(paths).toEqual([folder.in('b/file')]);
    const there = (await hashWrittenFiles(parseTreeFacts(inspection.facts), soon())).replaceAll(
      folder.in('a'),
      folder.in('b'),
    );
    await compareWrittenFiles(there, paths, soon());
    writeFileSync(folder.in('b/file'), 'a stranger, same');
    await expect(compareWrittenFiles(there, paths, soon())).rejects.toMatchObject({ code: 'file-differs' });
    // Not named by the source: not proved either.
    await expect(compareWrittenFiles('[]', paths, soon())).rejects.toMatchObject({ code: 'file-differs' });
  });

  test('without a nonce the same inode on one kernel is the same file', async () => {
    using folder = new TestFolder();
    await using perl = await withFile(folder, '>>');
    await using inspection = await inspect(perl.pid);
    const facts = { ...parseTreeFacts(inspection.facts), pidNamespace: 1, tasks: [], nonces: [] };
    expect(blockers(await check(facts))).toEqual([]);
    renameSync(folder.in('b/file'), folder.in('a/file'));
    expect(blockers(await check(facts))).toEqual(['file-unproved']);
  });
});

test('danger 43: a FIFO that both hosts share on one kernel is refused', async () => {
  using folder = new TestFolder();
  mkdirSync(folder.in('a'));
  mkdirSync(folder.in('b'));
  const text = `use POSIX "mkfifo"; mkfifo("$ENV{DIR}/$_/fifo", 0600) for "a", "b"; open(my $f, "+<", "$ENV{DIR}/a/fifo") or die; ${idle}`;
  await using perl = await PerlProgram.start(folder, text);
  await using inspection = await inspect(perl.pid);
  const here = { ...parseTreeFacts(inspection.facts), pidNamespace: 1, tasks: [] };
  expect(blockers(await check(here))).toEqual(['fifo-on-one-kernel']);
  expect(blockers(await check(moved(here, folder.in('a'), folder.in('b'))))).toEqual([]);
  expect(blockers(await check(asFromElsewhere(inspection)))).toEqual([]);
});

describe('danger 17c: pids of the tree that are taken here', () => {
  const facts = (task: Partial<TreeFacts['tasks'][number]>): TreeFacts =>
    ({
      tasks: [
        { pid: 4_000_001, comm: 'x', processGroup: 4_000_001, session: 4_000_001, threads: [4_000_001], ...task },
      ],
    }) as TreeFacts;
  const codes = (task: Partial<TreeFacts['tasks'][number]>, shellJob = false) =>
    blockers(checkPids(facts(task), shellJob, say).filter((finding) => finding.code !== 'pid-too-high'));

  test('by a process, by a thread, and by a group whose leader has ended', async () => {
    using folder = new TestFolder();
    expect(codes({})).toEqual([]);
    expect(codes({ threads: [4_000_001, process.pid] })).toEqual(['pid-taken']);
    const thread =
      readdirSync(`/proc/${process.pid}/task`)
        .map(Number)
        .find((each) => each !== process.pid) ?? 0;
    expect(codes({ threads: [4_000_001, thread] })).toEqual(['pid-taken']);
    const text = `my $pid = fork; if ($pid) { select(undef, undef, undef, 0.01) until -e $ENV{READY}; exit 0 } open(my $f, ">", "$ENV{DIR}/orphan"); print $f $$; close $f; ${idle}`;
    const perl = await PerlProgram.start(folder, text);
    await eventually(() => readStat(perl.pid) === null);
    const orphan = Number(readFileSync(folder.in('orphan'), 'utf8'));
    try {
      expect(existsSync(`/proc/${perl.pid}`)).toBe(false);
      expect(codes({ processGroup: perl.pid })).toEqual(['pid-taken']);
      // With --shell-job the group of the shell is not restored.
      expect(codes({ processGroup: perl.pid }, true)).toEqual([]);
    } finally {
      process.kill(orphan, 'SIGKILL');
    }
  });

  test('a pid beyond the range of this host', () => {
    expect(checkPids(facts({ threads: [4_194_304] }), false, say).map((finding) => finding.code)).toContain(
      'pid-too-high',
    );
  });
});

test('memory and disk', async () => {
  using folder = new TestFolder();
  await using perl = await PerlProgram.start(folder, idle);
  await using inspection = await inspect(perl.pid);
  const facts = asFromElsewhere(inspection, { memory: { resident: 1e16, private: 1e16 } });
  expect(blockers(await check(facts, {}, { stateFolder: join(folder.path, 'not/made/yet') }))).toEqual([
    'disk-full',
    'memory-full',
  ]);
});
