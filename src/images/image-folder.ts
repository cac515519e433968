/**
 * The images of one migration on the destination, as they arrive: written once, counted and hashed on the way, and
 * proved complete before CRIU may read them. CRIU itself checks nothing: it restores flipped bits silently and loops on
 * a truncated file (criu.md 0.9).
 */
import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, messageOf, PhaulError } from '../failure/phaul-error.js';
import type { DeliveredImage } from '../migration/ports.js';
import { addon, type Xxh3Stream } from '../native/addon.js';

/** Images up to this size are read back from the disk when they are verified. */
const readBackBytes = 1 << 20;

interface Image {
  readonly file: FileHandle;
  readonly hash: Xxh3Stream;
  bytes: number;
  digest: string | null;
  /** Writes of one image follow each other; pieces that come meanwhile are gathered into the next one. */
  writing: Promise<void>;
  gathered: Uint8Array[];
}

export class ImageFolder implements AsyncDisposable {
  readonly path: string;
  readonly #images = new Map<string, Image>();
  #keep = false;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes the folder, private to root; throws `images-exist` if there is one already. */
  static async create(path: string): Promise<ImageFolder> {
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (cause) {
      throw new PhaulError({ code: 'images-exist', what: `the images folder ${path} could not be made`, remedy: 'phaul leftovers --clean', cause });
    }
    return new ImageFolder(path);
  }

  /** `name` has been checked by the frame codec. */
  async create(name: string): Promise<void> {
    if (this.#images.has(name)) throw damaged(name, 'it was sent twice');
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    const file = await open(join(this.path, name), flags, 0o600);
    this.#images.set(name, { file, hash: addon().xxh3Stream(), bytes: 0, digest: null, writing: Promise.resolve(), gathered: [] });
  }

  /** Appends; resolves when the bytes are with the kernel. Throws `destination-full`. */
  write(name: string, bytes: Uint8Array): Promise<void> {
    const image = this.#image(name);
    image.hash.update(bytes);
    image.bytes += bytes.length;
    image.gathered.push(bytes);
    if (image.gathered.length === 1) {
      const before = image.writing;
      image.writing = before.then(() => drain(image));
      image.writing.catch(() => undefined);
    }
    return image.writing;
  }

  /** Ends an image: what came must be what was sent. With `durable` it is on the disk when this returns. */
  async end(name: string, sent: { bytes: number; hash: string }, durable: boolean): Promise<void> {
    const image = this.#image(name);
    await image.writing;
    image.digest = image.hash.digest();
    if (image.bytes !== sent.bytes) throw damaged(name, `${image.bytes} of ${sent.bytes} bytes came`);
    if (image.digest !== sent.hash) throw damaged(name, 'its bytes are not those that were sent');
    if (durable) await image.file.datasync();
    await image.file.close();
  }

  /** Resolves when all bytes written so far are with the kernel. */
  async settled(): Promise<void> {
    await Promise.all([...this.#images.values()].map((image) => image.writing));
  }

  /** Proves that exactly these images lie here, whole. Throws `image-damaged` naming the first that does not. */
  async verify(delivered: readonly DeliveredImage[]): Promise<void> {
    const names = new Set(delivered.map((image) => image.name));
    for (const name of await readdir(this.path)) {
      if (name.endsWith('.img') && !names.has(name)) throw damaged(name, 'nobody has sent it');
    }
    await Promise.all(delivered.map((image) => this.#verifyOne(image)));
  }

  /** From now on the folder stays when this is disposed. */
  keep(): void {
    this.#keep = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const image of this.#images.values()) {
      if (image.digest !== null) continue;
      // The folder goes; a failed last write was told to whoever wrote it.
      await image.writing.catch(() => undefined);
      await image.file.close();
    }
    if (!this.#keep) await rm(this.path, { recursive: true, force: true });
  }

  async #verifyOne(image: DeliveredImage): Promise<void> {
    const arrived = this.#images.get(image.name);
    if (arrived === undefined || arrived.digest === null) throw damaged(image.name, 'it did not arrive');
    if (arrived.bytes !== image.bytes || arrived.digest !== image.hash) throw damaged(image.name, 'it is not the one that was sent');
    const path = join(this.path, image.name);
    const facts = await lstat(path);
    if (!facts.isFile() || facts.size !== image.bytes) throw damaged(image.name, `the disk holds ${facts.size} of ${image.bytes} bytes`);
    if (image.bytes > readBackBytes) return;
    const hash = addon().xxh3Stream();
    hash.update(await readFile(path));
    if (hash.digest() !== image.hash) throw damaged(image.name, 'the disk holds other bytes');
  }

  #image(name: string): Image {
    const image = this.#images.get(name);
    if (image === undefined) throw damaged(name, 'it was not opened');
    return image;
  }
}

async function drain(image: Image): Promise<void> {
  while (image.gathered.length > 0) {
    // IOV_MAX is 1024 (writev(2)).
    const pieces = image.gathered.slice(0, 1000);
    let left = pieces.reduce((sum, piece) => sum + piece.length, 0);
    let at = pieces;
    while (left > 0) {
      const { bytesWritten } = await image.file.writev(at).catch((cause: unknown) => {
        throw storeFailed(cause);
      });
      left -= bytesWritten;
      if (left > 0) at = rest(at, bytesWritten);
    }
    image.gathered = image.gathered.slice(pieces.length);
  }
}

function rest(pieces: readonly Uint8Array[], written: number): Uint8Array[] {
  let skip = written;
  return pieces.flatMap((piece) => {
    const from = Math.min(skip, piece.length);
    skip -= from;
    return from === piece.length ? [] : [piece.subarray(from)];
  });
}

function storeFailed(cause: unknown): PhaulError {
  const full = errnoOf(cause) === 'ENOSPC' || errnoOf(cause) === 'EDQUOT';
  return new PhaulError({
    code: full ? 'destination-full' : 'page-store-failed',
    what: full ? 'the disk of the destination is full' : `the destination could not store an image: ${messageOf(cause)}`,
    remedy: 'make room in the state folder of the destination (PHAUL_STATE_DIR), or set it to another file system',
    cause,
  });
}

function damaged(name: string, why: string): PhaulError {
  return new PhaulError({
    code: 'image-damaged',
    what: `the image ${name} cannot be used: ${why}`,
    remedy: 'migrate again; if it happens twice, check the memory and disks of both hosts',
  });
}
