/**
 * CRIU's page-server protocol as a codec without I/O: what a dumping CRIU sends on the socket that it inherits.
 *
 * Header, little-endian. Since 4.2, 32 bytes: u32 command, u32 padding, u64 pages, u64 address, u64 image.
 * Before, 24 bytes: u32 command, u32 pages, u64 address, u64 image. Not negotiated: it follows from CRIU's version.
 * The command's upper half holds the page flags, the image is `number << 8 | type` (1: memory of a task, 2: shared memory).
 */
import { PhaulError } from '../failure/phaul-error.js';
import { PageFlag } from '../images/pagemap.js';

export const Command = {
  add: 1,
  hole: 2,
  open: 3,
  /** Answered by one byte: has a parent? */
  openAnswered: 4,
  /** Answered by an int32: has a parent? */
  parent: 5,
  addWithFlags: 6,
  get: 7,
  /** Both answered by an int32: status. */
  close: 0x1023,
  forceClose: 0x1024,
} as const;

export interface PageServerHeader {
  readonly command: number;
  /** PE_* flags (src/images/pagemap.ts). */
  readonly flags: number;
  readonly pages: number;
  readonly address: bigint;
  readonly image: { readonly type: 'none' | 'task' | 'shared'; readonly number: number };
}

const commands: ReadonlySet<number> = new Set(Object.values<number>(Command));

/** No run of pages is longer: 1 TiB of 4 KiB pages. A larger count is a broken stream. */
const maxPages = 2 ** 28;

export function decodePageServerHeader(bytes: Buffer): PageServerHeader {
  const wide = bytes.length === 32;
  const word = bytes.readUInt32LE(0);
  const pages = wide ? Number(bytes.readBigUInt64LE(8)) : bytes.readUInt32LE(4);
  const address = bytes.readBigUInt64LE(wide ? 16 : 8);
  const destination = bytes.readBigUInt64LE(wide ? 24 : 16);
  const command = word & 0xffff;
  if (!commands.has(command)) throw malformed(`command ${command}`);
  if (pages > maxPages) throw malformed(`a run of ${pages} pages`);
  return {
    command,
    flags: word >>> 16,
    pages,
    address,
    image: { type: imageType(destination), number: imageNumber(destination) },
  };
}

/** Headers that end a session name no image. */
function imageType(destination: bigint): PageServerHeader['image']['type'] {
  switch (Number(destination & 0xffn)) {
    case 0:
      return 'none';
    case 1:
      return 'task';
    case 2:
      return 'shared';
    default:
      throw malformed(`an image of type ${destination & 0xffn}`);
  }
}

/** A pid in the tree's namespace, or the inode of shared memory. */
function imageNumber(destination: bigint): number {
  const number = destination >> 8n;
  if (number > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed(`image ${number}`);
  return Number(number);
}

export function malformed(what: string): PhaulError {
  return new PhaulError({
    code: 'page-stream-malformed',
    what: `CRIU's page stream carries ${what}`,
    remedy: 'check that the engine is a CRIU that phaul knows (`phaul engine`)',
  });
}

export interface PageServerEvents {
  header(header: PageServerHeader): void;
  /** A piece of the pages that the last header announced: where it lies in what was fed. */
  pages(from: number, to: number): void;
}

/** Bytes in, headers and page bytes out, at whatever places the bytes were cut. */
export class PageServerParser {
  readonly #events: PageServerEvents;
  readonly #pageSize: number;
  readonly #head: Buffer;
  #fill = 0;
  #left = 0;

  constructor(headerBytes: 24 | 32, pageSize: number, events: PageServerEvents) {
    this.#head = Buffer.alloc(headerBytes);
    this.#pageSize = pageSize;
    this.#events = events;
  }

  /** True between two messages: the stream may end here. */
  get atBorder(): boolean {
    return this.#fill === 0 && this.#left === 0;
  }

  feed(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const from = at;
        at = Math.min(at + this.#left, chunk.length);
        this.#left -= at - from;
        this.#events.pages(from, at);
        continue;
      }
      const take = Math.min(this.#head.length - this.#fill, chunk.length - at);
      chunk.copy(this.#head, this.#fill, at, at + take);
      this.#fill += take;
      at += take;
      if (this.#fill < this.#head.length) return;
      this.#fill = 0;
      const header = decodePageServerHeader(this.#head);
      this.#left = carriesPages(header) ? this.#contentBytes(header) : 0;
      this.#events.header(header);
    }
  }

  #contentBytes({ pages, address }: PageServerHeader): number {
    if (pages === 0 || address % BigInt(this.#pageSize) !== 0n)
      throw malformed(`${pages} pages at ${address.toString(16)}`);
    return pages * this.#pageSize;
  }
}

/** Bytes follow a header that adds pages which are present; holes and pages that stay at the source are only named. */
function carriesPages({ command, flags }: PageServerHeader): boolean {
  return command === Command.add || (command === Command.addWithFlags && (flags & PageFlag.present) !== 0);
}
