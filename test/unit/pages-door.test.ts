/** Who is let in to the page plane (dangers.md 17). */
import type { Duplex } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { type AdmittedConnection, type DoorLimits, defaultDoorLimits, PageDoor } from '../../src/pages/door.js';
import {
  encodeFrame,
  encodeHeader,
  encodeHello,
  FrameKind,
  maxDataBytes,
  preface,
  tokenBytes,
} from '../../src/pages/frame.js';
import { PageSender } from '../../src/pages/sender.js';
import { connectedSockets } from './pages-support.js';

const open: Duplex[] = [];

afterEach(() => {
  for (const connection of open.splice(0)) connection.destroy();
});

/** A connection that stands before the door; what is returned is the other end. */
function knock(door: PageDoor): Duplex {
  const { left, right } = connectedSockets();
  door.admit(left);
  open.push(left, right);
  return right;
}

function doorWith(limits: Partial<DoorLimits> = {}): {
  door: PageDoor;
  admitted: AdmittedConnection[];
  token: Uint8Array;
} {
  const door = new PageDoor({ ...defaultDoorLimits, ...limits });
  const admitted: AdmittedConnection[] = [];
  const token = door.expect('m1', (connection) => {
    open.push(connection.connection);
    admitted.push(connection);
  });
  return { door, admitted, token };
}

function hello(token: Uint8Array, migrationId = 'm1'): Buffer {
  return Buffer.concat([preface, encodeHello({ token, migrationId })]);
}

async function isSentAway(connection: Duplex): Promise<void> {
  connection.on('error', () => undefined);
  connection.resume();
  if (!connection.destroyed) await new Promise((resolve) => connection.once('close', resolve));
}

const refusal = { code: 'page-connection-lost' };

test('danger 17: a token opens the door once', async () => {
  const { door, admitted, token } = doorWith();
  expect(token).toHaveLength(tokenBytes);
  await PageSender.connect(knock(door), { migrationId: 'm1', token });
  expect(admitted).toHaveLength(1);
  await expect(PageSender.connect(knock(door), { migrationId: 'm1', token })).rejects.toMatchObject(refusal);
  expect(admitted).toHaveLength(1);
});

test('danger 17: a wrong token opens nothing, and leaves the right one good', async () => {
  const { door, admitted, token } = doorWith();
  const wrong = Buffer.from(token);
  wrong[31] = (wrong[31] ?? 0) ^ 1;
  await expect(PageSender.connect(knock(door), { migrationId: 'm1', token: wrong })).rejects.toMatchObject(refusal);
  await expect(PageSender.connect(knock(door), { migrationId: 'm2', token })).rejects.toMatchObject(refusal);
  await expect(
    PageSender.connect(knock(door), { migrationId: 'm2', token: Buffer.alloc(tokenBytes) }),
  ).rejects.toMatchObject(refusal);
  expect(admitted).toHaveLength(0);
  await PageSender.connect(knock(door), { migrationId: 'm1', token });
  expect(admitted).toHaveLength(1);
});

test('danger 17: a token is void when it is late, forgotten, or replaced', async () => {
  const late = doorWith({ tokenMs: 20 });
  await new Promise((resolve) => setTimeout(resolve, 40));
  await expect(PageSender.connect(knock(late.door), { migrationId: 'm1', token: late.token })).rejects.toMatchObject(
    refusal,
  );
  const { door, admitted, token } = doorWith();
  const second = door.expect('m1', () => {});
  expect(Buffer.from(second).equals(token)).toBe(false);
  await expect(PageSender.connect(knock(door), { migrationId: 'm1', token })).rejects.toMatchObject(refusal);
  door.forget('m1');
  await expect(PageSender.connect(knock(door), { migrationId: 'm1', token: second })).rejects.toMatchObject(refusal);
  expect(admitted).toHaveLength(0);
});

test('danger 17: the seventeenth stranger is sent away, and there is room again when one leaves', async () => {
  const { door, token } = doorWith();
  const strangers = Array.from({ length: 16 }, () => knock(door));
  expect(door.strangers).toBe(16);
  await isSentAway(knock(door));
  strangers[0]?.destroy();
  await expect.poll(() => door.strangers).toBe(15);
  await PageSender.connect(knock(door), { migrationId: 'm1', token });
  expect(door.strangers).toBe(15);
});

test('danger 17: whoever says nothing, or goes on saying it slowly, is sent away in time', async () => {
  expect(defaultDoorLimits).toMatchObject({ patienceMs: 5000, maxStrangers: 16 });
  const { door, admitted, token } = doorWith({ patienceMs: 100 });
  const silent = knock(door);
  const slow = knock(door);
  const bytes = hello(token);
  let at = 0;
  const drip = setInterval(() => slow.write(bytes.subarray(at, ++at)), 10);
  try {
    await Promise.all([isSentAway(silent), isSentAway(slow)]);
  } finally {
    clearInterval(drip);
  }
  expect(admitted).toHaveLength(0);
  await expect.poll(() => door.strangers).toBe(0);
});

test.each([
  ['another protocol', Buffer.from('GET / HTTP/1.1\r\n')],
  [
    'another version',
    Buffer.concat([Buffer.from('PHAULPG2'), encodeHello({ token: Buffer.alloc(32), migrationId: 'm1' })]),
  ],
  ['data before it has said who it is', Buffer.concat([preface, encodeHeader(FrameKind.data, 1, maxDataBytes)])],
  ['a HELLO that is too long', Buffer.concat([preface, encodeHeader(FrameKind.hello, 0, 4096)])],
  ['a HELLO without a migration', Buffer.concat([preface, encodeFrame(FrameKind.hello, 0, Buffer.alloc(32))])],
])('danger 17: %s: sent away at once, whatever follows is not read', async (_what, bytes) => {
  const { door, admitted } = doorWith();
  const stranger = knock(door);
  stranger.write(bytes);
  const before = performance.now();
  await isSentAway(stranger);
  expect(performance.now() - before).toBeLessThan(1000);
  expect(admitted).toHaveLength(0);
});

test('a HELLO in single bytes, with frames right behind it, is understood and what follows kept', async () => {
  const { door, admitted, token } = doorWith();
  const stranger = knock(door);
  const bytes = Buffer.concat([hello(token), encodeHeader(FrameKind.flush, 1, 0)]);
  for (const byte of bytes.subarray(0, -30)) {
    stranger.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  stranger.write(bytes.subarray(-30));
  await expect.poll(() => admitted.length).toBe(1);
  expect(admitted[0]?.rest.equals(encodeHeader(FrameKind.flush, 1, 0))).toBe(true);
});
