/** The destination's end of a page connection: what comes is stored, and the source is told when it is. */
import type { Duplex } from 'node:stream';
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import { isImageName } from '../images/image-name.js';
import type { AdmittedConnection } from './door.js';
import { decodeEnd, encodeFailed, encodeHeader, type FrameHeader, FrameKind, FrameParser, refused } from './frame.js';

/** Where images go; `ImageFolder`. */
export interface ImageStore {
  /** Throws when there is one of this name, or when nothing may come any more. */
  create(name: string): ImageWriter;
}

export interface ImageWriter {
  /** null: done with the bytes; else they are the writer's until the promise is settled. */
  write(bytes: Uint8Array): Promise<void> | null;
  /** Resolves when all bytes are with the kernel (`durable`: on the disk) and are those that were sent. */
  end(sent: { bytes: number; hash: string }, durable: boolean): Promise<void>;
}

/** Bytes that may be on their way to the disk before the connection is paused. */
const maxPendingBytes = 8 << 20;
/** A tree has some images per task; this bounds what a hostile peer can make us remember. */
const maxImages = 100_000;
/** Each holds a descriptor. CRIU's page stream has two open at a time. */
const maxOpenImages = 256;
/** How long a failed connection stays open so that the source reads why: closing it with unread data would reset it. ms. */
const lingerMs = 1000;

/**
 * Stores what arrives until the connection ends. Rejects with the first failure, which the source is told too; resolves
 * when the source has closed the connection between two images. From here the connection is the receiver's.
 */
export async function receiveImages(admitted: AdmittedConnection, store: ImageStore, durable: boolean): Promise<void> {
  return await new Receiver(admitted, store, durable).done;
}

class Receiver {
  readonly done: Promise<void>;
  readonly #connection: Duplex;
  readonly #store: ImageStore;
  readonly #durable: boolean;
  readonly #open = new Map<number, ImageWriter>();
  /** All that was begun and is not yet with the kernel. */
  readonly #unsettled = new Set<Promise<void>>();
  #images = 0;
  #pendingBytes = 0;
  #over = false;
  #resolve: () => void = () => {};
  #reject: (failure: PhaulError) => void = () => {};

  constructor({ connection, rest }: AdmittedConnection, store: ImageStore, durable: boolean) {
    this.#connection = connection;
    this.#store = store;
    this.#durable = durable;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const parser = new FrameParser({
      frame: (header, payload) => this.#onFrame(header, payload),
      data: (stream, bytes) => this.#onData(stream, bytes),
    });
    const feed = (chunk: Buffer): void => {
      if (this.#over) return;
      try {
        parser.feed(chunk);
      } catch (thrown) {
        this.#fail(thrown);
      }
    };
    connection.on('data', feed);
    connection.on('error', (cause) => this.#fail(lost(cause)));
    connection.once('close', () => this.#onClose());
    if (rest.length > 0) feed(rest);
    if (connection.destroyed) this.#onClose();
    else if (!this.#crowded) connection.resume();
  }

  get #crowded(): boolean {
    return this.#pendingBytes > maxPendingBytes;
  }

  #onFrame(header: FrameHeader, payload: Buffer): void {
    switch (header.kind) {
      case FrameKind.open: {
        const name = payload.toString('latin1');
        if (!isImageName(name) || this.#open.has(header.stream)) throw refused('an image that cannot be opened');
        if (++this.#images > maxImages || this.#open.size >= maxOpenImages) throw refused('too many images');
        this.#open.set(header.stream, this.#store.create(name));
        return;
      }
      case FrameKind.end: {
        const image = this.#imageOf(header.stream);
        this.#open.delete(header.stream);
        this.#track(image.end(decodeEnd(payload), this.#durable));
        return;
      }
      case FrameKind.flush: {
        const stored = encodeHeader(FrameKind.stored, header.stream, 0);
        Promise.all(this.#unsettled).then(
          () => {
            if (!this.#over) this.#connection.write(stored);
          },
          (thrown: unknown) => this.#fail(thrown),
        );
        return;
      }
      default:
        throw refused(`a frame of kind ${header.kind} where it has no place`);
    }
  }

  #onData(stream: number, bytes: Buffer): void {
    const written = this.#imageOf(stream).write(bytes);
    if (written === null) return;
    this.#pendingBytes += bytes.length;
    if (this.#crowded) this.#connection.pause();
    this.#track(
      written.then(() => {
        this.#pendingBytes -= bytes.length;
        if (this.#pendingBytes <= maxPendingBytes / 2 && this.#connection.isPaused()) this.#connection.resume();
      }),
    );
  }

  #imageOf(stream: number): ImageWriter {
    const image = this.#open.get(stream);
    if (image === undefined) throw refused(`stream ${stream}, which is not open`);
    return image;
  }

  #track(work: Promise<void>): void {
    this.#unsettled.add(work);
    work.then(
      () => this.#unsettled.delete(work),
      (thrown: unknown) => this.#fail(thrown),
    );
  }

  #onClose(): void {
    Promise.all(this.#unsettled).then(
      () => {
        if (this.#open.size > 0) this.#fail(lost(new Error('closed within an image')));
        if (this.#over) return;
        this.#over = true;
        this.#resolve();
      },
      (thrown: unknown) => this.#fail(thrown),
    );
  }

  #fail(thrown: unknown): void {
    if (this.#over) return;
    this.#over = true;
    const failure = asFailure(thrown, {
      code: 'page-store-failed',
      what: 'the destination could not store the images',
      remedy: 'see the log of its agent',
    });
    this.#reject(failure);
    const connection = this.#connection;
    if (connection.destroyed) return;
    connection.end(encodeFailed({ code: failure.code, what: failure.message, remedy: failure.remedy }));
    // What still comes is read and dropped.
    connection.resume();
    const linger = setTimeout(() => connection.destroy(), lingerMs);
    connection.once('close', () => clearTimeout(linger));
  }
}

function lost(cause: unknown): PhaulError {
  return new PhaulError({
    code: 'page-connection-lost',
    what: 'the page connection from the source has broken',
    remedy: 'check the link and the agent of the source',
    cause,
  });
}
