/** The page protocol's frames: wherever the stream is cut, and whatever a hostile peer sends. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import {
  decodeEnd,
  decodeFailed,
  encodeEnd,
  encodeFailed,
  encodeFrame,
  encodeHeader,
  FrameKind,
  FrameParser,
  headerBytes,
  maxDataBytes,
  maxSmallBytes,
} from '../../src/pages/frame.js';
import { noise } from './pages-support.js';

interface Seen {
  readonly frames: { kind: number; stream: number; payload: string }[];
  readonly data: Map<number, Buffer>;
  held: number;
}

function parse(chunks: readonly Buffer[]): Seen {
  const seen: Seen = { frames: [], data: new Map(), held: 0 };
  const parser = new FrameParser({
    frame: ({ kind, stream }, payload) => {
      seen.held = Math.max(seen.held, payload.length);
      seen.frames.push({ kind, stream, payload: payload.toString('hex') });
    },
    data: (stream, bytes) => seen.data.set(stream, Buffer.concat([seen.data.get(stream) ?? Buffer.alloc(0), bytes])),
  });
  for (const chunk of chunks) parser.feed(chunk);
  return seen;
}

const conversation = Buffer.concat([
  encodeFrame(FrameKind.open, 1, Buffer.from('pages-65537.img')),
  encodeFrame(FrameKind.data, 1, noise(40, 1)),
  encodeFrame(FrameKind.open, 2, Buffer.from('pagemap-7.img')),
  encodeFrame(FrameKind.data, 2, noise(12, 2)),
  encodeFrame(FrameKind.data, 1, noise(20, 3)),
  encodeFrame(FrameKind.end, 1, encodeEnd(60, 'ab'.repeat(16))),
  encodeHeader(FrameKind.flush, 9, 0),
]);

test('every cut of a conversation reads the same', () => {
  const expected = parse([conversation]);
  expect(expected.frames.map(({ kind }) => kind)).toEqual([
    FrameKind.open,
    FrameKind.open,
    FrameKind.end,
    FrameKind.flush,
  ]);
  expect(expected.data.get(1)?.equals(Buffer.concat([noise(40, 1), noise(20, 3)]))).toBe(true);
  for (let cut = 0; cut <= conversation.length; cut++) {
    expect(parse([conversation.subarray(0, cut), conversation.subarray(cut)])).toEqual(expected);
  }
  expect(parse(Array.from(conversation, (byte) => Buffer.from([byte])))).toEqual(expected);
});

test('DATA is passed on as views of what came, not copied', () => {
  const chunk = encodeFrame(FrameKind.data, 1, noise(64, 1));
  const parser = new FrameParser({
    frame: () => {},
    data: (_stream, bytes) => expect(bytes.buffer).toBe(chunk.buffer),
  });
  parser.feed(chunk);
  expect.assertions(1);
});

test('whatever comes in whatever pieces is read or refused, and never more is held than a small frame', () => {
  const frame = fc
    .tuple(
      fc.integer({ min: 0, max: 255 }),
      fc.nat(),
      fc.oneof(fc.nat(40), fc.nat(0xffffffff)),
      fc.uint8Array({ maxLength: 40 }),
    )
    .map(([kind, stream, length, payload]) => {
      const head = encodeHeader(FrameKind.open, stream, length);
      head[0] = kind;
      return Buffer.concat([head, payload]);
    });
  const part = fc.oneof(
    frame,
    fc.uint8Array({ maxLength: 60 }).map((raw) => Buffer.from(raw)),
    fc.constant(conversation),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 8 }), fc.nat(64), (parts, step) => {
      const whole = Buffer.concat(parts);
      const pieces: Buffer[] = [];
      for (let at = 0; at < whole.length; at += step + 1) pieces.push(whole.subarray(at, at + step + 1));
      try {
        expect(parse(pieces).held).toBeLessThanOrEqual(maxSmallBytes);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(PhaulError);
        expect(thrown).toMatchObject({ code: 'page-frame-refused' });
      }
    }),
  );
});

describe('refused by their header, before anything is allocated', () => {
  test.each([
    ['kind 0', 0, 0],
    ['a kind that there is not', 9, 0],
    ['DATA beyond its bound', FrameKind.data, maxDataBytes + 1],
    ['a name beyond its bound', FrameKind.open, maxSmallBytes + 1],
    ['4 GiB of text', FrameKind.failed, 0xffffffff],
  ])('%s', (_what, kind, length) => {
    const head = encodeHeader(FrameKind.data, 0, length);
    head[0] = kind;
    expect(head).toHaveLength(headerBytes);
    expect(() => parse([head])).toThrow(expect.objectContaining({ code: 'page-frame-refused' }));
  });
});

test('spare bytes are ignored', () => {
  const head = encodeHeader(FrameKind.flush, 3, 0);
  head.fill(0xff, 1, 4);
  head.fill(0xff, 12, 16);
  expect(parse([head]).frames).toEqual([{ kind: FrameKind.flush, stream: 3, payload: '' }]);
});

test('END carries length and hash, exactly', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes, raw) => {
      const hash = Buffer.from(raw).toString('hex');
      expect(decodeEnd(encodeEnd(bytes, hash))).toEqual({ bytes, hash });
    }),
  );
  expect(() => decodeEnd(Buffer.alloc(23))).toThrow();
  expect(() => decodeEnd(Buffer.alloc(24, 0xff))).toThrow();
});

test('the text of a failing peer stays within its frame and cannot write to a terminal', () => {
  const frame = encodeFailed({ code: 'destination-full', what: `disk ${'€'.repeat(2000)}`, remedy: 'make\nroom' });
  const [failed] = parse([frame]).frames;
  expect(decodeFailed(Buffer.from(failed?.payload ?? '', 'hex'))).toMatchObject({
    code: 'destination-full',
    remedy: 'make room',
  });
  expect(decodeFailed(Buffer.from('Bad Code\n\u001b[2Jhello\u0007\n'))).toMatchObject({
    code: 'page-store-failed',
    what: '[2Jhello',
  });
});
