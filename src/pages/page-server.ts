/**
 * The memory of a dump, taken from CRIU: we are the page server at the other end of the socket that CRIU inherits, and
 * what it sends becomes `pagemap-*.img` and `pages-*.img` on the destination without touching this host's disk.
 *
 * A CRIU whose page server vanishes ignores the SIGPIPE, fails its dump and lets the tree go on; so every failure here
 * ends with the socket closed.
 */
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import { PageFlag, type PagemapDialect, PagemapWriter } from '../images/pagemap.js';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import { Command, malformed, type PageServerHeader, PageServerParser } from './page-server-protocol.js';
import { ReadRing } from './read-ring.js';

export interface PageServerPlan {
  /** Our end of a STREAM socket pair; the server's from here on. */
  readonly fd: number;
  /** 32 since CRIU 4.2, 24 before. */
  readonly headerBytes: 24 | 32;
  readonly pageSize: number;
  readonly sink: ImageSink;
  readonly signal: AbortSignal;
}

/** Where CRIU's own page server begins to count. */
const firstPagesImage = 0x10001;
const noParent = { byte: Buffer.alloc(1), int32: Buffer.alloc(4) };
const statusGood = Buffer.alloc(4);

/**
 * Serves one dump to its end: the receipts of all images that it became. CRIU is told that its pages have arrived when
 * the sink has taken them. Throws `page-stream-malformed`, `page-stream-cut`, the signal's reason, or what the sink throws.
 */
