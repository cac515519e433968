/** Sender and receiver on a real socket pair: what arrives, what failures say, how much is held. */

import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { ImageFolder } from '../../src/images/image-folder.js';
import { PageDoor } from '../../src/pages/door.js';
import { encodeEnd, encodeFrame, encodeHeader, FrameKind, maxDataBytes } from '../../src/pages/frame.js';
import { type ImageStore, receiveImages } from '../../src/pages/receiver.js';
import { PageSender } from '../../src/pages/sender.js';
import { connectedSockets, noise } from './pages-support.js';

let folder: string;
const open: Socket[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'phaul-pages-'));
});

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  await rm(folder, { recursive: true, force: true });
});

interface Line {
  readonly sender: PageSender;
  readonly far: Socket;
  readonly near: Socket;
  readonly received: Promise<void>;
}

async function line(store: ImageStore, pair = connectedSockets()): Promise<Line> {
  const { left, right } = pair;
  open.push(left, right);
  const door = new PageDoor();
  let received: Promise<void> = Promise.resolve();
  const token = door.expect('m1', (connection) => {
    received = receiveImages(connection, store, false);
    received.catch(() => undefined);
  });
  door.admit(right);
  const sender = await PageSender.connect(left, { migrationId: 'm1', token });
  return { sender, near: left, far: right, received };
}

test('images of all sizes arrive as they were sent, and are proved', async () => {
  await using images = await ImageFolder.create(join(folder, 'images'));
  const { sender, received } = await line(images);
  const sent = new Map(
    [0, 1, 4096, 65536, 65537, (1 << 20) + 3, 5 << 20].map((size, index) => [
      `pages-${index}.img`,
      noise(size & ~3, index + 1),
    ]),
  );
  const receipts = await Promise.all(
    [...sent].map(async ([name, bytes]) => {
      for (let at = 0; at < bytes.length || at === 0; at += 300_000)
        await sender.write(name, bytes.subarray(at, at + 300_000));
      return await sender.end(name);
    }),
  );
  await sender.flush();
  await images.verify(receipts);
  for (const [name, bytes] of sent) expect((await readFile(join(images.path, name))).equals(bytes)).toBe(true);
  expect(sender.bytesSent).toBe([...sent.values()].reduce((sum, { length }) => sum + length, 0));
  await sender[Symbol.asyncDispose]();
  await received;
});

test('an image beyond one frame ends behind its last piece even when nothing is awaited', async () => {
  await using images = await ImageFolder.create(join(folder, 'images'));
  const { sender } = await line(images);
  const bytes = noise(3 * maxDataBytes + 4, 5);
  const written = sender.write('pagemap-1.img', bytes);
  const receipt = sender.end('pagemap-1.img');
  await Promise.all([written, sender.flush()]);
  await images.verify([await receipt]);
  expect((await readFile(join(images.path, 'pagemap-1.img'))).equals(bytes)).toBe(true);
});

test('a disk that is slow holds the source back, and the bytes in between are bounded', async () => {
  let release: (() => void) | null = null;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  let held = 0;
  const store: ImageStore = {
    create: () => ({
      write: async (bytes) => {
        held += bytes.length;
        await gate;
      },
      end: async () => {},
    }),
  };
  const { sender } = await line(store);
  const piece = noise(1 << 20, 1);
  let sent = 0;
  const all = (async () => {
    for (; sent < 64; sent++) await sender.write('pages-1.img', piece);
    await sender.end('pages-1.img');
    await sender.flush();
  })();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(sent).toBeLessThan(16);
  expect(held).toBeLessThanOrEqual((8 << 20) + (1 << 16));
  (release as (() => void) | null)?.();
  await all;
  expect(held).toBe(64 << 20);
});

