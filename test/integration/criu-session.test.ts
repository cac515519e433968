/** Conversations with a real CRIU about a real process. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Engine, findEngine } from '../../src/criu/engine.js';
import { decodeDumpStatistics, decodeInventory } from '../../src/criu/image-records.js';
import type { DumpOptions, SelfDumpOptions } from '../../src/criu/options.js';
import { EngineSession } from '../../src/criu/session.js';
import { cgroupMount } from '../../src/host/cgroup.js';
import { readStat } from '../../src/host/tasks.js';
import { packageRoot } from '../../src/native/addon.js';
import { dumpableNode } from '../dumpable-node.js';
import { agree, Counter, eventually, Folder, NetworkNamespace, openSession } from './criu-support.js';

let engine: Engine | null = null;
let reason = '';

beforeAll(async () => {
  try {
    engine = await findEngine(null);
  } catch (thrown) {
    reason = String(thrown);
  }
});

/** A test that needs a CRIU; without one it is skipped with the reason. */
function withEngine(name: string, body: (engine: Engine) => Promise<void>): void {
  test(name, async (context) => {
    if (engine === null) return context.skip(reason);
    await body(engine);
  });
}

function dumpOptions(pid: number, imagesDir: string): DumpOptions {
  return { pid, imagesDir, logFile: 'dump.log', logLevel: 2, networkLock: 'skip', manageCgroups: 'ignore' };
}

function restoreOptions(imagesDir: string) {
  return { imagesDir, logFile: 'restore.log', logLevel: 2, networkLock: 'skip', manageCgroups: 'ignore' } as const;
}

async function dumped(engine: Engine, folder: Folder): Promise<Counter> {
  const counter = await Counter.start(folder);
  const { session, imagesDir } = openSession(engine, folder);
  await using _ = session;
  await session.dump(dumpOptions(counter.pid, imagesDir), agree);
  await counter.isGone();
  return counter;
}

describe('one session', () => {
  withEngine('is primed, then dumps; another restores, and the program goes on where it was', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const asked: string[] = [];
    {
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      expect(await session.version()).toEqual(engine.version);
      const features = await session.featureCheck();
      expect(typeof features.memTrack).toBe('boolean');
      await session.dump(dumpOptions(counter.pid, imagesDir), ({ script }) => {
        asked.push(script);
        return { success: true };
      });
      expect(session.answered).toBe(true);
      expect(session.timeline.map(({ step }) => step)).toEqual([
        ...['version', 'version done', 'feature-check', 'feature-check done', 'dump'],
        ...asked.flatMap((script) => [script, `${script} answered`]),
        'dump done',
      ]);
      expect(session.timeline.map(({ at }) => at)).toEqual(session.timeline.map(({ at }) => at).sort());
    }
    expect(asked).toEqual(['pre-dump', 'query-ext-files', 'post-dump']);
    await counter.isGone();
    const count = counter.count();
    expect(decodeInventory(readFileSync(join(folder.path, 'inventory.img'))).dump_criu_run_id).toMatch(
      /^[0-9a-f-]{36}$/,
    );
    expect(decodeDumpStatistics(readFileSync(join(folder.path, 'stats-dump'))).pages_written).toBeGreaterThan(0n);

    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await session.featureCheck();
    const restored = await session.restore(restoreOptions(imagesDir), ({ script, pid }) => {
      asked.push(script);
      if (script === 'post-restore') expect(pid).toBe(counter.pid);
      return { success: true };
    });
    expect(restored.pid).toBe(counter.pid);
    expect(asked.slice(3)).toEqual(['pre-restore', 'post-restore', 'pre-resume', 'post-resume']);
    await counter.goesOn();
    expect(counter.count()).toBeGreaterThan(count);
  });

  withEngine(
    'danger 2: runs in a session of its own, with our descriptors closed, in the cgroup asked for',
    async (engine) => {
      const { mount } = cgroupMount();
      const cgroup = mount === null ? null : join(mount, `phaul-criu-test-${process.pid}`);
      if (cgroup !== null) mkdirSync(cgroup);
      try {
        // An earlier session must not keep the later one's socket open, nor the other way round.
        await using first = EngineSession.start({ engine, cgroup: null, inherit: [], logFolder: null });
        await using second = EngineSession.start({ engine, cgroup, inherit: [], logFolder: null });
        await first.version();
        await second.version();
        for (const { pid } of [first, second]) {
          expect(readStat(pid)?.session).toBe(pid);
          const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
          expect(fds.filter((target) => target.startsWith('socket:'))).toHaveLength(1);
          expect(fds.filter((target) => target.startsWith('anon_inode:[eventpoll]'))).toHaveLength(0);
        }
        if (cgroup !== null)
          expect(readFileSync(`/proc/${second.pid}/cgroup`, 'utf8')).toContain(`/phaul-criu-test-${process.pid}`);
        first.closeSocket();
        await first.exited;
        await second.featureCheck();
      } finally {
        if (cgroup !== null && existsSync(cgroup)) rmdirSync(cgroup);
      }
    },
  );

  withEngine('that cannot enter its cgroup says so', async (engine) => {
    await using session = EngineSession.start({ engine, cgroup: '/nonexistent', inherit: [], logFolder: null });
    await expect(session.version()).rejects.toMatchObject({
      code: 'engine-gone',
      message: expect.stringMatching(/cgroup/),
    });
  });

  withEngine('takes one request at a time', async (engine) => {
    await using session = EngineSession.start({ engine, cgroup: null, inherit: [], logFolder: null });
    const first = session.version();
    await expect(session.version()).rejects.toThrow(/still busy/);
    await first;
  });
});

