/** The checks of the source against real processes. */
import { linkSync, mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, test } from 'vitest';
import { identitiesOf, readStat, treeOf } from '../../src/host/tasks.js';
import { defaultEngineOptions } from '../../src/migration/order.js';
import { inspectTree } from '../../src/preflight/inspect-tree.js';
import { parseTreeFacts } from '../../src/preflight/tree-facts.js';
import { blockers, eventually, idle, inspect, orderFor, PerlProgram, ready, TestFolder } from './preflight-support.js';

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('the checks read /proc of other users: needs root');
});

describe('the pid itself', () => {
  test('a quiet process in its own session has nothing against it', async () => {
    using folder = new TestFolder();
    await using perl = await PerlProgram.start(folder, idle);
    await using inspection = await inspect(perl.pid);
    expect(inspection.findings.filter((finding) => finding.weight !== 'note')).toEqual([]);
    expect(inspection.tree.tasks).toEqual(identitiesOf([perl.pid]));
    expect(inspection.needs).toEqual({ fileLocks: false, linkRemap: false, ghostLimit: null, extUnixSk: false });
    const facts = parseTreeFacts(inspection.facts);
    expect(facts.files.find((file) => file.uses.includes('exe'))?.buildId).toMatch(/^[0-9a-f]{40}$/);
    expect(facts.memory.private).toBeGreaterThan(100_000);
    expect(inspection.memoryBytes).toBeGreaterThan(facts.memory.private);
  });

  test('no process, pid 1, the agent, a tree around it, a kernel thread', async () => {
    const codeOf = async (pid: number) => blockers((await inspect(pid)).findings);
    expect(await codeOf(4_194_303)).toEqual(['pid-not-found']);
    expect(await codeOf(1)).toEqual(['pid-is-init']);
    expect(await codeOf(process.pid)).toEqual(['pid-is-agent']);
    if (process.ppid > 1) expect(await codeOf(process.ppid)).toEqual(['pid-is-agent']);
    const kernelThread = readdirSync('/proc')
      .map(Number)
      .find((pid) => pid > 2 && readStat(pid)?.parent === 2);
    if (kernelThread !== undefined) expect(await codeOf(kernelThread)).toEqual(['pid-is-kernel-thread']);
  });

  test('a zombie', async () => {
    using folder = new TestFolder();
    const text = `my $pid = fork; exit 0 unless $pid; open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; ${idle}`;
    await using perl = await PerlProgram.start(folder, text);
    const zombie = Number(readFileSync(folder.in('child'), 'utf8'));
    await eventually(() => readStat(zombie)?.state === 'Z');
    expect(blockers((await inspect(zombie)).findings)).toEqual(['pid-is-zombie']);
    // Inside a tree it travels like any other.
    expect(blockers((await inspect(perl.pid)).findings)).toEqual([]);
  });

  test('a thread', async () => {
    const thread = readdirSync(`/proc/${process.pid}/task`)
      .map(Number)
      .find((each) => each !== process.pid);
    const [finding] = (await inspect(thread ?? 0)).findings;
    expect(finding?.code).toBe('pid-is-thread');
    expect(finding?.remedy).toContain(String(process.pid));
  });

  test('another migration has it (danger 6)', async () => {
    using folder = new TestFolder();
    await using perl = await PerlProgram.start(folder, idle);
    const look = async (startTime: number) => {
      const open = [{ id: 'other', tasks: [{ pid: perl.pid, startTime }] }];
      await using inspection = await inspectTree(orderFor(perl.pid), 'here', AbortSignal.timeout(10_000), open);
      return blockers(inspection.findings);
    };
    const startTime = readStat(perl.pid)?.startTime ?? 0;
    expect(await look(startTime)).toEqual(['already-migrating']);
    // danger 8: another process that had this pid once is none of its business.
    expect(await look(startTime - 1)).toEqual([]);
  });
});

