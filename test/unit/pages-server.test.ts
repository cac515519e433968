/** The page server against a fake CRIU on a real socket pair. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { decodePagemap } from '../../src/images/pagemap.js';
import type { DeliveredImage } from '../../src/migration/ports.js';
import { servePages } from '../../src/pages/page-server.js';
import {
  code,
  type HeaderFields,
  header,
  MemorySink,
  noise,
  pageSize,
  present,
  sharedImage,
  streamPair,
  taskImage,
} from './pages-support.js';

interface Session {
  readonly criu: Socket;
  readonly served: Promise<DeliveredImage[]>;
  readonly abort: AbortController;
  send(fields: HeaderFields, bytes?: Uint8Array): void;
}

function serve(sink: MemorySink, size: 24 | 32 = 32): Session {
  const { fd, peer } = streamPair();
  const abort = new AbortController();
  const served = servePages({ fd, headerBytes: size, pageSize, sink, signal: abort.signal });
  served.catch(() => undefined);
  const send = (fields: HeaderFields, bytes?: Uint8Array): void => {
    peer.write(header(size, fields));
    if (bytes) peer.write(bytes);
  };
  return { criu: peer, served, abort, send };
}

async function answer(criu: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const bytes = criu.read(length) as Buffer | null;
    if (bytes !== null) return bytes;
    await once(criu, 'readable');
  }
}

const run = (pages: number, address: bigint): HeaderFields => ({
  command: code.addWithFlags,
  flags: present,
  pages,
  address,
});

test.each([24, 32] as const)('a dump with headers of %i bytes becomes images that CRIU reads', async (size) => {
  const sink = new MemorySink();
  const { criu, served, send } = serve(sink, size);
  const memory = noise(7 * pageSize, 3);
  send({ command: code.open, image: taskImage(77) });
  expect([...(await answer(criu, 1))]).toEqual([0]);
  send(run(2, 0x1000n), memory.subarray(0, 2 * pageSize));
  send(run(4, 0x7ffd_0000_0000n), memory.subarray(2 * pageSize, 6 * pageSize));
  send({ command: code.parent, image: sharedImage(5) });
  expect((await answer(criu, 4)).readInt32LE()).toBe(0);
  send({ command: code.open, image: sharedImage(5) });
  await answer(criu, 1);
  send(run(1, 0n), memory.subarray(6 * pageSize));
  send({ command: code.open, image: taskImage(78) });
  await answer(criu, 1);
  send({ command: code.forceClose });
  expect((await answer(criu, 4)).readInt32LE()).toBe(0);
  expect((await served).map(({ name }) => name)).toEqual([
    'pages-65537.img',
    'pagemap-77.img',
    'pages-65538.img',
    'pagemap-shmem-5.img',
    'pages-65539.img',
    'pagemap-78.img',
  ]);
  expect(sink.image('pages-65537.img').equals(memory.subarray(0, 6 * pageSize))).toBe(true);
  expect(sink.image('pages-65538.img').equals(memory.subarray(6 * pageSize))).toBe(true);
  expect(sink.image('pages-65539.img')).toHaveLength(0);
  expect(decodePagemap(sink.image('pagemap-77.img'))).toEqual({
    pagesImage: 65537,
    entries: [
      { address: 0x1000n, pages: 2, flags: present },
      { address: 0x7ffd_0000_0000n, pages: 4, flags: present },
    ],
  });
  criu.destroy();
});

test('a slow sink holds CRIU back: never more than the ring is in memory, and no byte is lost', async () => {
  const sink = new MemorySink(3);
  const { criu, served, send } = serve(sink);
  criu.resume();
  send({ command: code.open, image: taskImage(1) });
  const pieces = Array.from({ length: 24 }, (_, index) => noise(pageSize * 256, index + 1));
  for (const [index, piece] of pieces.entries()) send(run(256, BigInt(index) << 20n), piece);
  send({ command: code.close });
  await served;
  expect(sink.mostOutstanding).toBeGreaterThan(0);
  expect(sink.mostOutstanding).toBeLessThanOrEqual(1 << 20);
  expect(sink.image('pages-65537.img').equals(Buffer.concat(pieces))).toBe(true);
  criu.destroy();
});

test('runs of single pages do not cost a write each', async () => {
  const sink = new MemorySink(1);
  const { criu, served, send } = serve(sink);
  criu.resume();
  const pages = Array.from({ length: 2000 }, (_, index) => noise(pageSize, index + 1));
  send({ command: code.open, image: taskImage(1) });
  criu.write(Buffer.concat(pages.flatMap((page, index) => [header(32, run(1, BigInt(index) << 13n)), page])));
  send({ command: code.close });
  await served;
  expect(sink.writes).toBeLessThan(1000);
  expect(sink.image('pages-65537.img').equals(Buffer.concat(pages))).toBe(true);
  criu.destroy();
});

test.each([
  ['pages of a parent', { command: code.hole, pages: 1 }],
  ['pages that stay at the source', { command: code.addWithFlags, flags: 2, pages: 1 }],
  ['pages of a kind unknown here', { command: code.addWithFlags, flags: present | 8, pages: 1 }],
  ['a request for pages', { command: code.get, pages: 1 }],
  ['the same image again', { command: code.open, image: taskImage(1) }],
])('%s: refused, and CRIU finds the socket closed', async (_what, fields) => {
  const { criu, served, send } = serve(new MemorySink());
  criu.resume();
  send({ command: code.open, image: taskImage(1) });
  send(fields);
  await expect(served).rejects.toMatchObject({ code: 'page-stream-malformed' });
  if (!criu.destroyed) await once(criu, 'close');
});

test('pages before an image, and anything behind the end: refused', async () => {
  const early = serve(new MemorySink());
  early.send(run(1, 0n), Buffer.alloc(pageSize));
  await expect(early.served).rejects.toMatchObject({ code: 'page-stream-malformed' });
  const late = serve(new MemorySink());
  late.criu.write(
    Buffer.concat([header(32, { command: code.close }), header(32, { command: code.open, image: taskImage(1) })]),
  );
  await expect(late.served).rejects.toMatchObject({ code: 'page-stream-malformed' });
});

test('a sink that fails ends the dump before CRIU is told that all is well', async () => {
  const failure = new PhaulError({ code: 'destination-full', what: 'full', remedy: 'none' });
  const sink = new MemorySink();
  sink.end = () => Promise.reject(failure);
  const { criu, served, send } = serve(sink);
  const heard: Buffer[] = [];
  criu.on('data', (bytes: Buffer) => heard.push(bytes));
  send({ command: code.open, image: taskImage(1) });
  send({ command: code.forceClose });
  await expect(served).rejects.toBe(failure);
  if (!criu.destroyed) await once(criu, 'close');
  expect(Buffer.concat(heard)).toHaveLength(1);
});

test('an abort, and a CRIU that is gone, end it with their own reason', async () => {
  const reason = new PhaulError({ code: 'cancelled', what: 'cancelled', remedy: 'none' });
  const aborted = serve(new MemorySink());
  aborted.abort.abort(reason);
  await expect(aborted.served).rejects.toBe(reason);
  const dead = serve(new MemorySink());
  dead.send({ command: code.open, image: taskImage(1) });
  dead.criu.end(Buffer.alloc(7));
  await expect(dead.served).rejects.toMatchObject({ code: 'page-stream-cut' });
});