describe('whom it dumps', () => {
  withEngine('a process of another user, limits and all', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder, 65_534);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await session.dump(dumpOptions(counter.pid, imagesDir), agree);
    await counter.isGone();
    const { session: second, imagesDir: again } = openSession(engine, folder);
    await using __ = second;
    await second.restore(restoreOptions(again), agree);
    await counter.goesOn();
    expect(readFileSync(`/proc/${counter.pid}/status`, 'utf8')).toMatch(/^Uid:\t65534\t65534/m);
  });

  test('itself, and wakes up restored', async (context) => {
    if (engine === null) return context.skip(reason);
    const program = join(packageRoot, 'dist/test/integration/criu-self-dump.js');
    if (dumpableNode !== process.execPath)
      return context.skip('this node holds io_uring descriptors: CRIU cannot dump it');
    if (!existsSync(program)) return context.skip('not built: npm run build:ts');
    using folder = new Folder();
    const args = [program, folder.path, JSON.stringify(engine)];
    const env = { PATH: process.env['PATH'], UV_USE_IO_URING: '0' };
    const child = spawn(process.execPath, args, { detached: true, stdio: 'ignore', cwd: '/', env });
    try {
      const [code, signal] = await once(child, 'exit');
      const told = () =>
        readFileSync(join(folder.path, 'told'), 'utf8')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line));
      expect({ code, signal, told: told().length }).toEqual({ code: null, signal: 'SIGKILL', told: 1 });
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      await session.restore(restoreOptions(imagesDir), agree);
      await eventually(() => told().length === 2);
      expect(told()[1]).toEqual({ restored: true, memory: told()[0].memory });
    } finally {
      child.kill('SIGKILL');
    }
  });
});

