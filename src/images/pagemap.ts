/**
 * CRIU's pagemap images: which pages of a task lie where in a `pages-*.img` (criu.md 6).
 *
 * u32 common magic, u32 pagemap magic, then records of u32 length and a protobuf message: first the head with the number
 * of the pages image, then one entry per run of pages. Written by hand: a large task has 100,000 entries and the
 * messages have five small fields.
 */
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
