/** Hooks as real programs. */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Hooks } from '../../src/hooks/hooks.js';
import { readStat } from '../../src/host/tasks.js';

let folder = '';

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('hooks run as root');
  folder = mkdtempSync(join(tmpdir(), 'phaul-hooks-'));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function hook(name: string, body: string, mode = 0o755): string {
  const path = join(folder, 'hooks', name);
  mkdirSync(join(folder, 'hooks'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, mode);
  return path;
}

function hooks(...folders: string[]): Hooks {
  return new Hooks({
    folders: folders.length === 0 ? [join(folder, 'hooks')] : folders,
    id: 'm-1',
    role: 'source',
    pid: 4711,
    imagesFolder: '/images',
    addresses: ['10.0.0.9', 'fd00::9'],
  });
}

const log = (): string => join(folder, 'log');

describe('hooks', () => {
  test('run in the order of their names, with the migration in their environment and nothing of the agent', async () => {
    process.env['PHAUL_SECRET_OF_THE_AGENT'] = 'x';
    try {
      hook('20-second', `env >> ${log()}`);
      hook('10-first', `echo first >> ${log()}`);
      hook('15-not-executable', `echo wrong >> ${log()}`, 0o644);
      hook('.10-hidden', `echo wrong >> ${log()}`);
      hook('10-first~', `echo wrong >> ${log()}`);
      await hooks().run('before-freeze');
      const lines = readFileSync(log(), 'utf8').split('\n');
      expect(lines[0]).toBe('first');
      expect(lines).toEqual(
        expect.arrayContaining([
          'PHAUL_ID=m-1',
          'PHAUL_PHASE=before-freeze',
          'PHAUL_PID=4711',
          'PHAUL_ROLE=source',
          'PHAUL_IMAGES=/images',
          'PHAUL_ADDRESSES=10.0.0.9 fd00::9',
        ]),
      );
      expect(lines.join('\n')).not.toContain('SECRET');
      expect(lines.join('\n')).not.toContain('wrong');
    } finally {
      delete process.env['PHAUL_SECRET_OF_THE_AGENT'];
    }
  });

  test('one that refuses ends the run, with the end of what it said', async () => {
    hook('10-refuses', 'yes filler | head -c 100000; echo "the balancer is not ready" >&2; exit 3');
    hook('20-later', `echo later >> ${log()}`);
    const failure = await hooks()
      .run('before-freeze')
      .catch((thrown: unknown) => thrown);
    expect(failure).toMatchObject({ code: 'hook-refused' });
    const { message } = failure as Error;
    expect(message).toContain('10-refuses refused with exit code 3 at phase before-freeze');
    expect(message).toMatch(/the balancer is not ready$/);
    expect(message.length).toBeLessThan(2300);
    expect(() => readFileSync(log())).toThrow();
  });

  test('after the line all are run and failures are told', async () => {
    hook('10-fails', 'exit 1');
    hook('20-later', `echo later >> ${log()}`);
    expect(await hooks().report('running')).toEqual([
      'phase running: the hook 10-fails refused with exit code 1 at phase running',
    ]);
    expect(readFileSync(log(), 'utf8')).toBe('later\n');
  });

  test('one that hangs is killed with its children when the migration is cancelled', async () => {
    hook('10-hangs', `sleep 300 & echo $! > ${log()}; wait`);
    const cancel = new AbortController();
    const run = hooks().run('before-freeze', cancel.signal);
    run.catch(() => undefined);
    const child = await numberIn(log());
    cancel.abort(new Error('cancelled'));
    await expect(run).rejects.toThrow('cancelled');
    await expect.poll(() => readStat(child)?.state ?? 'gone').toMatch(/gone|Z/);
  });

  test('one that leaves a child behind which holds its output does not hold the migration', async () => {
    hook('10-daemon', `sleep 300 & echo $! > ${log()}; echo started`);
    const from = Date.now();
    await hooks().run('before-freeze');
    expect(Date.now() - from).toBeLessThan(3000);
    process.kill(await numberIn(log()), 'SIGKILL');
  });

  test('a program that cannot be started refuses', async () => {
    const path = hook('10-broken', '');
    writeFileSync(path, '#!/no/such/interpreter\n');
    await expect(hooks().run('before-freeze')).rejects.toMatchObject({ code: 'hook-refused' });
  });

  test.each([
    ['writable by all', (path: string) => chmodSync(path, 0o757)],
    ['writable by its group', (path: string) => chmodSync(path, 0o775)],
    ['not of root', (path: string) => chownSync(path, 65534, 65534)],
    ['in a folder that others can write', () => chmodSync(join(folder, 'hooks'), 0o777)],
  ])('one that is %s is not run', async (_, spoil) => {
    spoil(hook('10-unsafe', `echo ran >> ${log()}`));
    await expect(hooks().run('before-freeze')).rejects.toMatchObject({ code: 'hook-not-safe' });
    expect(await hooks().report('running')).toHaveLength(1);
    expect(() => readFileSync(log())).toThrow();
  });

  test('a link to a file that is not safe is not run', async () => {
    hook('10-link-target', `echo ran >> ${log()}`);
    chownSync(join(folder, 'hooks', '10-link-target'), 65534, 65534);
    const linked = join(folder, 'linked');
    mkdirSync(linked);
    symlinkSync(join(folder, 'hooks', '10-link-target'), join(linked, '10-link'));
    await expect(hooks(linked).run('before-freeze')).rejects.toMatchObject({ code: 'hook-not-safe' });
  });

  test('without hooks a phase costs next to nothing', async () => {
    const none = hooks(join(folder, 'not-there'));
    await none.run('first');
    const from = performance.now();
    for (let phase = 0; phase < 1000; phase++) await none.run('again');
    expect(performance.now() - from).toBeLessThan(200);
  });
});

async function numberIn(path: string): Promise<number> {
  for (let attempt = 0; attempt < 300; attempt++) {
    try {
      const text = readFileSync(path, 'utf8');
      if (text.endsWith('\n')) return Number(text);
    } catch {
      // Not written yet.
    }
    await delay(10);
  }
  throw new Error(`nothing was written to ${path}`);
}