describe('a dump that does not happen leaves the program running', () => {
  for (const script of ['pre-dump', 'query-ext-files', 'post-dump']) {
    withEngine(`refused at ${script}`, async (engine) => {
      using folder = new Folder();
      using counter = await Counter.start(folder);
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      const dump = session.dump(dumpOptions(counter.pid, imagesDir), (asked) => ({ success: asked.script !== script }));
      await expect(dump).rejects.toMatchObject({ name: 'CriuError' });
      expect(session.answered).toBe(true);
      await counter.goesOn();
    });
  }

  withEngine('when the handler throws, which is what the request throws', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const trouble = new Error('the other host is gone');
    const dump = session.dump(dumpOptions(counter.pid, imagesDir), ({ script }) => {
      if (script === 'post-dump') throw trouble;
      return { success: true };
    });
    await expect(dump).rejects.toBe(trouble);
    expect(session.answered).toBe(true);
    await counter.goesOn();
  });

  withEngine('when we hang up in the hold', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const dump = session.dump(dumpOptions(counter.pid, imagesDir), ({ script }) => {
      if (script === 'post-dump') session.closeSocket();
      return { success: true };
    });
    await expect(dump).rejects.toMatchObject({ code: 'engine-gone', message: expect.stringMatching(/hung up/) });
    expect(session.answered).toBe(false);
    await counter.goesOn();
  });

  // CRIU's own fault injection: 1 dies with the parasite in the process, 3 fails amid the memory.
  for (const [fault, code] of [
    ['1', 'engine-gone'],
    ['3', 'engine-failed'],
  ] as const) {
    withEngine(`when CRIU fails inside (fault ${fault})`, async (engine) => {
      using folder = new Folder();
      using counter = await Counter.start(folder);
      process.env['CRIU_FAULT'] = fault;
      const { session, imagesDir } = openSession(engine, folder);
      delete process.env['CRIU_FAULT'];
      await using _ = session;
      await expect(session.dump(dumpOptions(counter.pid, imagesDir), agree)).rejects.toMatchObject({ code });
      await counter.goesOn();
    });
  }

  withEngine('when CRIU is killed in the hold, which is told', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const dump = session.dump(dumpOptions(counter.pid, imagesDir), async ({ script }) => {
      if (script === 'post-dump') {
        process.kill(session.pid, 'SIGKILL');
        await session.exited;
      }
      return { success: true };
    });
    await expect(dump).rejects.toMatchObject({
      code: 'engine-gone',
      message: expect.stringMatching(/killed by SIGKILL/),
    });
    expect(session.answered).toBe(false);
    await counter.goesOn();
  });
});

describe('a restore', () => {
  withEngine('refused at post-restore leaves no copy, and can be repeated', async (engine) => {
    using folder = new Folder();
    using counter = await dumped(engine, folder);
    {
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      const restore = session.restore(restoreOptions(imagesDir), ({ script }) => ({
        success: script !== 'post-restore',
      }));
      await expect(restore).rejects.toMatchObject({ name: 'CriuError' });
    }
    await counter.isGone();
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await session.restore(restoreOptions(imagesDir), agree);
    await counter.goesOn();
  });

  withEngine('that we hang up on at post-restore leaves no copy', async (engine) => {
    using folder = new Folder();
    using counter = await dumped(engine, folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const restore = session.restore(restoreOptions(imagesDir), ({ script }) => {
      if (script === 'post-restore') session.closeSocket();
      return { success: true };
    });
    await expect(restore).rejects.toMatchObject({ code: 'engine-gone' });
    await counter.isGone();
  });

  withEngine('refused at pre-resume runs all the same: the hold must be before it', async (engine) => {
    using folder = new Folder();
    using counter = await dumped(engine, folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await session.restore(restoreOptions(imagesDir), ({ script }) => ({ success: script !== 'pre-resume' }));
    await counter.goesOn();
  });
});

describe('errors carry the cause from the log', () => {
  withEngine('a unix stream to a process that stays', async (engine) => {
    using folder = new Folder();
    // Node's own pipe is such a stream.
    const child = spawn('/usr/bin/perl', ['-e', 'sleep 60 while 1'], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
      cwd: '/',
    });
    try {
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      const failure = await session
        .dump(dumpOptions(child.pid ?? -1, imagesDir), agree)
        .catch((thrown: unknown) => thrown);
      expect(failure).toMatchObject({ name: 'CriuError', code: 'external-unix-socket' });
      expect((failure as { logTail: string[] }).logTail.join('\n')).toMatch(/unix/);
      expect(readStat(child.pid ?? -1)?.state).toMatch(/[RS]/);
    } finally {
      child.kill('SIGKILL');
    }
  });

  withEngine('a pid that does not exist', async (engine) => {
    using folder = new Folder();
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await expect(session.dump(dumpOptions(4_000_001, imagesDir), agree)).rejects.toMatchObject({
      code: 'pid-not-found',
    });
  });

  withEngine('a pid that is taken', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    {
      const { session, imagesDir } = openSession(engine, folder);
      await using _ = session;
      await session.dump({ ...dumpOptions(counter.pid, imagesDir), leaveRunning: true }, agree);
    }
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await expect(session.restore(restoreOptions(imagesDir), agree)).rejects.toMatchObject({ code: 'pid-taken' });
    await counter.goesOn();
  });

  withEngine('images that are not there', async (engine) => {
    using folder = new Folder();
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await expect(session.restore(restoreOptions(imagesDir), agree)).rejects.toMatchObject({ code: 'image-damaged' });
  });
});

