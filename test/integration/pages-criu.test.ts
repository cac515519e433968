/** The whole page plane with a real CRIU: from a frozen tree to verified images on the other end, and back to life. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Engine, findEngine } from '../../src/criu/engine.js';
import { EngineSession } from '../../src/criu/session.js';
import { messageOf } from '../../src/failure/phaul-error.js';
import { readStat } from '../../src/host/tasks.js';
import { ImageFolder } from '../../src/images/image-folder.js';
import { decodePagemap } from '../../src/images/pagemap.js';
import { sendImages } from '../../src/images/send-folder.js';
import type { DeliveredImage } from '../../src/migration/ports.js';
import { addon, packageRoot } from '../../src/native/addon.js';
import { PageDoor } from '../../src/pages/door.js';
import { servePages } from '../../src/pages/page-server.js';
import { receiveImages } from '../../src/pages/receiver.js';
import { PageSender } from '../../src/pages/sender.js';
import { connectedSockets } from '../unit/pages-support.js';
import { agree, eventually, Folder } from './criu-support.js';

const mib = 64;
let engine: Engine | null = null;
let missing = '';

beforeAll(async () => {
  if (process.getuid?.() !== 0) missing = 'needs root';
  else
    engine = await findEngine(null).catch((thrown: unknown) => {
      missing = messageOf(thrown);
      return null;
    });
});

/** The program of pages-memory.c in a session of its own. Disposed: killed, wherever it was restored to in the meantime. */
class Memory implements Disposable {
  readonly pid: number;
  readonly #report: string;

  private constructor(child: ChildProcess, report: string) {
    if (child.pid === undefined) throw new Error('the memory program could not be started');
    this.pid = child.pid;
    this.#report = report;
  }

  static async start(folder: Folder): Promise<Memory> {
    const program = join(folder.path, 'pages-memory');
    const source = join(packageRoot, 'test', 'integration', 'pages-memory.c');
    const compiled = spawnSync('cc', ['-O2', '-Wall', '-o', program, source], { encoding: 'utf8' });
    if (compiled.status !== 0) throw new Error(compiled.stderr);
    const report = join(folder.path, 'report');
    const child = spawn(program, [String(mib), report], { detached: true, stdio: 'ignore', cwd: '/', env: {} });
    const memory = new Memory(child, report);
    await eventually(() => existsSync(report));
    return memory;
  }