test('danger 54: children of other threads belong to the tree', async (context) => {
  using folder = new TestFolder();
  const script = `import threading, subprocess, os, time
def run():
    child = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL)
    open(os.environ["DIR"] + "/child", "w").write(str(child.pid))
    open(os.environ["READY"], "w").close()
    time.sleep(1000)
threading.Thread(target=run).start()
time.sleep(1000)`;
  const perl = `my $python = (grep { -x } "/usr/bin/python3", "/usr/local/bin/python3")[0] or exit 9; exec $python, "-c", $ENV{SCRIPT};`;
  process.env['SCRIPT'] = script;
  let program: PerlProgram;
  try {
    program = await PerlProgram.start(folder, `$ENV{SCRIPT} = q{${script}}; ${perl}`);
  } catch {
    return context.skip('needs a python3 of the system');
  } finally {
    delete process.env['SCRIPT'];
  }
  await using held = program;
  const child = Number(readFileSync(folder.in('child'), 'utf8'));
  const first = readFileSync(`/proc/${held.pid}/task/${held.pid}/children`, 'utf8');
  expect(first.split(' ').map(Number)).not.toContain(child);
  expect(treeOf(held.pid)).toContain(child);
});

describe('danger 12: things shared with outsiders', () => {
  test('a pipe is named by pid and descriptor; --stdio lifts descriptors 0-2, --inherit-fd any', async () => {
    using folder = new TestFolder();
    await using perl = await PerlProgram.start(folder, idle, { stdio: ['ignore', 'pipe', 'ignore'] });
    await using inspection = await inspect(perl.pid);
    const finding = inspection.findings.find((each) => each.code === 'pipe-shared' || each.code === 'socket-shared');
    // Node gives its children socket pairs or pipes, as it pleases: both are refused.
    const found = finding ?? inspection.findings.find((each) => each.code === 'unix-peer-outside');
    expect(found).toMatchObject({ weight: 'blocker', pid: perl.pid, fd: 1 });
  });

  test('a real pipe between two trees', async () => {
    using folder = new TestFolder();
    // The parent keeps the reading end; the tree that moves is the child, in a session of its own.
    const text = `use POSIX "setsid"; pipe(my $r, my $w); my $pid = fork; if (!$pid) { setsid(); close $r; open(STDOUT, ">&", $w); close $w; ${idle} }
      close $w; open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; sleep 1000 while 1;`;
    await using parent = await PerlProgram.start(folder, text);
    await eventually(() => readFileSync(folder.in('child'), 'utf8') !== '');
    const child = Number(readFileSync(folder.in('child'), 'utf8'));
    await using inspection = await inspect(child);
    expect(blockers(inspection.findings)).toEqual(['pipe-shared']);
    const finding = inspection.findings.find((each) => each.code === 'pipe-shared');
    expect(finding).toMatchObject({ pid: child, fd: 1 });
    expect(finding?.what).toContain(`pid ${parent.pid} (perl)`);
    await using rewired = await inspect(child, { stdio: { kind: 'null' } });
    expect(blockers(rewired.findings)).toEqual([]);
    const pipe = /pipe:\[\d+\]/.exec(finding?.what ?? '')?.[0] ?? '';
    const engine = { ...defaultEngineOptions, inheritFd: [`/dev/null:${pipe}`] };
    await using named = await inspect(child, { engine });
    expect(blockers(named.findings)).toEqual([]);
    // The same pipe inside one tree is fine.
    await using whole = await inspect(parent.pid);
    expect(blockers(whole.findings)).toEqual([]);
  });

  test('a unix connection whose other end stays, and a shared anonymous mapping', async () => {
    using folder = new TestFolder();
    const text = `use POSIX "setsid"; use Socket; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0); my $pid = fork;
      if (!$pid) { setsid(); close $a; ${idle} } close $b; open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; sleep 1000 while 1;`;
    await using parent = await PerlProgram.start(folder, text);
    await eventually(() => readFileSync(folder.in('child'), 'utf8') !== '');
    const child = Number(readFileSync(folder.in('child'), 'utf8'));
    await using inspection = await inspect(child);
    expect(blockers(inspection.findings)).toEqual(['unix-peer-outside']);
    expect(inspection.findings.find((each) => each.code === 'unix-peer-outside')?.what).toContain(`pid ${parent.pid}`);
    await using whole = await inspect(parent.pid);
    expect(blockers(whole.findings)).toEqual([]);
  });
});

test('danger 42: a lease is refused, and named', async () => {
  using folder = new TestFolder();
  writeFileSync(folder.in('leased'), 'x');
  const lease = 'my ($setLease, $read) = (1024, 0); fcntl($l, $setLease, $read) or die "$!";';
  await using perl = await PerlProgram.start(folder, `open(my $l, "<", "$ENV{DIR}/leased"); ${lease} ${idle}`);
  await using inspection = await inspect(perl.pid);
  expect(blockers(inspection.findings)).toEqual(['file-lease']);
  expect(inspection.findings.find((each) => each.code === 'file-lease')?.what).toContain(folder.in('leased'));
});