test('FLUSH is answered when all is stored, not before', async () => {
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const store: ImageStore = { create: () => ({ write: () => gate, end: async () => {} }) };
  const { sender } = await line(store);
  await sender.write('core-1.img', noise(64, 1));
  let flushed = false;
  const flush = sender.flush().then(() => {
    flushed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(flushed).toBe(false);
  release();
  await flush;
});

/** A connection that is reset, its last words with it, when one end closes it with bytes unread. */
async function tcpSockets(): Promise<ReturnType<typeof connectedSockets>> {
  const listener = createServer({ noDelay: true });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const accepted = once(listener, 'connection') as Promise<[Socket]>;
  const left = connect({ port, host: '127.0.0.1', noDelay: true });
  const [right] = await accepted;
  listener.close();
  right.on('error', () => undefined);
  return { left, right };
}

test.each([
  ['a local socket', async () => connectedSockets()],
  ['TCP', tcpSockets],
])(
  'over %s, what fails at the destination is told to the source with pages still on their way',
  async (_what, pair) => {
    const store: ImageStore = {
      create: () => ({
        write: () =>
          Promise.reject(new PhaulError({ code: 'destination-full', what: 'the disk is full', remedy: 'make room' })),
        end: async () => {},
      }),
    };
    const { sender, received } = await line(store, await pair());
    const pages = (async () => {
      for (let count = 0; count < 200; count++) await sender.write('pages-1.img', noise(1 << 20, 1));
    })();
    await expect(pages).rejects.toMatchObject({
      code: 'destination-full',
      message: 'the disk is full',
      remedy: 'make room',
    });
    await expect(sender.flush()).rejects.toMatchObject({ code: 'destination-full' });
    await expect(received).rejects.toMatchObject({ code: 'destination-full' });
  },
);

test('a link that breaks rejects everything that waits on it', async () => {
  await using images = await ImageFolder.create(join(folder, 'images'));
  const { sender, far, received } = await line(images);
  await sender.write('pages-1.img', noise(4096, 1));
  await sender.flush();
  far.pause();
  const waiting = [
    sender.flush(),
    ...Array.from({ length: 16 }, () => sender.write('pages-1.img', noise(1 << 20, 1))),
  ].map((promise) =>
    promise.then(
      () => 'done',
      (thrown: PhaulError) => thrown.code,
    ),
  );
  far.destroy();
  const outcomes = await Promise.all(waiting);
  expect(outcomes[0]).toBe('page-connection-lost');
  expect(outcomes.at(-1)).toBe('page-connection-lost');
  await expect(sender.end('pages-1.img')).rejects.toMatchObject({ code: 'page-connection-lost' });
  await expect(received).rejects.toMatchObject({ code: 'page-connection-lost' });
});

test('whoever still waits when the sender hangs up is told so', async () => {
  const store: ImageStore = { create: () => ({ write: () => new Promise(() => {}), end: async () => {} }) };
  const { sender } = await line(store);
  const written = sender.write('core-1.img', noise(64, 1));
  await written;
  const flush = sender.flush();
  flush.catch(() => undefined);
  await sender[Symbol.asyncDispose]();
  await expect(flush).rejects.toMatchObject({ code: 'page-connection-lost' });
});

const at = (name: string): Buffer => encodeFrame(FrameKind.open, 1, Buffer.from(name, 'latin1'));

test.each([
  '../escape.img',
  '/etc/escape.img',
  'a/b.img',
  '.img',
  '-rf.img',
  'core-1.img\0',
  'Core-1.img',
  'core-1.img.txt',
  '..',
  `${'x'.repeat(200)}.img`,
])('danger 15: a peer cannot name an image %j', async (name) => {
  await using images = await ImageFolder.create(join(folder, 'images'));
  const { near, received } = await line(images);
  near.write(at(name));
  await expect(received).rejects.toMatchObject({ code: 'page-frame-refused' });
  expect(await readdir(images.path)).toEqual([]);
  expect(existsSync(join(folder, 'escape.img'))).toBe(false);
});

test.each([
  ['data without an image', [encodeFrame(FrameKind.data, 1, noise(8, 1))], 'page-frame-refused'],
  ['the same stream twice', [at('core-1.img'), at('core-2.img')], 'page-frame-refused'],
  [
    'the same image twice',
    [at('core-1.img'), encodeFrame(FrameKind.open, 2, Buffer.from('core-1.img'))],
    'image-damaged',
  ],
  [
    'data behind the end',
    [
      at('core-1.img'),
      encodeFrame(FrameKind.end, 1, encodeEnd(0, '99aa06d3014798d86001c324468d497f')),
      encodeFrame(FrameKind.data, 1, noise(8, 1)),
    ],
    'page-frame-refused',
  ],
  ['a second HELLO', [encodeFrame(FrameKind.hello, 0, Buffer.alloc(40))], 'page-frame-refused'],
  [
    'more open images than it may',
    Array.from({ length: 257 }, (_, index) => encodeFrame(FrameKind.open, index, Buffer.from(`core-${index}.img`))),
    'page-frame-refused',
  ],
  [
    'a length that is not true',
    [
      at('core-1.img'),
      encodeFrame(FrameKind.data, 1, noise(8, 1)),
      encodeFrame(FrameKind.end, 1, encodeEnd(7, '00'.repeat(16))),
    ],
    'image-damaged',
  ],
  ['a kind for the other direction', [encodeHeader(FrameKind.stored, 1, 0)], 'page-frame-refused'],
])('a peer that sends %s is refused', async (_what, frames, expected) => {
  await using images = await ImageFolder.create(join(folder, 'images'));
  const { near, received } = await line(images);
  near.write(Buffer.concat(frames));
  await expect(received).rejects.toMatchObject({ code: expected });
});
