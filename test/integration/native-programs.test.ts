import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/native/addon.js';

const built = (name: string): string => join(packageRoot, 'build', name);

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i += 1) {
    if (condition()) return;
    await delay(10);
  }
  throw new Error('it did not come true within 5 s');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

describe('prlimit preload', () => {
  /** Reads all limits of a pid, by prlimit(2) of the C library and by its syscall(2), as CRIU does. */
  const READ_LIMITS = `
import ctypes, json, resource, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
pair = (ctypes.c_uint64 * 2)()
def by_syscall(which, new=None):
    failed = libc.syscall(ctypes.c_long(302), ctypes.c_long(pid), ctypes.c_long(which), new, ctypes.byref(pair))
    return -ctypes.get_errno() if failed else [str(pair[0]), str(pair[1])]
def by_library(which):
    try: return [str(value % 2**64) for value in resource.prlimit(pid, which)]
    except PermissionError: return -1
def unknown(number):
    return libc.syscall(ctypes.c_long(number)), ctypes.get_errno()
print(json.dumps({
    'library': [by_library(which) for which in range(16)], 'syscall': [by_syscall(which) for which in range(16)],
    'set': by_syscall(7, ctypes.byref((ctypes.c_uint64 * 2)(1, 1))), 'beyond': by_syscall(16),
    'unknown': unknown(100000),
}))`;

  interface Limits {
    library: (string[] | number)[];
    syscall: (string[] | number)[];
    set: number;
    beyond: number;
    unknown: [number, number];
  }

  /** Always without CAP_SYS_RESOURCE, also on a host that has it. */
  function read(pid: number, preload: string | null): Limits {
    const dropped = [
      '--bounding-set=-sys_resource',
      '--inh-caps=-sys_resource',
      'python3',
      '-c',
      READ_LIMITS,
      `${pid}`,
    ];
    const env = preload === null ? process.env : { ...process.env, LD_PRELOAD: preload };
    const child = spawnSync('setpriv', dropped, { encoding: 'utf8', env });
    if (child.status !== 0) throw new Error(`setpriv: ${child.stderr}`);
    return JSON.parse(child.stdout) as Limits;
  }

  test('reads the limits of a process of another user where the kernel refuses it, and nothing else', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('needs root, to start a process of another user');
    if (process.arch !== 'x64') return context.skip('the preload is written for x86-64');
    const limits = 'ulimit -S -n 123; ulimit -H -n 456; ulimit -S -c 0; exec sleep 60';
    const other = spawn('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', 'sh', '-c', limits]);
    try {
      const pid = other.pid ?? 0;
      await until(() => readFileSync(`/proc/${pid}/comm`, 'latin1').startsWith('sleep'));
      const refused = read(pid, null);
      expect([refused.library[7], refused.syscall[7]]).toEqual([-1, -1]);

      const answered = read(pid, built('prlimit-preload.so'));
      expect(answered.library[7]).toEqual(['123', '456']);
      expect(answered.syscall).toEqual(answered.library);
      const expected = readFileSync(`/proc/${pid}/limits`, 'latin1')
        .split('\n')
        .slice(1, 17)
        .map((line) => [line.slice(26, 46), line.slice(47, 67)].map((limit) => limit.trim()))
        .map((pair) => pair.map((limit) => (limit === 'unlimited' ? `${2n ** 64n - 1n}` : limit)));
      // /proc lists by name what the numbers order otherwise.
      expect(answered.syscall.map(String).sort()).toEqual(expected.map(String).sort());
      expect([answered.set, answered.beyond, ...answered.unknown]).toEqual([-1, -1, -1, 38]);
    } finally {
      await end(other);
    }
  });
});

describe('reaper', () => {
  const start = (): ChildProcess => spawn('unshare', ['--pid', '--fork', '--kill-child', built('phaul-reaper')]);

  /** Its pid as this host sees it: the one child of unshare. */
  async function pidOf(unshare: ChildProcess): Promise<number> {
    let children: string[] = [];
    await until(() => {
      children = readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, 'latin1').trim().split(' ');
      const [child] = children;
      return (
        child !== undefined && child !== '' && readFileSync(`/proc/${child}/comm`, 'latin1').startsWith('phaul-reaper')
      );
    });
    return Number(children[0]);
  }

  test('reaps the orphans of its namespace without being busy, and ends at SIGTERM', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('needs root, for a pid namespace');
    const unshare = start();
    try {
      const pid = await pidOf(unshare);
      const orphans = 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1 & sleep 0.2 & done';
      const made = spawnSync('nsenter', ['-t', `${pid}`, '-p', 'sh', '-c', orphans], { stdio: 'ignore' });
      expect(made.status).toBe(0);
      const children = (): string => readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
      expect(children().split(' ').length).toBeGreaterThan(1);
      await until(() => children() === '');
      const [, , , , , , , , , , , , , user, system] = readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ');
      expect(Number(user) + Number(system)).toBeLessThanOrEqual(2);

      // What a terminal sends to everybody is not for pid 1.
      process.kill(pid, 'SIGINT');
      await delay(30);
      expect(readdirSync('/proc')).toContain(`${pid}`);
      process.kill(pid, 'SIGTERM');
      const [code] = (await once(unshare, 'exit')) as [number | null];
      expect(code).toBe(0);
    } finally {
      await end(unshare);
    }
  });
});

test('the native core is clean under AddressSanitizer and UndefinedBehaviorSanitizer', {
  timeout: 120_000,
}, (context) => {
  const compiler = ['-fsanitize=address,undefined', '-x', 'c++', '-o', '/dev/null', '-'];
  const probe = spawnSync('c++', compiler, { input: 'int main() { return 0; }', encoding: 'utf8' });
  if (probe.status !== 0) return context.skip('the compiler has no sanitizers here');
  const check = spawnSync('make', ['-s', '-C', join(packageRoot, 'native'), 'check-sanitized'], { encoding: 'utf8' });
  expect(check.stderr).toBe('');
  expect(check.stdout).toContain('core: all well');
  expect(check.status).toBe(0);
});