test('danger 9: a parent that starts its children again', async () => {
  using folder = new TestFolder();
  const text = `use POSIX "setsid"; open(my $c, ">", "/proc/self/comm"); print $c "supervisord"; close $c;
    my $pid = fork; if (!$pid) { setsid(); open(my $d, ">", "/proc/self/comm"); print $d "worker"; close $d; ${idle} }
    open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; sleep 1000 while 1;`;
  await using _supervisor = await PerlProgram.start(folder, text);
  await eventually(() => readFileSync(folder.in('child'), 'utf8') !== '');
  const child = Number(readFileSync(folder.in('child'), 'utf8'));
  await using refused = await inspect(child);
  expect(blockers(refused.findings)).toEqual(['supervised']);
  await using forced = await inspect(child, { force: true });
  expect(forced.findings.find((each) => each.code === 'supervised')?.weight).toBe('warning');
});

test('what is harmless is set by itself and said: locks, deleted files, other names', async () => {
  using folder = new TestFolder();
  mkdirSync(folder.in('data'));
  const text = `use Fcntl ":flock"; my $d = "$ENV{DIR}/data";
    open(my $l, ">", "$d/locked"); flock($l, LOCK_EX);
    open(my $g, "+>", "$d/ghost"); truncate($g, 3 << 20); syswrite($g, "x" x (2 << 20)); unlink "$d/ghost";
    open(my $k, "+>", "$d/linked"); ${idle}`;
  await using perl = await PerlProgram.start(folder, text);
  linkSync(folder.in('data/linked'), folder.in('data/other-name'));
  unlinkSync(folder.in('data/linked'));
  await using inspection = await inspect(perl.pid);
  expect(inspection.needs).toMatchObject({ fileLocks: true, linkRemap: true });
  expect(inspection.needs.ghostLimit).toBeGreaterThanOrEqual(3 << 20);
  const notes = inspection.findings.filter((each) => each.weight === 'note').map((each) => each.code);
  expect(notes).toEqual(expect.arrayContaining(['file-locks-set', 'link-remap-set', 'ghost-limit-set']));
  expect(blockers(inspection.findings)).toEqual([]);
  const facts = parseTreeFacts(inspection.facts);
  expect(facts.locks).toMatchObject([{ pid: perl.pid, kind: 'FLOCK', path: folder.in('data/locked') }]);
  expect(facts.linkRemaps).toEqual([folder.in('data/linked')]);
  expect(facts.ghosts.map((ghost) => ghost.path)).toEqual([folder.in('data/ghost')]);
});

test('a process that is traced, and one that is no session leader', async () => {
  using folder = new TestFolder();
  await using inSession = await PerlProgram.start(folder, idle, { detached: false });
  await using inspection = await inspect(inSession.pid);
  expect(blockers(inspection.findings)).toEqual(['session-outside']);
  await using shellJob = await inspect(inSession.pid, { shellJob: true });
  expect(blockers(shellJob.findings)).toEqual([]);

  const ptrace = process.arch === 'x64' ? 101 : 117;
  const seize = 16902;
  const text = `my $pid = fork; if (!$pid) { use POSIX "setsid"; setsid(); sleep 1000 while 1; }
    select(undef, undef, undef, 0.1); syscall(${ptrace}, ${seize}, $pid, 0, 0) == 0 or die "$!";
    open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; ${idle}`;
  await using _tracer = await PerlProgram.start(folder, text);
  const child = Number(readFileSync(folder.in('child'), 'utf8'));
  await using traced = await inspect(child);
  expect(blockers(traced.findings)).toEqual(['traced']);
});

test('danger 17d: looking does not disturb: no system call of the process is interrupted', async () => {
  using folder = new TestFolder();
  // Counts every early return of select(2); a dump that is rolled back causes one.
  const text = `${ready} my $n = 0; while (1) { my $r = select(undef, undef, undef, 30); $n++;
    open(my $f, ">", "$ENV{DIR}/interrupted"); print $f $n; close $f; }`;
  await using perl = await PerlProgram.start(folder, text);
  for (let look = 0; look < 5; look++) {
    await using inspection = await inspect(perl.pid);
    expect(inspection.tree.tasks).toHaveLength(1);
  }
  await delay(100);
  expect(() => readFileSync(folder.in('interrupted'))).toThrow(/ENOENT/);
  expect(readStat(perl.pid)?.state).toBe('S');
});
