/**
 * CRIU's pagemap images: which pages of a task lie where in a `pages-*.img` (criu.md 6).
 *
 * u32 common magic, u32 pagemap magic, then records of u32 length and a protobuf message: first the head with the number
 * of the pages image, then one entry per run of pages. Written by hand: a large task has 100,000 entries and the
 * messages have five small fields.
 */
import { PhaulError } from '../failure/phaul-error.js';
import { protobufFields } from './protobuf-fields.js';

const commonMagic = 0x54564319;
const pagemapMagic = 0x56084025;

/** PE_* flags of an entry. */
export const PageFlag = { parent: 1, lazy: 2, present: 4 } as const;

export interface PagemapEntry {
  readonly address: bigint;
  readonly pages: number;
  readonly flags: number;
}

/** Since CRIU 4.2 the count has a 64-bit field of its own and the old, required one is 0. */
export type PagemapDialect = 'since-4.2' | 'before-4.2';

export class PagemapWriter {
  readonly #dialect: PagemapDialect;
  #chunks: Buffer[] = [];
  #block = Buffer.allocUnsafe(64 * 1024);
  #fill = 0;

  constructor(pagesImage: number, dialect: PagemapDialect) {
    this.#dialect = dialect;
    this.#block.writeUInt32LE(commonMagic, 0);
    this.#block.writeUInt32LE(pagemapMagic, 4);
    this.#fill = 8;
    this.#record(() => this.#field(1, BigInt(pagesImage)));
  }

  add({ address, pages, flags }: PagemapEntry): void {
    this.#record(() => {
      this.#field(1, address);
      this.#field(2, BigInt(this.#dialect === 'since-4.2' ? 0 : pages));
      this.#field(4, BigInt(flags));
      if (this.#dialect === 'since-4.2') this.#field(5, BigInt(pages));
    });
  }

  /** The whole image. */
  finish(): Buffer {
    return Buffer.concat([...this.#chunks, this.#block.subarray(0, this.#fill)]);
  }

  #record(fields: () => void): void {
    // The longest entry has 4 fields of at most 11 bytes.
    if (this.#fill + 64 > this.#block.length) {
      this.#chunks.push(this.#block.subarray(0, this.#fill));
      this.#block = Buffer.allocUnsafe(64 * 1024);
      this.#fill = 0;
    }
    const lengthAt = this.#fill;
    this.#fill += 4;
    fields();
    this.#block.writeUInt32LE(this.#fill - lengthAt - 4, lengthAt);
  }

  #field(number: number, value: bigint): void {
    this.#block[this.#fill++] = number << 3;
    let left = value;
    while (left > 127n) {
      this.#block[this.#fill++] = Number(left & 127n) | 128;
      left >>= 7n;
    }
    this.#block[this.#fill++] = Number(left);
  }
}

export interface Pagemap {
  /** The pages lie in `pages-<this>.img`. */
  readonly pagesImage: number;
  readonly entries: readonly PagemapEntry[];
}

/** Reads a pagemap image of either dialect. Throws `image-damaged`. */
export function decodePagemap(image: Buffer): Pagemap {
  try {
    const [head, ...entries] = records(image);
    const pagesImage = head && fieldsOf(head).get(1);
    if (pagesImage === undefined) throw new RangeError('it has no head');
    return { pagesImage: Number(pagesImage), entries: entries.map(decodeEntry) };
  } catch (cause) {
    throw new PhaulError({
      code: 'image-damaged',
      what: 'a pagemap image cannot be read',
      remedy: 'dump again',
      cause,
    });
  }
}

function* records(image: Buffer): Generator<Buffer> {
  if (image.readUInt32LE(0) !== commonMagic || image.readUInt32LE(4) !== pagemapMagic)
    throw new RangeError('it is no pagemap');
  for (let at = 8; at < image.length; ) {
    const from = at + 4;
    at = from + image.readUInt32LE(at);
    if (at > image.length) throw new RangeError('its last record is cut off');
    yield image.subarray(from, at);
  }
}

function decodeEntry(record: Buffer): PagemapEntry {
  const fields = fieldsOf(record);
  const address = fields.get(1);
  const pages = fields.get(5) ?? fields.get(2);
  if (address === undefined || pages === undefined) throw new RangeError('an entry has no address or no pages');
  // Before the flags there was one field for one of them, `in_parent`.
  const flags = fields.get(4) ?? (fields.get(3) === 1n ? BigInt(PageFlag.parent) : BigInt(PageFlag.present));
  return { address, pages: Number(pages), flags: Number(flags) };
}

function fieldsOf(record: Buffer): Map<number, bigint> {
  return new Map([...protobufFields(record)].flatMap(({ number, value }) => (value === null ? [] : [[number, value]])));
}