export async function servePages(plan: PageServerPlan): Promise<DeliveredImage[]> {
  return await new PageServer(plan).done;
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
  readonly #ring: ReadRing;
  readonly #parser: PageServerParser;
  readonly #receipts: Promise<DeliveredImage>[] = [];
  readonly #opened = new Set<string>();
  #resolve: (receipts: DeliveredImage[]) => void = () => {};
  #reject: (failure: unknown) => void = () => {};
  #image: OpenImage | null = null;
  #nextPagesImage = firstPagesImage;
  #state: 'open' | 'closing' | 'over' = 'open';
  /** What the sink has not yet taken of the chunk at hand, and in all. */
  #writes: Promise<void>[] = [];
  readonly #unsettled = new Set<Promise<void>>();
  /** Page bytes of the chunk at hand that have not been given to the sink: it holds them from `#from` to `#to`. */
  #chunk: Buffer = Buffer.alloc(0);
  #from = 0;
  #to = 0;

  constructor(plan: PageServerPlan) {
    this.#plan = plan;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#parser = new PageServerParser(plan.headerBytes, plan.pageSize, {
      header: (header) => this.#onHeader(header),
      pages: (from, to) => this.#onPages(from, to),
    });
    const onAbort = (): void => this.#fail(plan.signal.reason);
    plan.signal.addEventListener('abort', onAbort, { once: true });
    const quiet = (): void => plan.signal.removeEventListener('abort', onAbort);
    this.done.then(quiet, quiet);
    this.#ring = new ReadRing(plan.fd, {
      bytes: (chunk) => this.#onBytes(chunk),
      end: (cause) => this.#fail(cut(cause, this.#parser.atBorder)),
    });
    if (plan.signal.aborted) onAbort();
  }

  #onBytes(chunk: Buffer): Promise<void> | null {
    if (this.#state === 'over') return null;
    this.#writes = [];
    this.#chunk = chunk;
    this.#from = this.#to = 0;
    try {
      this.#parser.feed(chunk);
      this.#writePages();
    } catch (thrown) {
      this.#fail(thrown);
    }
    if (this.#writes.length === 0) return null;
    return Promise.all(this.#writes).then(() => undefined);
  }

  #onHeader(header: PageServerHeader): void {
    if (this.#state !== 'open') throw malformed('something behind its end');
    switch (header.command) {
      case Command.open:
      case Command.openAnswered:
        this.#endImage();
        this.#openImage(header);
        // No parent: in stop-and-copy every page travels.
        if (header.command === Command.openAnswered) this.#ring.answer(noParent.byte);
        return;
      case Command.parent:
        this.#ring.answer(noParent.int32);
        return;
      case Command.add:
      case Command.hole:
      case Command.addWithFlags:
        this.#addRun(header);
        return;
      case Command.close:
      case Command.forceClose:
        this.#endImage();
        this.#close();
        return;
      default:
        throw malformed(`command ${header.command}, which a dump does not send`);
    }
  }

  #openImage({ image }: PageServerHeader): void {
    if (image.type === 'none') throw malformed('an image without a type');
    const pagemapName = `pagemap-${image.type === 'shared' ? 'shmem-' : ''}${image.number}.img`;
    if (this.#opened.has(pagemapName)) throw malformed(`${pagemapName} twice`);
    this.#opened.add(pagemapName);
    const number = this.#nextPagesImage++;
    const dialect: PagemapDialect = this.#plan.headerBytes === 32 ? 'since-4.2' : 'before-4.2';
    const pagesName = `pages-${number}.img`;
    this.#image = { pagemapName, pagesName, pagemap: new PagemapWriter(number, dialect), hasPages: false };
  }

  #addRun({ command, flags, pages, address }: PageServerHeader): void {
    if (this.#image === null) throw malformed('pages before an image was opened');
    const kind = command === Command.add ? PageFlag.present : command === Command.hole ? PageFlag.parent : flags;
    // A page that is elsewhere (in a parent, still at the source) would be missing from images that stand alone.
    if ((kind & PageFlag.present) === 0 || (kind & ~(PageFlag.present | PageFlag.lazy)) !== 0) {
      throw malformed(`pages with flags ${kind}, which a whole dump does not have`);
    }
    this.#image.pagemap.add({ address, pages, flags: kind });
  }

  /**
   * Closes the gaps that headers leave between pages, so that the sink gets one piece per read however short the runs:
   * moving 256 KiB by 32 bytes costs less than one more frame.
   */
  #onPages(from: number, to: number): void {
    if (this.#from === this.#to) this.#from = this.#to = from;
    if (this.#to !== from) this.#chunk.copyWithin(this.#to, from, to);
    this.#to += to - from;
  }

  #writePages(): void {
    if (this.#from === this.#to) return;
    const image = this.#image;
    if (image === null) throw malformed('pages without an image');
    image.hasPages = true;
    this.#write(image.pagesName, this.#chunk.subarray(this.#from, this.#to));
    this.#from = this.#to = 0;
  }

  #write(name: string, bytes: Uint8Array): void {
    const written = this.#plan.sink.write(name, bytes);
    this.#writes.push(written);
    this.#unsettled.add(written);
    written.then(
      () => this.#unsettled.delete(written),
      (thrown: unknown) => this.#fail(thrown),
    );
  }

  #end(name: string): void {
    const receipt = this.#plan.sink.end(name);
    receipt.catch((thrown: unknown) => this.#fail(thrown));
    this.#receipts.push(receipt);
  }

  #endImage(): void {
    this.#writePages();
    const image = this.#image;
    this.#image = null;
    if (image === null) return;
    // CRIU opens the pages image of every pagemap, so an empty one must exist too.
    if (!image.hasPages) this.#write(image.pagesName, new Uint8Array());
    this.#end(image.pagesName);
    this.#write(image.pagemapName, image.pagemap.finish());
    this.#end(image.pagemapName);
  }

  #close(): void {
    this.#state = 'closing';
    Promise.all([Promise.all(this.#receipts), ...this.#unsettled]).then(
      ([receipts]) => {
        if (this.#state === 'over') return;
        this.#state = 'over';
        this.#ring.answer(statusGood);
        this.#resolve(receipts);
      },
      (thrown: unknown) => this.#fail(thrown),
    );
  }

  #fail(thrown: unknown): void {
    if (this.#state === 'over') {
      this.#ring.destroy();
      return;
    }
    this.#state = 'over';
    this.#ring.destroy();
    this.#reject(
      asFailure(thrown, {
        code: 'page-stream-broken',
        what: 'the page stream from CRIU has broken',
        remedy: "see CRIU's failure",
      }),
    );
  }
}

function cut(cause: Error | null, atBorder: boolean): PhaulError {
  return new PhaulError({
    code: 'page-stream-cut',
    what: `CRIU has closed the page stream early${atBorder ? '' : ', within a message'}`,
    remedy: "see CRIU's own failure in its log",
    ...(cause === null ? {} : { cause }),
  });
}
