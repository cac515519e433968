/** What a tree shares with processes that stay, one habit each, and what must not be mistaken for it. */
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { cgroupMount } from '../../src/host/cgroup.js';
import type { MigrationOrder } from '../../src/migration/order.js';
import type { Finding } from '../../src/migration/ports.js';
import { inspectTree, type TreeInspection } from '../../src/preflight/inspect-tree.js';
import { serviceOf } from '../../src/preflight/supervisor.js';
import { Actor, type ActorScript, orderOf } from './preflight-actors.js';

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('the checks read /proc of other users: needs root');
});

async function inspect(pid: number, more: Partial<MigrationOrder> = {}): Promise<TreeInspection> {
  const inspection = await inspectTree(orderOf(pid, more), 'here', new AbortController().signal);
  await inspection[Symbol.asyncDispose]();
  return inspection;
}

function blockers({ findings }: TreeInspection): Pick<Finding, 'code' | 'pid' | 'fd'>[] {
  return findings.filter(({ weight }) => weight === 'blocker').map(({ code, pid, fd }) => ({ code, pid, fd }));
}

const codes = (inspection: TreeInspection): string[] => blockers(inspection).map(({ code }) => code);

describe('danger 12: what an outsider holds too', () => {
  const cases: readonly (ActorScript & { name: string; code: string; fd: number | null })[] = [
    {
      name: 'a pipe',
      before: 'r, w = os.pipe()',
      child: 'os.dup2(w, 40); os.close(r); os.close(w)',
      parent: 'os.close(w)',
      code: 'pipe-shared',
      fd: 40,
    },
    {
      name: 'a stream to a process that stays',
      before: 'a, b = socket.socketpair()',
      child: 'os.dup2(a.fileno(), 40); a.close(); b.close()',
      parent: 'a.close()',
      code: 'unix-peer-outside',
      fd: 40,
    },
    {
      name: 'an inherited listener',
      before: 's = socket.socket(socket.AF_UNIX); s.bind(folder + "/s"); s.listen()',
      child: 'os.dup2(s.fileno(), 40); s.close()',
      code: 'socket-shared',
      fd: 40,
    },
    {
      name: 'a FIFO',
      before: 'os.mkfifo(folder + "/fifo"); f = os.open(folder + "/fifo", os.O_RDWR)',
      child: 'os.dup2(f, 40); os.close(f)',
      code: 'fifo-shared',
      fd: 40,
    },
    {
      name: 'a memory file',
      before: 'm = os.memfd_create("shared")',
      child: 'os.dup2(m, 40); os.close(m)',
      code: 'memory-shared',
      fd: 40,
    },
    { name: 'anonymous shared memory', before: 'm = mmap.mmap(-1, 4096)', code: 'memory-shared', fd: null },
  ];

  test.for(cases)('$name is a blocker', async ({ code, fd, ...script }) => {
    await using actor = await Actor.start(script);
    const inspection = await inspect(actor.pid);
    expect(blockers(inspection)).toEqual([{ code, pid: actor.pid, fd }]);
    const told = inspection.findings.find((finding) => finding.code === code);
    expect(told?.what).toContain(String(actor.parentPid));
  });

  test('a terminal is a blocker until --shell-job', async () => {
    await using actor = await Actor.start({
      before: 'master, slave = os.openpty()',
      child: 'os.dup2(slave, 0); os.close(slave); os.close(master)',
    });
    expect(codes(await inspect(actor.pid))).toContain('terminal-outside');
    expect(codes(await inspect(actor.pid, { shellJob: true }))).toEqual([]);
  });

  test('what only the tree holds is none, whatever it is', async () => {
    await using actor = await Actor.start({
      child: `
r, w = os.pipe(); a, b = socket.socketpair(); m = mmap.mmap(-1, 4096); d = os.memfd_create("own")
os.mkfifo(folder + "/own"); f = os.open(folder + "/own", os.O_RDWR); s = socket.socket(socket.AF_UNIX); s.bind(folder + "/s"); s.listen()
master, slave = os.openpty(); half, gone = socket.socketpair(); gone.close()
if os.fork() == 0:
    os.close(r); a.close(); time.sleep(1000)`,
    });
    const inspection = await inspect(actor.pid);
    expect(codes(inspection)).toEqual([]);
    expect(inspection.tree.tasks).toHaveLength(2);
  });
});

describe('danger 9: systemd would start a second copy', () => {
  test('a process in a unit is a blocker, only --force lifts it', async (context) => {
    const { mount, reason } = cgroupMount();
    if (mount === null) return context.skip(reason);
    await using actor = await Actor.start({});
    const unit = join(mount, `phaul-test-${actor.pid}.service`);
    mkdirSync(unit);
    try {
      writeFileSync(join(unit, 'cgroup.procs'), String(actor.pid));
      expect(codes(await inspect(actor.pid))).toEqual(['supervised-by-systemd']);
      // Nobody masks the unit yet: until then the option lifts nothing.
      expect(codes(await inspect(actor.pid, { stopUnit: true }))).toEqual(['supervised-by-systemd']);
      expect(codes(await inspect(actor.pid, { force: true }))).toEqual([]);
    } finally {
      writeFileSync(join(mount, 'cgroup.procs'), String(actor.pid));
      rmdirSync(unit);
    }
  });

  test.each([
    ['0::/system.slice/redis.service', 'redis.service'],
    ['0::/system.slice/redis.service/phaul-m1', 'redis.service'],
    ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope', null],
    ['0::/user.slice/user-1000.slice/session-3.scope', null],
    ['4:memory:/a.service\n1:name=systemd:/system.slice/old.service\n0::/', 'old.service'],
    ['0::/', null],
  ])('of %j the unit is %s', (cgroups, unit) => expect(serviceOf(cgroups)).toBe(unit));
});

test('a kind of descriptor that the engine does not know is a blocker', async () => {
  await using actor = await Actor.start({ child: 'os.dup2(libc.syscall(323, 0), 40)' });
  expect(new Set(codes(await inspect(actor.pid)))).toEqual(new Set(['unsupported-descriptor']));
});

test('a child in namespaces of its own is a blocker, a tree with its own System V IPC is not', async () => {
  await using nested = await Actor.start({
    child: 'if os.fork() == 0:\n    libc.unshare(0x40000000); time.sleep(1000)\ntime.sleep(0.2)',
  });
  expect(codes(await inspect(nested.pid))).toEqual(['nested-namespaces']);
  await using own = await Actor.start({ child: 'libc.unshare(0x08000000)' });
  expect(codes(await inspect(own.pid))).toEqual([]);
});

test('danger 22: children born during the look are no outsiders', { timeout: 30_000 }, async () => {
  await using actor = await Actor.start({
    child: `
m = mmap.mmap(-1, 4096); r, w = os.pipe(); s = socket.socket(socket.AF_UNIX); s.bind(folder + "/s"); s.listen()
def breed():
    while True:
        born = os.fork()
        if born == 0:
            time.sleep(0.02); os._exit(0)
        os.waitpid(born, 0)
for _ in range(3): threading.Thread(target=breed, daemon=True).start()
time.sleep(0.1)`,
  });
  for (let look = 0; look < 4; look++) expect(codes(await inspect(actor.pid))).toEqual([]);
});
