/** The source's end of a page connection: takes images as streams of bytes and gives receipts. */
import type { Duplex } from 'node:stream';
import { PhaulError } from '../failure/phaul-error.js';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import { addon, type Xxh3Stream } from '../native/addon.js';
import {
  encodeEnd,
  encodeFrame,
  encodeHeader,
  type FrameHeader,
  FrameKind,
  FrameParser,
  imageNamePattern,
  maxDataBytes,
  preface,
} from './frame.js';

interface OpenStream {
  readonly number: number;
  readonly hash: Xxh3Stream;
  bytes: number;
}

interface Waiter {
  resolve(): void;
  reject(failure: PhaulError): void;
}

export class PageSender implements ImageSink, AsyncDisposable {
  readonly #connection: Duplex;
  readonly #streams = new Map<string, OpenStream>();
  readonly #flushes = new Map<number, Waiter>();
  #welcome: Waiter | null = null;
  #nextStream = 1;
  #nextFlush = 1;
  #bytesSent = 0;
  #failure: PhaulError | null = null;
  #closing = false;

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
    connection.once('error', (cause) => this.#fail(lost(cause)));
    connection.once('close', () => this.#fail(lost(new Error('closed by the other end'))));
  }

  /** Opens the door with a one-time token; resolves when the destination has let us in. The connection is the sender's from here. */
  static async connect(connection: Duplex, opening: { migrationId: string; token: Uint8Array }): Promise<PageSender> {
    const sender = new PageSender(connection);
    const hello = Buffer.concat([opening.token, Buffer.from(opening.migrationId, 'latin1')]);
    const welcomed = new Promise<void>((resolve, reject) => {
      sender.#welcome = { resolve, reject };
    });
    connection.write(Buffer.concat([preface, encodeFrame(FrameKind.hello, 0, hello)]));
    await welcomed;
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
    for (let at = 0; at < bytes.length; at += maxDataBytes) {
      const piece = bytes.subarray(at, at + maxDataBytes);
      await this.#send(encodeHeader(FrameKind.data, stream.number, piece.length), piece);
    }
  }

  async end(name: string): Promise<DeliveredImage> {
    const stream = this.#stream(name);
    this.#streams.delete(name);
    const receipt = { name, bytes: stream.bytes, hash: stream.hash.digest() };
    await this.#send(encodeFrame(FrameKind.end, stream.number, encodeEnd(receipt.bytes, receipt.hash)), null);
    return receipt;
  }

  async flush(): Promise<void> {
    if (this.#failure) throw this.#failure;
    const number = this.#nextFlush++;
    const stored = new Promise<void>((resolve, reject) => {
      this.#flushes.set(number, { resolve, reject });
    });
    await Promise.all([this.#send(encodeHeader(FrameKind.flush, number, 0), null), stored]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    if (this.#connection.destroyed) return;
    const closed = new Promise<void>((resolve) => this.#connection.once('close', () => resolve()));
    this.#connection.destroy();
    await closed;
  }

  #stream(name: string): OpenStream {
    const known = this.#streams.get(name);
    if (known) return known;
    if (!imageNamePattern.test(name)) throw new TypeError(`no image can be called ${name}`);
    const stream = { number: this.#nextStream++, hash: addon().xxh3Stream(), bytes: 0 };
    this.#streams.set(name, stream);
    // Ordered before the data by the connection itself; a failure shows in the write that follows.
    if (!this.#failure) this.#connection.write(encodeFrame(FrameKind.open, stream.number, Buffer.from(name, 'latin1')));
    return stream;
  }

  /** Header and payload in one writev, without a copy of the payload. */
  #send(header: Buffer, payload: Uint8Array | null): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure);
        return;
      }
      const done = (cause: Error | null | undefined): void => {
        if (cause) reject(this.#failure ?? lost(cause));
        else resolve();
      };
      if (payload === null) {
        this.#connection.write(header, done);
        return;
      }
      this.#connection.cork();
      this.#connection.write(header);
      this.#connection.write(payload, done);
      this.#connection.uncork();
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
      const [code = 'page-store-failed', what = 'the destination could not store the images', remedy = 'see its log'] =
        payload.toString('utf8').split('\n');
      this.#fail(new PhaulError({ code, what, remedy }));
    } else {
      this.#fail(lost(new Error(`the destination has sent a frame of kind ${header.kind}`)));
    }
  }

  #fail(failure: PhaulError): void {
    if (this.#closing || this.#failure) return;
    this.#failure = failure;
    this.#welcome?.reject(failure);
    for (const waiter of this.#flushes.values()) waiter.reject(failure);
    this.#flushes.clear();
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