describe('other requests', () => {
  withEngine('CPUINFO is written and compared in one session', async (engine) => {
    using folder = new Folder();
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const options = { imagesDir, cpuCap: 0xffff_ffff, logFile: 'cpu.log' };
    await session.cpuinfoDump(options);
    expect(existsSync(join(folder.path, 'cpuinfo.img'))).toBe(true);
    await session.cpuinfoCheck(options);
  });

  withEngine('CHECK answers', async (engine) => {
    using folder = new Folder();
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    await session.check({ imagesDir, logFile: 'check.log' });
  });

  withEngine('a page server child takes the memory of a dump, and its end is told', async (engine) => {
    using network = await NetworkNamespace.make();
    using folder = new Folder();
    using received = new Folder();
    using counter = await Counter.start(folder, 0, network.enter);
    const { session: server, imagesDir: store } = openSession(engine, received, network.enter);
    await using _ = server;
    const pageServer = { address: '127.0.0.1', port: 0 };
    const { pid, port } = await server.pageServerChild({ imagesDir: store, logFile: 'server.log', pageServer });
    expect(pid).toBeGreaterThan(0);
    expect(port).toBeGreaterThan(0);
    const { session, imagesDir } = openSession(engine, folder, network.enter);
    await using __ = session;
    const options = { ...dumpOptions(counter.pid, imagesDir), pageServer: { address: '127.0.0.1', port } };
    await session.dump(options, agree);
    expect(await server.waitPid(pid)).toBe(0);
    const pages = (path: string) => readdirSync(path).filter((name) => /^pages-\d+\.img$/.test(name));
    expect(pages(received.path)).toHaveLength(1);
    expect(pages(folder.path)).toHaveLength(0);
  });

  test('PRE_DUMP keeps the session open for the DUMP that follows', async (context) => {
    if (engine === null) return context.skip(reason);
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const features = await session.featureCheck();
    if (!features.memTrack) return context.skip('this kernel has no soft-dirty: CRIU cannot track memory');
    mkdirSync(join(folder.path, '1'));
    const options = { ...dumpOptions(counter.pid, `${imagesDir}/1`), trackMem: true };
    await session.preDump(features, options, agree);
    await counter.goesOn();
    await session.dump({ ...options, imagesDir, parentImg: '1' }, agree);
    await counter.isGone();
  });

  withEngine('PRE_DUMP is never sent where memory cannot be tracked', async (engine) => {
    using folder = new Folder();
    using counter = await Counter.start(folder);
    const { session, imagesDir } = openSession(engine, folder);
    await using _ = session;
    const untracked = { memTrack: false, lazyPages: true, pidfdStore: true };
    const options = dumpOptions(counter.pid, imagesDir);
    await expect(session.preDump(untracked, options, agree)).rejects.toMatchObject({ code: 'no-memory-tracking' });
    await expect(session.singlePreDump(untracked, options, agree)).rejects.toMatchObject({
      code: 'no-memory-tracking',
    });
    await session.version();
    expect(readFileSync(`/proc/${counter.pid}/maps`, 'utf8')).not.toContain('CRIUMFD');
  });
});

test('a dump without a pid, or a self-dump with one, is an error to the compiler and at run time', async (context) => {
  if (engine === null) return context.skip(reason);
  await using session = EngineSession.start({ engine, cgroup: null, inherit: [], logFolder: null });
  // @ts-expect-error: without a pid CRIU would dump this process.
  await expect(session.dump({ imagesDir: '/tmp' }, agree)).rejects.toThrow(RangeError);
  // @ts-expect-error: which of the two?
  const both: SelfDumpOptions = { imagesDir: '/tmp', pid: process.pid };
  await expect(session.selfDump(both)).rejects.toThrow(TypeError);
  await session.version();
});
