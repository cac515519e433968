/** This host's cgroups, pidfds and identities, for real; and the rescue of sockets from repair mode (dangers.md 2). */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, test } from 'vitest';
import { cgroupMount, cgroupOf, LeafCgroup } from '../../src/host/cgroup.js';
import { TaskHandle } from '../../src/host/pidfd.js';
import { endRepairMode } from '../../src/host/repair.js';
import { identitiesOf, isSameTask, readStat, treeIdentity, treeOf } from '../../src/host/tasks.js';
import { eventually, idle, PerlProgram, ready, TestFolder } from './preflight-support.js';

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('cgroups and pidfds of others need root');
});

/** A leaf that is gone after the test, with whatever is in it. */
class TestLeaf implements AsyncDisposable {
  readonly leaf: LeafCgroup;

  private constructor(leaf: LeafCgroup) {
    this.leaf = leaf;
  }

  static make(): TestLeaf | null {
    const { mount } = cgroupMount();
    return mount === null
      ? null
      : new TestLeaf(LeafCgroup.create(mount, `phaul-test-${randomBytes(4).toString('hex')}`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.leaf.kill();
    await this.leaf.remove();
  }
}

/** Counts in a file; forks a child that does nothing each time it is told by SIGUSR1. */
const counting = `${ready} $SIG{USR1} = sub { if (!fork) { sleep 1000 while 1 } }; my $n = 0;
  while (1) { open(my $f, ">", "$ENV{DIR}/count"); print $f $n++; close $f; select(undef, undef, undef, 0.005); }`;

function countIn(folder: TestFolder): number {
  return existsSync(folder.in('count')) ? Number(readFileSync(folder.in('count'), 'utf8')) : 0;
}

describe('leaf cgroup', () => {
  test('danger 1: a frozen tree does not run, dies by one word, and newborns with it', async (context) => {
    using folder = new TestFolder();
    await using made = TestLeaf.make();
    if (made === null) return context.skip('needs a writable cgroup v2');
    const { leaf } = made;
    await using perl = await PerlProgram.start(folder, counting);
    const { mount } = cgroupMount();
    const before = cgroupOf(perl.pid, mount ?? '');
    leaf.moveIn(treeOf(perl.pid));
    process.kill(perl.pid, 'SIGUSR1');
    await eventually(() => leaf.members().length === 2);
    await leaf.freeze();
    const frozenAt = countIn(folder);
    await delay(100);
    expect(countIn(folder)).toBe(frozenAt);
    expect(leaf.frozen).toBe(true);

    // Whoever comes after a crash knows it by its path only.
    LeafCgroup.at(leaf.path).thaw();
    await eventually(() => countIn(folder) > frozenAt + 3);
    leaf.moveBack([{ pid: perl.pid, cgroup: before ?? '' }]);
    expect(cgroupOf(perl.pid, mount ?? '')).toBe(before);
    expect(leaf.members()).toEqual([]);

    leaf.moveIn(treeOf(perl.pid));
    const tree = identitiesOf(treeOf(perl.pid));
    expect(tree).toHaveLength(2);
    await leaf.freeze();
    leaf.kill();
    const lastCount = countIn(folder);
    // The kill alone: nobody thaws it, nothing runs once more.
    await eventually(() => tree.every((task) => !isSameTask(task)));
    expect(countIn(folder)).toBe(lastCount);
    await leaf.remove();
    expect(leaf.exists).toBe(false);
    await leaf.remove();
  });
});

describe('identity', () => {
  test('danger 5, 8: another process with the same pid is not the one that was meant', async () => {
    using folder = new TestFolder();
    await using perl = await PerlProgram.start(folder, idle);
    const [task] = identitiesOf([perl.pid]);
    if (task === undefined) throw new Error('no identity');
    const stranger = { ...task, startTime: task.startTime - 1 };
    expect(isSameTask(task)).toBe(true);
    expect(isSameTask(stranger)).toBe(false);
    expect(TaskHandle.open(stranger)).toBeNull();
    using handle = TaskHandle.open(task);
    if (handle === null) throw new Error('no handle');
    expect(handle.signal(0)).toBe(true);
    const exited = handle.exited();
    perl.child.kill('SIGKILL');
    await exited;
    await once(perl.child, 'exit').catch(() => undefined);
    await eventually(() => readStat(perl.pid) === null);
    expect(isSameTask(task)).toBe(false);
    expect(handle.signal(9)).toBe(false);
  });

  test('a zombie has ended; a tree that is gone has no tasks', async () => {
    using folder = new TestFolder();
    const text = `my $pid = fork; if (!$pid) { exit 0 } open(my $f, ">", "$ENV{DIR}/child"); print $f $pid; close $f; ${idle}`;
    await using _parent = await PerlProgram.start(folder, text);
    const zombie = Number(readFileSync(folder.in('child'), 'utf8'));
    await eventually(() => readStat(zombie)?.state === 'Z');
    expect(isSameTask(identitiesOf([zombie])[0] ?? { pid: 0, startTime: 0 })).toBe(false);
    expect(treeIdentity(4_194_303).tasks).toEqual([]);
  });
});

const criu = '/opt/phaul-criu/bin/criu';

/** Two ends of one TCP connection in a network namespace of their own; the server can be dumped. */
class Conversation implements AsyncDisposable {
  readonly enter: readonly string[];
  readonly server: PerlProgram;
  readonly #keeper: ChildProcess;
  readonly #client: ChildProcess;
  readonly #answers: string[] = [];

  private constructor(keeper: ChildProcess, enter: readonly string[], server: PerlProgram, client: ChildProcess) {
    this.enter = enter;
    this.server = server;
    this.#keeper = keeper;
    this.#client = client;
    if (client.stdout !== null) createInterface(client.stdout).on('line', (line) => this.#answers.push(line));
  }

  static async start(folder: TestFolder): Promise<Conversation> {
    const command = 'ip link set lo up && echo up && exec sleep infinity';
    const keeper = spawn('unshare', ['--net', 'sh', '-c', command], { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(keeper.stdout, 'data', { signal: AbortSignal.timeout(5000) });
    const enter = ['nsenter', `--net=/proc/${keeper.pid}/ns/net`];
    const serve = `use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:7001", Listen => 5, ReuseAddr => 1) or die;
      ${ready} my $c = $l->accept; $c->autoflush(1); while (my $line = <$c>) { print $c "answer to $line" } sleep 1000 while 1;`;
    const server = await PerlProgram.start(folder, serve, { prefix: enter });
    const ask = `use IO::Socket::INET; $| = 1; my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:7001") or die; $s->autoflush(1);
      while (my $q = <STDIN>) { print $s $q; my $a = <$s>; defined $a or do { print "broken\\n"; exit }; print $a }`;
    const client = spawn(enter[0] ?? '', [...enter.slice(1), 'perl', '-e', ask], { stdio: ['pipe', 'pipe', 'ignore'] });
    return new Conversation(keeper, enter, server, client);
  }

  /** Null when no answer comes in time. */
  async ask(question: string, ms: number): Promise<string | null> {
    const before = this.#answers.length;
    this.#client.stdin?.write(`${question}\n`);
    for (const deadline = Date.now() + ms; Date.now() < deadline && this.#answers.length === before; ) await delay(5);
    return this.#answers[before] ?? null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.kill('SIGKILL');
    await this.server[Symbol.asyncDispose]();
    this.#keeper.kill('SIGKILL');
  }
}

/** A criu that has dumped the server and sits in `post-dump`. Returns how to kill it there. */
async function dumpAndHold(conversation: Conversation, folder: TestFolder): Promise<() => Promise<void>> {
  mkdirSync(folder.in('images'));
  const script = `#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0\necho $$ > ${folder.in('held')}\nexec sleep 1000\n`;
  writeFileSync(folder.in('hold.sh'), script, { mode: 0o755 });
  const dump = ['dump', '-t', String(conversation.server.pid), '-D', folder.in('images'), '-o', 'dump.log'];
  const options = ['--tcp-established', '--network-lock', 'skip', '--action-script', folder.in('hold.sh')];
  const [program = '', ...words] = [...conversation.enter, criu, ...dump, ...options];
  const held = spawn(program, words, { stdio: 'ignore', detached: true });
  const isHeld = (): boolean => existsSync(folder.in('held')) && readFileSync(folder.in('held'), 'utf8').endsWith('\n');
  await eventually(() => isHeld() || held.exitCode !== null, 15_000);
  if (!isHeld()) throw new Error(readFileSync(folder.in('images/dump.log'), 'utf8').slice(-2000));
  return async () => {
    const gone = once(held, 'exit');
    held.kill('SIGKILL');
    await gone;
    process.kill(Number(readFileSync(folder.in('held'), 'utf8')), 'SIGKILL');
  };
}

describe('danger 2: CRIU killed while it holds a dump', () => {
  test.for([{ rescued: true }, { rescued: false }])(
    'connections live on if and only if repair mode is ended ($rescued)',
    async ({ rescued }, context) => {
      if (!existsSync(criu)) return context.skip('needs the private CRIU (./phaul setup)');
      if (cgroupMount().mount === null) return context.skip('needs a writable cgroup v2');
      using folder = new TestFolder();
      await using made = TestLeaf.make();
      await using conversation = await Conversation.start(folder);
      const { pid } = conversation.server;
      expect(await conversation.ask('one', 5000)).toBe('answer to one');
      if (made === null) throw new Error('no leaf');
      made.leaf.moveIn([pid]);
      const kill = await dumpAndHold(conversation, folder);
      await made.leaf.freeze();
      await kill();
      expect(made.leaf.frozen).toBe(true);
      const tasks = identitiesOf([pid]);
      if (rescued) expect(endRepairMode(tasks)).toBe(1);
      made.leaf.thaw();
      expect(await conversation.ask('two', rescued ? 5000 : 1000)).toBe(rescued ? 'answer to two' : null);
      expect(endRepairMode(tasks)).toBe(rescued ? 0 : 1);
    },
  );
});