  /** The program's own verdict, asked anew. */
  async verdict(): Promise<string> {
    rmSync(this.#report);
    process.kill(this.pid, 'SIGUSR1');
    await eventually(() => existsSync(this.#report));
    return readFileSync(this.#report, 'utf8').trim();
  }

  async isGone(child: number): Promise<void> {
    await eventually(() => readStat(this.pid) === null && readStat(child) === null);
  }

  get childPid(): number {
    return Number(readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').trim());
  }

  [Symbol.dispose](): void {
    const state = readStat(this.pid)?.state;
    if (state !== undefined && state !== 'Z') process.kill(this.pid, 'SIGKILL');
  }
}

const healthy = `ok ${mib * 256 + 1024}`;

interface Destination extends AsyncDisposable {
  readonly sender: PageSender;
  readonly images: ImageFolder;
}

/** Both ends of a page connection; `meddle` sits between them. */
async function destination(path: string, meddle: Transform | null = null): Promise<Destination> {
  const images = await ImageFolder.create(path);
  images.keep();
  const near = connectedSockets();
  const door = new PageDoor();
  const token = door.expect('m1', (admitted) => {
    // The failure of the receiver is what the sender is told.
    receiveImages(admitted, images, false).catch(() => undefined);
  });
  if (meddle === null) door.admit(near.right);
  else {
    const far = connectedSockets();
    // The end that hangs up first leaves the pipe with bytes that nobody takes.
    far.left.on('error', () => far.left.destroy());
    near.right.pipe(meddle).pipe(far.left).pipe(near.right);
    door.admit(far.right);
  }
  const sender = await PageSender.connect(near.left, { migrationId: 'm1', token });
  return {
    sender,
    images,
    [Symbol.asyncDispose]: async () => {
      await sender[Symbol.asyncDispose]();
      await images[Symbol.asyncDispose]();
    },
  };
}

interface Dump {
  readonly delivered: readonly DeliveredImage[];
  /** What made it fail, else null; then the tree lives on. */
  readonly failure: unknown;
}

/** A dump whose memory leaves by the page server, with the rest of its images sent from the hold in `post-dump`. */
async function dump(pid: number, folder: string, to: Destination, abort = new AbortController()): Promise<Dump> {
  if (engine === null) throw new Error(missing);
  mkdirSync(folder);
  const { near, far } = addon().socketPair('stream', 1 << 20);
  const directory = openSync(folder, 'r');
  const session = EngineSession.start({ engine, cgroup: null, inherit: [directory, far], logFolder: folder });
  closeSync(far);
  closeSync(directory);
  await session.featureCheck();
  const pages = servePages({
    fd: near,
    headerBytes: engine.pageServerHeaderBytes,
    pageSize: 4096,
    sink: to.sender,
    signal: abort.signal,
  });
  let reason: unknown = null;
  pages.catch((thrown: unknown) => {
    reason ??= thrown;
  });
  let delivered: DeliveredImage[] = [];
  const options = {
    pid,
    imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`,
    logFile: 'dump.log',
    logLevel: 2,
    networkLock: 'skip' as const,
    manageCgroups: 'ignore' as const,
    pageServer: { fd: session.inheritedFd(1) },
  };
  try {
    await session.dump(options, async ({ script }) => {
      if (script !== 'post-dump') return { success: true };
      const [memory, rest] = await Promise.all([pages, sendImages(folder, to.sender)]);
      await to.sender.flush();
      delivered = [...memory, ...rest];
      return { success: true };
    });
    return { delivered, failure: null };
  } catch (thrown) {
    return { delivered, failure: reason ?? thrown };
  } finally {
    await session[Symbol.asyncDispose]();
  }
}

async function restore(folder: string): Promise<number> {
  if (engine === null) throw new Error(missing);
  const directory = openSync(folder, 'r');
  const session = EngineSession.start({ engine, cgroup: null, inherit: [directory], logFolder: folder });
  closeSync(directory);
  try {
    const imagesDir = `/proc/self/fd/${session.inheritedFd(0)}`;
    const { pid } = await session.restore(
      { imagesDir, logFile: 'restore.log', logLevel: 2, networkLock: 'skip', manageCgroups: 'ignore' },
      agree,
    );
    return pid;
  } finally {
    await session[Symbol.asyncDispose]();
  }
}

describe('with a real CRIU', () => {
  test('memory, private and shared, arrives through the page plane and comes back to life from there', async (ctx) => {
    if (engine === null) ctx.skip(missing);
    using folder = new Folder();
    using memory = await Memory.start(folder);
    expect(await memory.verdict()).toBe(healthy);
    const child = memory.childPid;
    const images = join(folder.path, 'images');
    await using to = await destination(images);
    const { delivered, failure } = await dump(memory.pid, join(folder.path, 'dump'), to);
    expect(failure).toBeNull();
    await to.images.verify(delivered);
    expect(readdirSync(join(folder.path, 'dump')).filter((name) => name.startsWith('page'))).toEqual([]);
    const names = readdirSync(images);
    expect(names).toEqual(
      expect.arrayContaining(['inventory.img', 'pages-65537.img', `pagemap-${memory.pid}.img`, `pagemap-${child}.img`]),
    );
    expect(names.filter((name) => name.startsWith('pagemap-shmem-'))).toHaveLength(1);
    const pagemap = decodePagemap(readFileSync(join(images, `pagemap-${memory.pid}.img`)));
    const pages = pagemap.entries.reduce((sum, entry) => sum + entry.pages, 0);
    expect(delivered.find(({ name }) => name === `pages-${pagemap.pagesImage}.img`)?.bytes).toBe(pages * 4096);
    expect(pages).toBeGreaterThanOrEqual(mib * 192);
    await memory.isGone(child);
    expect(await restore(images)).toBe(memory.pid);
    expect(await memory.verdict()).toBe(healthy);
  });

  test('a bit that flips on the way is found before anything is restored, and the tree goes on', async (ctx) => {
    if (engine === null) ctx.skip(missing);
    using folder = new Folder();
    using memory = await Memory.start(folder);
    let seen = 0;
    const flip = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        const at = 20_000_000 - seen;
        if (at >= 0 && at < chunk.length) chunk.writeUInt8(chunk.readUInt8(at) ^ 16, at);
        seen += chunk.length;
        done(null, chunk);
      },
    });
    await using to = await destination(join(folder.path, 'images'), flip);
    const { failure } = await dump(memory.pid, join(folder.path, 'dump'), to);
    expect(failure).toMatchObject({ code: 'image-damaged', message: expect.stringMatching(/pages-\d+\.img/) });
    expect(await memory.verdict()).toBe(healthy);
  });

  test('a page server that vanishes in the middle fails the dump, and the tree goes on', async (ctx) => {
    if (engine === null) ctx.skip(missing);
    using folder = new Folder();
    using memory = await Memory.start(folder);
    await using to = await destination(join(folder.path, 'images'));
    const abort = new AbortController();
    const reason = new Error('enough');
    const write = to.sender.write.bind(to.sender);
    to.sender.write = async (name, bytes) => {
      if (to.sender.bytesSent > 20_000_000) abort.abort(reason);
      await write(name, bytes);
    };
    const { failure } = await dump(memory.pid, join(folder.path, 'dump'), to, abort);
    expect(messageOf((failure as Error).cause ?? failure)).toContain('enough');
    expect(to.sender.bytesSent).toBeLessThan(mib << 20);
    expect(await memory.verdict()).toBe(healthy);
  });

  test('a destination that is full says so, and the tree goes on', async (ctx) => {
    if (engine === null) ctx.skip(missing);
    using folder = new Folder();
    using memory = await Memory.start(folder);
    const small = join(folder.path, 'small');
    mkdirSync(small);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'phaul-test', small], { encoding: 'utf8' });
    if (mounted.status !== 0) ctx.skip(`no tmpfs can be mounted: ${mounted.stderr.trim()}`);
    try {
      await using to = await destination(join(small, 'images'));
      const { failure } = await dump(memory.pid, join(folder.path, 'dump'), to);
      expect(failure).toMatchObject({ code: 'destination-full' });
      expect(await memory.verdict()).toBe(healthy);
    } finally {
      spawnSync('umount', [small]);
    }
  });
});
