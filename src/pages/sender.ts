/** The source's end of a page connection: takes images as streams of bytes and gives receipts. */
import type { Duplex } from 'node:stream';
import { PhaulError } from '../failure/phaul-error.js';
import { isImageName } from '../images/image-name.js';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import { addon, type Xxh3Stream } from '../native/addon.js';
import {
  decodeFailed,
  encodeEnd,
  encodeFrame,
  encodeHeader,
  encodeHello,
  type FrameHeader,
  FrameKind,
  FrameParser,
  maxDataBytes,
  preface,
} from './frame.js';

/** How long the destination may take to let us in: its door sends strangers away after the same time. ms. */
const welcomeMs = 5000;

interface OpenStream {
  readonly number: number;
  readonly hash: Xxh3Stream;
  bytes: number;
}

interface Waiter {
  resolve(): void;
  reject(failure: PhaulError): void;
}

/** Calls take effect in the order in which they are made, whether or not their promises are awaited. */
export class PageSender implements ImageSink, AsyncDisposable {
  readonly #connection: Duplex;
  readonly #streams = new Map<string, OpenStream>();
  /** Everything that waits for the other end or for the kernel: a break rejects them all. */
  readonly #waiting = new Set<Waiter>();
  readonly #flushes = new Map<number, Waiter>();
  #welcome: Waiter | null = null;
  #nextStream = 1;
  #nextFlush = 1;
  #bytesSent = 0;
  #failure: PhaulError | null = null;
  #corked = false;

  private constructor(connection: Duplex) {
    this.#connection = connection;
    const parser = new FrameParser({
      frame: (header, payload) => this.#heard(header, payload),
      data: () => this.#fail(lost(new Error('the destination has sent data'))),
    });
    connection.on('data', (chunk: Buffer) => {
      try {
        parser.feed(chunk);
      } catch (thrown) {
        this.#fail(lost(thrown));
      }
    });
    connection.on('error', (cause) => this.#fail(lost(cause)));
    connection.once('end', () => this.#fail(lost(new Error('closed by the other end'))));
    connection.once('close', () => this.#fail(lost(new Error('closed'))));
  }

  /**
   * Opens the door with a one-time token; resolves when the destination has let us in. The connection is the sender's
   * from here. Throws `page-connection-lost`: the token is not (or no longer) good, or the connection has broken.
   */
  static async connect(connection: Duplex, opening: { migrationId: string; token: Uint8Array }): Promise<PageSender> {
    const sender = new PageSender(connection);
    const patience = setTimeout(() => sender.#fail(lost(new Error(`no welcome within ${welcomeMs} ms`))), welcomeMs);
    try {
      const welcomed = sender.#await((waiter) => {
        sender.#welcome = waiter;
      });
      connection.write(Buffer.concat([preface, encodeHello(opening)]));
      await welcomed;
    } finally {
      clearTimeout(patience);
    }
    return sender;
  }

  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** Resolves when the bytes have left this process, so that their buffer may be used again. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const stream = this.#stream(name);
    stream.hash.update(bytes);
    stream.bytes += bytes.length;
    this.#bytesSent += bytes.length;
    const sent: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += maxDataBytes) {
      const piece = bytes.subarray(at, at + maxDataBytes);
      sent.push(this.#send(encodeHeader(FrameKind.data, stream.number, piece.length), piece));
    }
    // One piece is the rule; more than one only in images that are written whole.
    await (sent.length === 1 ? sent[0] : Promise.all(sent));
  }

  async end(name: string): Promise<DeliveredImage> {
    const stream = this.#stream(name);
    this.#streams.delete(name);
    const receipt = { name, bytes: stream.bytes, hash: stream.hash.digest() };
    await this.#send(encodeFrame(FrameKind.end, stream.number, encodeEnd(receipt.bytes, receipt.hash)), null);
    return receipt;
  }

  /** Throws what the destination says (`destination-full`, `image-damaged`, `page-store-failed`), or `page-connection-lost`. */
  async flush(): Promise<void> {
    const number = this.#nextFlush++;
    const stored = this.#await((waiter) => this.#flushes.set(number, waiter));
    await Promise.all([this.#send(encodeHeader(FrameKind.flush, number, 0), null), stored]);
  }

  /** Hangs up at once: what was not flushed may not arrive, and whoever still waits is told so. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(lost(new Error('hung up by this side')));
    if (this.#connection.closed) return;
    await new Promise<void>((resolve) => this.#connection.once('close', () => resolve()));
  }

  #stream(name: string): OpenStream {
    const known = this.#streams.get(name);
    if (known) return known;
    if (!isImageName(name)) throw new TypeError(`no image can be called ${name}`);
    const stream = { number: this.#nextStream++, hash: addon().xxh3Stream(), bytes: 0 };
    this.#streams.set(name, stream);
    this.#put(encodeFrame(FrameKind.open, stream.number, Buffer.from(name, 'latin1')), () => {});
    return stream;
  }

  /** Resolves when header and payload are with the kernel (with TLS: encrypted). No copy of the payload. */
  #send(header: Buffer, payload: Uint8Array | null): Promise<void> {
    return this.#await((waiter) => {
      const done = (cause: Error | null | undefined): void => {
        if (cause) this.#fail(lost(cause));
        else waiter.resolve();
      };
      if (payload === null) {
        this.#put(header, done);
        return;
      }
      this.#put(header, () => {});
      this.#put(payload, done);
    });
  }

  /** What is written in one turn of the event loop leaves in one writev(2). */
  #put(bytes: Uint8Array, done: (cause: Error | null | undefined) => void): void {
    if (this.#failure) return;
    if (!this.#corked) {
      this.#corked = true;
      this.#connection.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#connection.uncork();
      });
    }
    this.#connection.write(bytes, done);
  }

  /** A promise that `start` arranges to be resolved, and that a break rejects. */
  #await(start: (waiter: Waiter) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure);
        return;
      }
      const waiter: Waiter = {
        resolve: () => {
          if (this.#waiting.delete(waiter)) resolve();
        },
        reject,
      };
      this.#waiting.add(waiter);
      start(waiter);
    });
  }

  #heard(header: FrameHeader, payload: Buffer): void {
    if (header.kind === FrameKind.welcome) {
      this.#welcome?.resolve();
      this.#welcome = null;
    } else if (header.kind === FrameKind.stored) {
      this.#flushes.get(header.stream)?.resolve();
      this.#flushes.delete(header.stream);
    } else if (header.kind === FrameKind.failed) {
      this.#fail(new PhaulError(decodeFailed(payload)));
    } else {
      this.#fail(lost(new Error(`the destination has sent a frame of kind ${header.kind}`)));
    }
  }

  #fail(failure: PhaulError): void {
    if (this.#failure === null) {
      this.#failure = failure;
      for (const waiter of this.#waiting) waiter.reject(failure);
      this.#waiting.clear();
      this.#flushes.clear();
    }
    this.#connection.destroy();
  }
}

function lost(cause: unknown): PhaulError {
  return new PhaulError({
    code: 'page-connection-lost',
    what: 'the page connection to the destination has broken',
    remedy: 'check the link and the agent of the destination, then try again',
    cause,
  });
}
