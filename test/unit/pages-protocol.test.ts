/** CRIU's page-server protocol as a codec: wherever the stream is cut, and whatever it carries. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { Command, type PageServerHeader, PageServerParser } from '../../src/pages/page-server-protocol.js';
import { code, header, noise, pageSize, present, sharedImage, taskImage } from './pages-support.js';

/** What a parser made of a stream that came in these chunks. */
function parse(
  size: 24 | 32,
  chunks: readonly Buffer[],
  page = pageSize,
): { headers: PageServerHeader[]; bytes: Buffer; atBorder: boolean } {
  const headers: PageServerHeader[] = [];
  const pieces: Buffer[] = [];
  let chunk: Buffer = Buffer.alloc(0);
  const parser = new PageServerParser(size, page, {
    header: (seen) => headers.push(seen),
    pages: (from, to) => pieces.push(Buffer.from(chunk.subarray(from, to))),
  });
  for (chunk of chunks) parser.feed(chunk);
  return { headers, bytes: Buffer.concat(pieces), atBorder: parser.atBorder };
}

/** Small pages keep the number of cut points small; the parser does not care. */
const smallPage = 8;
const memory = noise(5 * smallPage, 1);

function session(size: 24 | 32): Buffer {
  return Buffer.concat([
    header(size, { command: code.open, image: taskImage(77) }),
    header(size, { command: code.addWithFlags, flags: present, pages: 2, address: 0x7fff_ffff_e000n }),
    memory.subarray(0, 2 * smallPage),
    header(size, { command: code.add, pages: 3, address: 0xff10_0000_0000_0000n }),
    memory.subarray(2 * smallPage),
    header(size, { command: code.parent, image: sharedImage(2 ** 40) }),
    header(size, { command: code.hole, pages: 9, address: 0x1000n }),
    header(size, { command: code.forceClose }),
  ]);
}

describe.each([24, 32] as const)('with headers of %i bytes', (size) => {
  test('every cut of a session reads the same', () => {
    const whole = session(size);
    const expected = parse(size, [whole], smallPage);
    expect(expected.headers.map(({ command, flags, pages, address }) => ({ command, flags, pages, address }))).toEqual([
      { command: Command.openAnswered, flags: 0, pages: 0, address: 0n },
      { command: Command.addWithFlags, flags: present, pages: 2, address: 0x7fff_ffff_e000n },
      { command: Command.add, flags: 0, pages: 3, address: 0xff10_0000_0000_0000n },
      { command: Command.parent, flags: 0, pages: 0, address: 0n },
      { command: Command.hole, flags: 0, pages: 9, address: 0x1000n },
      { command: Command.forceClose, flags: 0, pages: 0, address: 0n },
    ]);
    expect(expected.headers[0]?.image).toEqual({ type: 'task', number: 77 });
    expect(expected.headers[3]?.image).toEqual({ type: 'shared', number: 2 ** 40 });
    expect(expected.bytes.equals(memory)).toBe(true);
    for (let cut = 0; cut <= whole.length; cut++) {
      expect(parse(size, [whole.subarray(0, cut), whole.subarray(cut)], smallPage)).toEqual(expected);
    }
    expect(
      parse(
        size,
        Array.from(whole, (byte) => Buffer.from([byte])),
        smallPage,
      ),
    ).toEqual(expected);
  });

  test('any stream in any pieces is read or refused, never more', () => {
    const command = fc.constantFrom(...Object.values(code), 0, 9, 0x1025);
    const anything = fc.record({
      command,
      flags: fc.nat(7),
      pages: fc.nat(3),
      address: fc.bigInt(0n, 1n << 64n).map((at) => ((at / 4096n) * 4096n) & ((1n << 64n) - 1n)),
      image: fc.constantFrom(taskImage(1), sharedImage(9), 0n),
    });
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            anything.map((fields) => header(size, fields)),
            fc.uint8Array({ maxLength: 64 }).map((raw) => Buffer.from(raw)),
          ),
        ),
        fc.nat(50),
        (parts, step) => {
          const whole = Buffer.concat(parts);
          const pieces: Buffer[] = [];
          for (let at = 0; at < whole.length; at += step + 1) pieces.push(whole.subarray(at, at + step + 1));
          try {
            const { headers, bytes } = parse(size, pieces, smallPage);
            expect(headers.length * size + bytes.length).toBeLessThanOrEqual(whole.length);
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(PhaulError);
            expect(thrown).toMatchObject({ code: 'page-stream-malformed' });
          }
        },
      ),
    );
  });

  test.each([
    ['an unknown command', { command: 99 }],
    ['no pages that are present', { command: code.addWithFlags, flags: present, pages: 0 }],
    ['pages beside their border', { command: code.addWithFlags, flags: present, pages: 1, address: 3n }],
    ['more pages than there are', { command: code.add, pages: 2 ** 29 }],
    ['an image of no known type', { command: code.open, image: (7n << 8n) | 3n }],
    ['an image whose number is none', { command: code.open, image: (1n << 63n) | 1n }],
  ])('%s: refused', (_what, fields) => {
    expect(() => parse(size, [header(size, fields)])).toThrow(
      expect.objectContaining({ code: 'page-stream-malformed' }),
    );
  });
});

test('a stream that ends within a header or within pages is not at a border', () => {
  expect(parse(32, [Buffer.alloc(5, 4)]).atBorder).toBe(false);
  expect(parse(32, [header(32, { command: code.add, pages: 1 }), Buffer.alloc(pageSize - 1)]).atBorder).toBe(false);
  expect(parse(32, [header(32, { command: code.add, pages: 1 }), Buffer.alloc(pageSize)]).atBorder).toBe(true);
});
