/** The images folder: nothing that is damaged, missing or strange passes its verification. */
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ImageFolder } from '../../src/images/image-folder.js';
import { sendImages } from '../../src/images/send-folder.js';
import type { DeliveredImage } from '../../src/migration/ports.js';
import { addon } from '../../src/native/addon.js';
import { MemorySink, noise } from './pages-support.js';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'phaul-images-'));
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function receipt(name: string, bytes: Uint8Array): DeliveredImage {
  const hash = addon().xxh3Stream();
  hash.update(bytes);
  return { name, bytes: bytes.length, hash: hash.digest() };
}

async function store(folder: ImageFolder, name: string, bytes: Uint8Array): Promise<DeliveredImage> {
  const sent = receipt(name, bytes);
  const image = folder.create(name);
  await image.write(bytes);
  await image.end(sent, false);
  return sent;
}

interface Stored {
  readonly folder: ImageFolder;
  readonly delivered: DeliveredImage[];
}

async function stored(): Promise<Stored> {
  const folder = await ImageFolder.create(join(root, 'images'));
  const delivered = [
    await store(folder, 'core-77.img', noise(3000, 1)),
    await store(folder, 'tmpfs-dev-55.tar.gz.img', noise(400, 2)),
    await store(folder, 'pages-65537.img', noise(3 << 20, 3)),
  ];
  return { folder, delivered };
}

test('whole images pass, others may not read them, and the folder goes when it is not kept', async () => {
  const { folder, delivered } = await stored();
  writeFileSync(join(folder.path, 'restore.log'), 'logs are nothing that CRIU restores');
  await folder.verify(delivered);
  expect(statSync(folder.path).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder.path, 'core-77.img')).mode & 0o777).toBe(0o600);
  await folder[Symbol.asyncDispose]();
  expect(existsSync(folder.path)).toBe(false);
});

test('a folder that is kept stays', async () => {
  const { folder } = await stored();
  folder.keep();
  await folder[Symbol.asyncDispose]();
  expect(readdirSync(folder.path)).toHaveLength(3);
});

test.each<[string, string, (stored: Stored) => unknown]>([
  [
    'a flipped bit on the disk',
    'core-77.img',
    ({ folder }) => writeFileSync(join(folder.path, 'core-77.img'), noise(3000, 9)),
  ],
  [
    'a truncated pages image',
    'pages-65537.img',
    ({ folder }) => truncateSync(join(folder.path, 'pages-65537.img'), 4096),
  ],
  ['an image that nobody has sent', 'pstree.img', ({ folder }) => writeFileSync(join(folder.path, 'pstree.img'), '')],
  ['an image that is gone', 'core-77.img', ({ folder }) => rmSync(join(folder.path, 'core-77.img'))],
  [
    'a file that is not the one written',
    'core-77.img',
    ({ folder }) => {
      rmSync(join(folder.path, 'core-77.img'));
      symlinkSync('/etc/hostname', join(folder.path, 'core-77.img'));
    },
  ],
  ['an image that did not arrive', 'files.img', ({ delivered }) => [...delivered, receipt('files.img', noise(8, 1))]],
  [
    'a receipt for other bytes',
    'pages-65537.img',
    ({ delivered }) => [...delivered.slice(0, 2), receipt('pages-65537.img', noise(3 << 20, 4))],
  ],
  ['an image of which the source knows nothing', 'core-77.img', ({ delivered }) => delivered.slice(1)],
])('%s is found and named', async (_what, name, damage) => {
  const things = await stored();
  const changed = damage(things);
  const delivered = Array.isArray(changed) ? (changed as DeliveredImage[]) : things.delivered;
  await expect(things.folder.verify(delivered)).rejects.toMatchObject({
    code: 'image-damaged',
    message: expect.stringContaining(name),
  });
  await things.folder[Symbol.asyncDispose]();
});

test('an image that has not ended does not count', async () => {
  await using folder = await ImageFolder.create(join(root, 'images'));
  const bytes = noise(100, 1);
  await folder.create('core-1.img').write(bytes);
  await expect(folder.verify([receipt('core-1.img', bytes)])).rejects.toMatchObject({ code: 'image-damaged' });
});

test('nothing is taken in behind the verification', async () => {
  const { folder, delivered } = await stored();
  await folder.verify(delivered);
  expect(() => folder.create('files.img')).toThrow(expect.objectContaining({ code: 'image-damaged' }));
  await folder[Symbol.asyncDispose]();
});

test('danger 15: no name leaves the folder, no link is followed, no file is written over', async () => {
  await using folder = await ImageFolder.create(join(root, 'images'));
  for (const name of ['../escape.img', '/tmp/escape.img', 'a/b.img', 'x.txt', '']) {
    expect(() => folder.create(name)).toThrow(expect.objectContaining({ code: 'image-damaged' }));
  }
  const victim = join(root, 'victim');
  writeFileSync(victim, 'untouched');
  symlinkSync(victim, join(folder.path, 'core-1.img'));
  expect(() => folder.create('core-1.img')).toThrow(expect.objectContaining({ code: 'image-damaged' }));
  expect(await readFile(victim, 'utf8')).toBe('untouched');
  await expect(ImageFolder.create(folder.path)).rejects.toMatchObject({ code: 'images-exist' });
});

test('descriptors are given back whatever becomes of an image', async () => {
  const before = readdirSync('/proc/self/fd').length;
  const folder = await ImageFolder.create(join(root, 'images'));
  for (let index = 0; index < 20; index++) {
    const image = folder.create(`core-${index}.img`);
    await image.write(noise(16, index + 1));
    if (index % 2 === 0)
      await expect(image.end({ bytes: 16, hash: '00'.repeat(16) }, false)).rejects.toMatchObject({
        code: 'image-damaged',
      });
  }
  await folder[Symbol.asyncDispose]();
  expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
});

test('what CRIU has written is sent whole: images of every size, no logs, no statistics', async () => {
  const files = new Map([
    ['core-77.img', noise(3000, 1)],
    ['ghost-file-1.img', noise((3 << 20) + 40, 2)],
    ['pstree.img', Buffer.alloc(0)],
    ['tmpfs-dev-55.tar.gz.img', noise(100, 3)],
  ]);
  for (const [name, bytes] of files) writeFileSync(join(root, name), bytes);
  for (const name of ['dump.log', 'stats-dump', 'criu.kdat']) writeFileSync(join(root, name), 'x');
  const sink = new MemorySink();
  const receipts = await sendImages(root, sink);
  expect(receipts.map(({ name }) => name)).toEqual([...files.keys()]);
  for (const [name, bytes] of files) expect(sink.image(name).equals(bytes)).toBe(true);
  expect(sink.mostOutstanding).toBeLessThan(2 << 20);
});

test('an image with a name that the other host would refuse fails the sending, it is not left out', async () => {
  writeFileSync(join(root, 'Core_1.img'), 'x');
  await expect(sendImages(root, new MemorySink())).rejects.toMatchObject({ code: 'image-name-unknown' });
});

test('a file that cannot be read fails the sending', async () => {
  writeFileSync(join(root, 'core-1.img'), 'x');
  symlinkSync(join(root, 'nowhere'), join(root, 'core-2.img'));
  chmodSync(root, 0o700);
  await expect(sendImages(root, new MemorySink())).rejects.toThrow(/ENOENT/);
});
