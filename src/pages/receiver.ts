/** The destination's end of a page connection: what comes is stored, and the source is told when it is. */
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import type { AdmittedConnection } from './door.js';
import {
  decodeEnd,
  encodeFrame,
  encodeHeader,
  type FrameHeader,
  FrameKind,
  FrameParser,
  imageNamePattern,
  refused,
} from './frame.js';

/** Where images go; `ImageFolder`. */
export interface ImageStore {
  create(name: string): Promise<void>;
  write(name: string, bytes: Uint8Array): Promise<void>;
  end(name: string, sent: { bytes: number; hash: string }, durable: boolean): Promise<void>;
  /** Resolves when all bytes written so far are with the kernel. */
  settled(): Promise<void>;
}

/** Bytes that may be on their way to the disk before the connection is paused. */
const maxPendingBytes = 8 << 20;
/** A tree has some images per task; this bounds what a hostile peer can make us remember. */
const maxImages = 100_000;

/**
 * Stores what arrives until the connection ends. Rejects with the first failure, which the source is told too; resolves
 * when the source has closed the connection.
 */
export function receiveImages(
  { connection, rest }: AdmittedConnection,
  store: ImageStore,
  durable: boolean,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const names = new Map<number, string>();
    let images = 0;
    let pending = 0;
    let over = false;
    /** All steps so far, in order: the store sees what the wire carried. */
    let order: Promise<void> = Promise.resolve();

    const fail = (thrown: unknown): void => {
      if (over) return;
      over = true;
      const failure = asFailure(thrown, {
        code: 'page-store-failed',
        what: 'the destination could not store the images',
        remedy: 'see the log of its agent',
      });
      const text = Buffer.from([failure.code, failure.message, failure.remedy].join('\n').slice(0, 4000), 'utf8');
      connection.end(encodeFrame(FrameKind.failed, 0, text), () => connection.destroy());
      reject(failure);
    };
    const step = (action: () => Promise<void>): void => {
      order = order.then(() => (over ? undefined : action()));
      order.catch(fail);
    };
    const nameOf = (stream: number): string => {
      const name = names.get(stream);
      if (name === undefined) throw refused(`stream ${stream}, which was not opened`);
      return name;
    };

    const onFrame = (header: FrameHeader, payload: Buffer): void => {
      if (header.kind === FrameKind.open) {
        const name = payload.toString('latin1');
        if (!imageNamePattern.test(name) || names.has(header.stream) || ++images > maxImages) {
          throw refused('an image that cannot be opened');
        }
        names.set(header.stream, name);
        step(() => store.create(name));
      } else if (header.kind === FrameKind.end) {
        const name = nameOf(header.stream);
        names.delete(header.stream);
        step(() => store.end(name, decodeEnd(payload), durable));
      } else if (header.kind === FrameKind.flush) {
        const stored = encodeHeader(FrameKind.stored, header.stream, 0);
        step(async () => {
          await store.settled();
          connection.write(stored);
        });
      } else {
        throw refused(`a frame of kind ${header.kind} where it has no place`);
      }
    };
    const onData = (stream: number, bytes: Buffer): void => {
      const name = nameOf(stream);
      pending += bytes.length;
      if (pending > maxPendingBytes) connection.pause();
      step(async () => {
        // Not awaited: the store gathers pieces of one image, and its `end` waits for them.
        store.write(name, bytes).then(() => {
          pending -= bytes.length;
          if (pending <= maxPendingBytes / 2 && connection.isPaused() && !over) connection.resume();
        }, fail);
      });
    };

    const parser = new FrameParser({ frame: onFrame, data: onData });
    const feed = (chunk: Buffer): void => {
      if (over) return;
      try {
        parser.feed(chunk);
      } catch (thrown) {
        fail(thrown);
      }
    };
    connection.on('data', feed);
    connection.once('error', (cause) => fail(broken(cause)));
    connection.once('close', () => {
      order.then(() => {
        if (over) return;
        over = true;
        resolve();
      }, fail);
    });
    if (rest.length > 0) feed(rest);
    connection.resume();
  });
}

function broken(cause: unknown): PhaulError {
  return new PhaulError({
    code: 'page-connection-lost',
    what: 'the page connection from the source has broken',
    remedy: 'check the link',
    cause,
  });
}
