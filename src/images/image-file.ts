/** One image of the folder while it is written: bytes counted and hashed as they come, then proved to be what was sent. */
import { closeSync, constants, fdatasync, fstatSync, openSync, writeSync, writev } from 'node:fs';
import { promisify } from 'node:util';
import { errnoOf, messageOf, PhaulError } from '../failure/phaul-error.js';
import { addon, type Xxh3Stream } from '../native/addon.js';

/**
 * An image's first bytes are written where they come, on the event loop: 10 us into the page cache, where the thread
 * pool costs 60 us a trip and three trips an image. Nearly all images of a tree are smaller than this.
 */
const atOnceBytes = 64 * 1024;
/** IOV_MAX (writev(2)). */
const maxPieces = 1024;

interface Batch {
  readonly pieces: Uint8Array[];
  readonly written: Promise<void>;
  resolve(): void;
  reject(failure: PhaulError): void;
}

export class ImageFile {
  readonly name: string;
  readonly #fd: number;
  readonly #hash: Xxh3Stream = addon().xxh3Stream();
  #bytes = 0;
  #digest: string | null = null;
  /** Pieces that come while a write is under way leave together in the next one. */
  #next: Batch | null = null;
  #writing: Promise<void> | null = null;
  #failure: PhaulError | null = null;
  #open = true;

  /** `name` has been checked. Throws `image-damaged` if there is one already, `destination-full`, `page-store-failed`. */
  constructor(folder: string, name: string) {
    this.name = name;
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      this.#fd = openSync(`${folder}/${name}`, flags, 0o600);
    } catch (cause) {
      throw errnoOf(cause) === 'EEXIST' ? damaged(name, 'it was sent twice') : storeFailed(cause);
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** null: not ended, or not what was sent. */
  get digest(): string | null {
    return this.#digest;
  }

  /** null: written; else the bytes are this image's until the promise is settled. Throws `destination-full`, `page-store-failed`. */
  write(bytes: Uint8Array): Promise<void> | null {
    if (this.#failure) throw this.#failure;
    if (!this.#open) throw damaged(this.name, 'it goes on behind its end');
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
    if (this.#writing === null && this.#bytes <= atOnceBytes) {
      this.#writeAtOnce(bytes);
      return null;
    }
    this.#next ??= batch();
    this.#next.pieces.push(bytes);
    const { written } = this.#next;
    this.#writing ??= this.#drain();
    return written;
  }

  /** What came must be what was sent. With `durable` it is on the disk when this returns. Throws `image-damaged`. */
  async end(sent: { bytes: number; hash: string }, durable: boolean): Promise<void> {
    if (this.#writing !== null) await this.#writing;
    if (this.#failure) throw this.#failure;
    try {
      const digest = this.#hash.digest();
      if (this.#bytes !== sent.bytes) throw damaged(this.name, `${this.#bytes} of ${sent.bytes} bytes came`);
      if (digest !== sent.hash) throw damaged(this.name, 'its bytes are not those that were sent');
      const { size } = fstatSync(this.#fd);
      if (size !== this.#bytes) throw damaged(this.name, `the file has ${size} of ${this.#bytes} bytes`);
      if (durable) {
        await promisify(fdatasync)(this.#fd).catch((cause: unknown) => {
          throw storeFailed(cause);
        });
      }
      this.#digest = digest;
    } finally {
      this.#close();
    }
  }

  /** Gives the descriptor back when no write is under way any more. Idempotent. */
  async abandon(): Promise<void> {
    await this.#writing;
    this.#close();
  }

  #close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  #writeAtOnce(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
    } catch (cause) {
      this.#failure = storeFailed(cause);
      throw this.#failure;
    }
  }

  /** Never rejects: the batches do. */
  async #drain(): Promise<void> {
    for (let now = this.#next; now !== null; now = this.#next) {
      this.#next = null;
      try {
        if (this.#failure) throw this.#failure;
        for (let at = 0; at < now.pieces.length; at += maxPieces)
          await this.#writePieces(now.pieces.slice(at, at + maxPieces));
        now.resolve();
      } catch (cause) {
        this.#failure ??= storeFailed(cause);
        now.reject(this.#failure);
      }
    }
    this.#writing = null;
  }

  async #writePieces(pieces: readonly Uint8Array[]): Promise<void> {
    for (let left = pieces; left.length > 0; ) left = behind(left, await written(this.#fd, left));
  }
}

function written(fd: number, pieces: readonly Uint8Array[]): Promise<number> {
  return new Promise((resolve, reject) => {
    writev(fd, pieces, (error, bytes) => (error ? reject(error) : resolve(bytes)));
  });
}

/** What is left of `pieces` behind its first `bytes` bytes. */
function behind(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  return pieces.flatMap((piece) => {
    const from = Math.min(skip, piece.length);
    skip -= from;
    return from === piece.length ? [] : [piece.subarray(from)];
  });
}

function batch(): Batch {
  let settle: Pick<Batch, 'resolve' | 'reject'> = { resolve: () => {}, reject: () => {} };
  const written = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
  });
  // Each piece's writer is told; a batch whose writers have gone is no unhandled failure.
  written.catch(() => undefined);
  return { pieces: [], written, ...settle };
}

export function storeFailed(cause: unknown): PhaulError {
  if (cause instanceof PhaulError) return cause;
  const full = errnoOf(cause) === 'ENOSPC' || errnoOf(cause) === 'EDQUOT';
  return new PhaulError({
    code: full ? 'destination-full' : 'page-store-failed',
    what: full
      ? 'the disk of the destination is full'
      : `the destination could not store an image: ${messageOf(cause)}`,
    remedy: 'make room in the state folder of the destination (PHAUL_STATE_DIR), or set it to another file system',
    cause,
  });
}

export function damaged(name: string, why: string): PhaulError {
  return new PhaulError({
    code: 'image-damaged',
    what: `the image ${name} cannot be used: ${why}`,
    remedy: 'migrate again; if it happens twice, check the memory and disks of both hosts',
  });
}
