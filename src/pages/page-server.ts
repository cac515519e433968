/**
 * The memory of a dump, taken from CRIU: we are the page server at the other end of the socket that CRIU inherits, and
 * what it sends becomes `pagemap-*.img` and `pages-*.img` on the destination without touching this host's disk.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import { type PagemapDialect, PageFlag, PagemapWriter } from '../images/pagemap.js';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import { Command, malformed, type PageServerHeader, PageServerParser } from './page-server-protocol.js';

export interface PageServerPlan {
  /** Our end of a STREAM socket pair; the server's from here on. */
  readonly fd: number;
  readonly headerBytes: 24 | 32;
  readonly pageSize: number;
  readonly sink: ImageSink;
  readonly signal: AbortSignal;
}

/** Buffers between CRIU and the sink: enough to keep both busy, and all the memory that this takes. */
const ringBuffers = 6;
const bufferBytes = 512 * 1024;
/** Where CRIU's own page server begins to count. */
const firstPagesImage = 0x10001;

/** Serves one dump to its end; the receipts of all images that it became. Throws `page-stream-malformed`, or what the sink throws. */
export async function servePages(plan: PageServerPlan): Promise<DeliveredImage[]> {
  const server = new PageServer(plan);
  return await server.done;
}

interface OpenImage {
  readonly pagemapName: string;
  readonly pagesName: string;
  readonly pagemap: PagemapWriter;
  hasPages: boolean;
}

class PageServer {
  readonly done: Promise<DeliveredImage[]>;
  readonly #plan: PageServerPlan;
  readonly #socket: Socket;
  readonly #free: Buffer[] = [];
  readonly #receipts: DeliveredImage[] = [];
  #resolve: (receipts: DeliveredImage[]) => void = () => {};
  #reject: (failure: unknown) => void = () => {};
  #order: Promise<void> = Promise.resolve();
  #image: OpenImage | null = null;
  #nextPagesImage = firstPagesImage;
  #closed = false;

  constructor(plan: PageServerPlan) {
    this.#plan = plan;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined);
    for (let index = 0; index < ringBuffers; index++) this.#free.push(Buffer.allocUnsafeSlow(bufferBytes));
    const parser = new PageServerParser(plan.headerBytes, plan.pageSize, {
      header: (header) => this.#onHeader(header),
      pages: (bytes) => this.#onPages(bytes),
    });
    // `onread` works with a descriptor too (net.js of Node 20 and 22), its types only know it for `connect`.
    const options: SocketConstructorOpts & { onread: OnReadOpts } = {
      fd: plan.fd,
      readable: true,
      writable: true,
      onread: {
        buffer: () => this.#take(),
        callback: (bytes: number, buffer: Uint8Array) => this.#onRead(parser, bytes, buffer as Buffer),
      },
    };
    this.#socket = new Socket(options);
    this.#socket.on('error', (cause) => this.#fail(cause));
    this.#socket.once('close', () => {
      if (!this.#closed) this.#fail(new Error(`CRIU has closed the page stream early${parser.atBorder ? '' : ', within a message'}`));
    });
    const onAbort = (): void => this.#fail(plan.signal.reason);
    plan.signal.addEventListener('abort', onAbort, { once: true });
    const quiet = (): void => plan.signal.removeEventListener('abort', onAbort);
    this.done.then(quiet, quiet);
    this.#socket.resume();
  }

  /** libuv asks for a buffer only while the socket flows, and it flows only while one is free. */
  #take(): Buffer {
    const buffer = this.#free.pop();
    if (buffer === undefined) throw new Error('no page buffer is free although the socket flows');
    return buffer;
  }

  #onRead(parser: PageServerParser, bytes: number, buffer: Buffer): boolean {
    let inUse = 1;
    const release = (): void => {
      inUse--;
      if (inUse > 0) return;
      this.#free.push(buffer);
      if (this.#socket.isPaused() && !this.#socket.destroyed) this.#socket.resume();
    };
    this.#retain = () => {
      inUse++;
      return release;
    };
    try {
      parser.feed(buffer.subarray(0, bytes));
    } catch (thrown) {
      this.#fail(thrown);
    }
    release();
    if (this.#free.length > 0) return true;
    this.#socket.pause();
    return false;
  }

  #retain: () => () => void = () => () => {};

  #onHeader(header: PageServerHeader): void {
    switch (header.command) {
      case Command.open:
      case Command.openAnswered:
        this.#endImage();
        this.#openImage(header);
        // No parent: in stop-and-copy every page travels.
        if (header.command === Command.openAnswered) this.#socket.write(Buffer.from([0]));
        return;
      case Command.parent:
        this.#socket.write(Buffer.alloc(4));
        return;
      case Command.add:
      case Command.hole:
      case Command.addWithFlags:
        this.#addRun(header);
        return;
      case Command.close:
      case Command.forceClose:
        this.#endImage();
        this.#closed = true;
        this.#socket.write(Buffer.alloc(4));
        this.#step(async () => this.#resolve(this.#receipts));
        return;
      default:
        throw malformed(`command ${header.command}, which a dump does not send`);
    }
  }

  #openImage({ image }: PageServerHeader): void {
    const number = this.#nextPagesImage++;
    const dialect: PagemapDialect = this.#plan.headerBytes === 32 ? 'since-4.2' : 'before-4.2';
    this.#image = {
      pagemapName: `pagemap-${image.type === 'shared' ? 'shmem-' : ''}${image.number}.img`,
      pagesName: `pages-${number}.img`,
      pagemap: new PagemapWriter(number, dialect),
      hasPages: false,
    };
  }

  #addRun({ command, flags, pages, address }: PageServerHeader): void {
    if (this.#image === null) throw malformed('pages before an image was opened');
    const kind = command === Command.add ? PageFlag.present : command === Command.hole ? PageFlag.parent : flags;
    this.#image.pagemap.add({ address, pages, flags: kind });
  }

  #onPages(bytes: Buffer): void {
    const image = this.#image;
    if (image === null) throw malformed('pages without an image');
    image.hasPages = true;
    const release = this.#retain();
    this.#step(async () => {
      try {
        await this.#plan.sink.write(image.pagesName, bytes);
      } finally {
        release();
      }
    });
  }

  #endImage(): void {
    const image = this.#image;
    this.#image = null;
    if (image === null) return;
    this.#step(async () => {
      const { sink } = this.#plan;
      // CRIU opens the pages image of every pagemap, so an empty one must exist too.
      if (!image.hasPages) await sink.write(image.pagesName, new Uint8Array());
      this.#receipts.push(await sink.end(image.pagesName));
      await sink.write(image.pagemapName, image.pagemap.finish());
      this.#receipts.push(await sink.end(image.pagemapName));
    });
  }

  /** Steps reach the sink in the order of the stream. */
  #step(action: () => Promise<void>): void {
    this.#order = this.#order.then(action);
    this.#order.catch((thrown: unknown) => this.#fail(thrown));
  }

  #fail(thrown: unknown): void {
    if (this.#closed && !(thrown instanceof PhaulError)) return;
    this.#socket.destroy();
    this.#reject(
      asFailure(thrown, { code: 'page-stream-broken', what: 'the page stream from CRIU has broken', remedy: 'see CRIU\'s failure' }),
    );
  }
}
