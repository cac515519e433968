/**
 * The images of one migration on the destination, as they arrive: written once, counted and hashed on the way, and
 * proved complete before CRIU may read them. CRIU itself checks nothing: it restores flipped bits silently and loops on
 * a truncated file (criu.md 0.9).
 */
import { lstatSync, readFileSync } from 'node:fs';
import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PhaulError } from '../failure/phaul-error.js';
import type { DeliveredImage } from '../migration/ports.js';
import { addon } from '../native/addon.js';
import { damaged, ImageFile } from './image-file.js';
import { isImageName } from './image-name.js';

/** Images up to this size are read back from the disk when they are verified: 40 us for 256 KiB, all from the page cache. */
const readBackBytes = 1 << 20;

export class ImageFolder implements AsyncDisposable {
  readonly path: string;
  readonly #images = new Map<string, ImageFile>();
  #sealed = false;
  #keep = false;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes the folder, private to root; throws `images-exist` if there is one already. */
  static async create(path: string): Promise<ImageFolder> {
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (cause) {
      throw new PhaulError({
        code: 'images-exist',
        what: `the images folder ${path} could not be made`,
        remedy: 'phaul leftovers --clean',
        cause,
      });
    }
    return new ImageFolder(path);
  }

  /** Begins an image. Throws `image-damaged`: a name that is none, one that was sent before, or verification has begun. */
  create(name: string): ImageFile {
    if (this.#sealed) throw damaged(name, 'it came when the images were complete already');
    if (!isImageName(name)) throw damaged(JSON.stringify(name.slice(0, 80)), 'CRIU has no such image');
    if (this.#images.has(name)) throw damaged(name, 'it was sent twice');
    const image = new ImageFile(this.path, name);
    this.#images.set(name, image);
    return image;
  }

  /**
   * Proves that exactly these images lie here, whole; nothing is taken in any more. Throws `image-damaged` naming the
   * first that is not. With `durable` the folder itself is on the disk when this returns.
   */
  async verify(delivered: readonly DeliveredImage[], durable = false): Promise<void> {
    this.#sealed = true;
    const names = new Set(delivered.map((image) => image.name));
    for (const name of await readdir(this.path)) {
      if (name.endsWith('.img') && !names.has(name)) throw damaged(name, 'nobody has sent it');
    }
    for (const image of delivered) this.#verifyOne(image);
    if (!durable) return;
    const folder = await open(this.path);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  /** From now on the folder stays when this is disposed. */
  keep(): void {
    this.#keep = true;
  }

  /** Whoever feeds it must have stopped. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#sealed = true;
    await Promise.all([...this.#images.values()].map((image) => image.abandon()));
    if (!this.#keep) await rm(this.path, { recursive: true, force: true });
  }

  #verifyOne(sent: DeliveredImage): void {
    const arrived = this.#images.get(sent.name);
    if (arrived === undefined || arrived.digest === null) throw damaged(sent.name, 'it did not arrive');
    if (arrived.bytes !== sent.bytes || arrived.digest !== sent.hash)
      throw damaged(sent.name, 'it is not the one that was sent');
    const path = join(this.path, sent.name);
    const facts = lstatSync(path, { throwIfNoEntry: false });
    if (!facts?.isFile()) throw damaged(sent.name, 'its file is gone');
    if (facts.size !== sent.bytes) throw damaged(sent.name, `the disk holds ${facts.size} of ${sent.bytes} bytes`);
    if (sent.bytes > readBackBytes) return;
    const hash = addon().xxh3Stream();
    hash.update(readFileSync(path));
    if (hash.digest() !== sent.hash) throw damaged(sent.name, 'the disk holds other bytes');
  }
}
