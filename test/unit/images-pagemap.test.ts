/** Pagemap images: round trips of both dialects, damage. What CRIU thinks of them: test/integration/pages-criu.test.ts. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodePagemap, PageFlag, PagemapWriter } from '../../src/images/pagemap.js';

const entry = fc.record({
  address: fc.bigInt(0n, (1n << 57n) - 1n),
  pages: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  flags: fc.constantFrom(PageFlag.present, PageFlag.present | PageFlag.lazy, PageFlag.parent),
});

test.each(['since-4.2', 'before-4.2'] as const)('a round trip of the dialect %s', (dialect) => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.array(entry, { maxLength: 50 }), (pagesImage, entries) => {
      const writer = new PagemapWriter(pagesImage, dialect);
      for (const one of entries) writer.add(one);
      expect(decodePagemap(writer.finish())).toEqual({ pagesImage, entries });
    }),
  );
});

test('a task with 20,000 runs, beyond any block of the writer', () => {
  const writer = new PagemapWriter(1, 'since-4.2');
  const entries = Array.from({ length: 20_000 }, (_, index) => ({
    address: BigInt(index) << 13n,
    pages: 1,
    flags: PageFlag.present,
  }));
  for (const one of entries) writer.add(one);
  expect(decodePagemap(writer.finish()).entries).toEqual(entries);
});

test('damage is refused, never more', () => {
  const writer = new PagemapWriter(65537, 'since-4.2');
  writer.add({ address: 0x1000n, pages: 3, flags: PageFlag.present });
  const whole = writer.finish();
  for (let length = 0; length < whole.length; length++) {
    // Cut between two records, it is a shorter pagemap.
    if (length === 8 + 4 + whole.readUInt32LE(8)) continue;
    expect(() => decodePagemap(whole.subarray(0, length))).toThrow(expect.objectContaining({ code: 'image-damaged' }));
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decodePagemap(Buffer.concat([whole.subarray(0, 8), bytes]));
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: 'image-damaged' });
      }
    }),
  );
});
