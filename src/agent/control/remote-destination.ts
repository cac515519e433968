/** The destination as the story sees it, when it is another host: a proxy of its agent. */
import type { Socket } from 'node:net';
import { PhaulError } from '../../failure/phaul-error.js';
import type { Lifetime } from '../../migration/lifetime.js';
import type {
  CaughtPackets,
  DeliveredImage,
  DestinationHost,
  Finding,
  ImageSink,
  Landing,
  LandingRequest,
  Ready,
  Running,
} from '../../migration/ports.js';
import { PageSender } from '../../pages/sender.js';
import { Heartbeat } from './heartbeat.js';
import { findingFromWire, runningFromWire } from './messages.js';
import type { PeerLink } from './peer-link.js';
import { rpc } from './rpc-service.js';

/** An image sink on a page connection: a PageSender, or a test's. */
export type PageConnection = ImageSink & AsyncDisposable;
export type ConnectPages = (
  connection: Socket,
  opening: { migrationId: string; token: Uint8Array },
) => Promise<PageConnection>;

/** Checks read and hash files on the other host: minutes, not seconds. ms. */
const checkTimeoutMs = 10 * 60_000;
/** COMMIT is repeated by the story, so one try may be short. It covers a restore that has to be done again. ms. */
const takeOverTimeoutMs = 60_000;
const abortTimeoutMs = 5000;

export class RemoteDestination implements DestinationHost {
  readonly #link: PeerLink;
  readonly #connectPages: ConnectPages;

  /** Does not own the link. */
  constructor(link: PeerLink, connectPages: ConnectPages = PageSender.connect) {
    this.#link = link;
    this.#connectPages = connectPages;
  }

  get name(): string {
    return this.#link.name;
  }

  async check(request: LandingRequest, life: Lifetime): Promise<readonly Finding[]> {
    const limits = { signal: life.signal, timeoutMs: checkTimeoutMs };
    const answer = await this.#link.rpc.call(rpc.check, { request: JSON.stringify(request) }, limits);
    return answer.findings.map((finding) => findingFromWire(finding, this.name));
  }

  async prepare(request: LandingRequest, life: Lifetime): Promise<Landing> {
    const id = request.order.id;
    try {
      const sent = { request: JSON.stringify(request) };
      const { pageToken } = await this.#link.rpc.call(rpc.prepare, sent, {
        signal: life.signal,
        timeoutMs: checkTimeoutMs,
      });
      const connection = await this.#link.openPages();
      try {
        const pages = await this.#connectPages(connection, { migrationId: id, token: pageToken });
        return new RemoteLanding(this.#link, id, pages, life);
      } catch (thrown) {
        connection.destroy();
        throw thrown;
      }
    } catch (thrown) {
      // The other host may have prepared although its answer did not come. It gives up by itself too, so this need not succeed.
      await abort(this.#link, id).catch(() => undefined);
      throw thrown;
    }
  }
}

class RemoteLanding implements Landing {
  readonly images: PageConnection;
  readonly #link: PeerLink;
  readonly #id: string;
  readonly #heartbeat: Heartbeat;
  /** From here on this side never aborts: either COMMIT is on its way, or nothing is left there but images. */
  #settled = false;

  constructor(link: PeerLink, id: string, images: PageConnection, life: Lifetime) {
    this.#link = link;
    this.#id = id;
    this.images = images;
    this.#heartbeat = new Heartbeat(link.rpc, id, (reason) => life.end(reason));
  }

  async arm(life: Lifetime): Promise<void> {
    await this.#link.rpc.call(rpc.arm, { id: this.#id }, { signal: life.signal });
  }

  async restoreAndHold(delivered: readonly DeliveredImage[], life: Lifetime): Promise<Ready> {
    const request = { id: this.#id, delivered: [...delivered] };
    const { restoreMs } = await this.#link.rpc.call(rpc.restoreAndHold, request, { signal: life.signal });
    return { restoreMs };
  }

  async keepImages(delivered: readonly DeliveredImage[], life: Lifetime): Promise<string> {
    const request = { id: this.#id, delivered: [...delivered] };
    const { folder } = await this.#link.rpc.call(rpc.keepImages, request, { signal: life.signal });
    this.#settled = true;
    return folder;
  }

  async takeOver(packets: CaughtPackets): Promise<Running> {
    this.#settled = true;
    this.#heartbeat[Symbol.dispose]();
    const request = { id: this.#id, packets: [...packets.packets], lost: packets.lost };
    const answer = await this.#link.rpc.call(rpc.takeOver, request, { timeoutMs: takeOverTimeoutMs });
    return runningFromWire(answer, this.#link.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#heartbeat[Symbol.dispose]();
    try {
      if (!this.#settled) await abort(this.#link, this.#id);
    } finally {
      await this.images[Symbol.asyncDispose]();
    }
  }
}

async function abort(link: PeerLink, id: string): Promise<void> {
  try {
    await link.rpc.call(rpc.abort, { id }, { timeoutMs: abortTimeoutMs });
  } catch (cause) {
    throw new PhaulError({
      code: 'abort-unanswered',
      what: `${link.name} has not answered the abort of ${id}`,
      remedy: `it gives up by itself; look with \`phaul status ${id}\` and \`phaul recover ${id}\` on ${link.name}`,
      cause,
    });
  }
}
