/**
 * The page protocol: image files, memory foremost, as framed streams of bytes on a connection of their own.
 *
 * Purpose: carry whole CRIU images from the source to the destination at the speed of the link, with the token that
 * opens the door, bounded frames, and receipts. It runs inside TLS (or on a local socket); it has no secrecy of its own.
 *
 * ```mermaid
 * sequenceDiagram
 *   source->>destination: preface, HELLO(token, migration)
 *   destination->>source: WELCOME
 *   loop each image
 *     source->>destination: OPEN(stream, name)
 *     source->>destination: DATA(stream, bytes) ...
 *     source->>destination: END(stream, length, hash)
 *   end
 *   source->>destination: FLUSH(n)
 *   destination->>source: STORED(n)
 *   Note over destination: at any time: FAILED(code, text), then the connection ends
 * ```
 *
 * States of the receiver: `stranger` (only HELLO is heard, 5 s), `open` (all but HELLO), `ended`.
 * Version policy: the preface carries the version; another one is refused. Kind 0 is invalid, unknown kinds are refused,
 * the spare bytes of a header are ignored. Every length is bounded before anything is allocated.
 */
import { type FailureFacts, PhaulError } from '../failure/phaul-error.js';

/** What a page connection begins with; the last byte is the version. */
export const preface = Buffer.from('PHAULPG1', 'latin1');

export const FrameKind = {
  hello: 1,
  welcome: 2,
  open: 3,
  data: 4,
  end: 5,
  flush: 6,
  stored: 7,
  failed: 8,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** kind u8, 3 spare bytes, stream u32, length u32, spare u32; little-endian. */
export const headerBytes = 16;
/** 1 MiB a frame: large enough that headers cost nothing, small enough that a slow reader is noticed. */
export const maxDataBytes = 1 << 20;
/** Names, tokens, texts. */
export const maxSmallBytes = 4096;
export const tokenBytes = 32;
/** Characters of one line of FAILED; three of them, at 3 bytes a character, stay below `maxSmallBytes`. */
const maxFailedLine = 400;

export interface FrameHeader {
  readonly kind: FrameKind;
  readonly stream: number;
  readonly length: number;
}

export function encodeHeader(kind: FrameKind, stream: number, length: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt8(kind, 0);
  header.writeUInt32LE(stream, 4);
  header.writeUInt32LE(length, 8);
  return header;
}

export function encodeFrame(kind: FrameKind, stream: number, payload: Uint8Array): Buffer {
  return Buffer.concat([encodeHeader(kind, stream, payload.length), payload]);
}

/** Throws `page-frame-refused` for a kind that there is not, or a length beyond its kind's bound. */
export function decodeHeader(bytes: Buffer): FrameHeader {
  const kind = bytes.readUInt8(0);
  const stream = bytes.readUInt32LE(4);
  const length = bytes.readUInt32LE(8);
  if (!isKind(kind)) throw refused(`a frame of kind ${kind}`);
  const most = kind === FrameKind.data ? maxDataBytes : maxSmallBytes;
  if (length > most) throw refused(`a frame of kind ${kind} with ${length} bytes (at most ${most})`);
  return { kind, stream, length };
}

export function refused(what: string): PhaulError {
  return new PhaulError({
    code: 'page-frame-refused',
    what: `the page connection carried ${what}`,
    remedy: 'both hosts must run phaul; check that nothing else connects to its port',
  });
}

export interface FrameEvents {
  /** A frame that is not DATA, complete. */
  frame(header: FrameHeader, payload: Buffer): void;
  /** A piece of a DATA frame: a view of what was fed, not a copy. */
  data(stream: number, bytes: Buffer): void;
}

/** Bytes in, frames out, at whatever places the bytes were cut. No I/O. DATA is passed on in pieces as it comes. */
export class FrameParser {
  readonly #events: FrameEvents;
  readonly #head = Buffer.alloc(headerBytes);
  #headFill = 0;
  #header: FrameHeader | null = null;
  #left = 0;
  #small: Buffer[] = [];

  constructor(events: FrameEvents) {
    this.#events = events;
  }

  feed(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#header === null) {
        const take = Math.min(headerBytes - this.#headFill, chunk.length - at);
        chunk.copy(this.#head, this.#headFill, at, at + take);
        this.#headFill += take;
        at += take;
        if (this.#headFill < headerBytes) return;
        this.#header = decodeHeader(this.#head);
        this.#headFill = 0;
        this.#left = this.#header.length;
        if (this.#left === 0) this.#complete(this.#header);
        continue;
      }
      const piece = chunk.subarray(at, at + this.#left);
      at += piece.length;
      this.#left -= piece.length;
      if (this.#header.kind === FrameKind.data) this.#events.data(this.#header.stream, piece);
      else this.#small.push(piece);
      if (this.#left === 0) this.#complete(this.#header);
    }
  }

  #complete(header: FrameHeader): void {
    const payload = Buffer.concat(this.#small);
    this.#small = [];
    this.#header = null;
    if (header.kind !== FrameKind.data) this.#events.frame(header, payload);
  }
}

function isKind(kind: number): kind is FrameKind {
  return kind >= FrameKind.hello && kind <= FrameKind.failed;
}

/** END: u64 length, then 16 bytes of XXH3-128. */
export function encodeEnd(bytes: number, hash: string): Buffer {
  const payload = Buffer.alloc(24);
  payload.writeBigUInt64LE(BigInt(bytes), 0);
  payload.write(hash, 8, 'hex');
  return payload;
}

export function decodeEnd(payload: Buffer): { bytes: number; hash: string } {
  if (payload.length !== 24) throw refused(`an END of ${payload.length} bytes`);
  const bytes = payload.readBigUInt64LE(0);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw refused(`an image of ${bytes} bytes`);
  return { bytes: Number(bytes), hash: payload.toString('hex', 8) };
}

/** HELLO: 32 bytes of token, then the migration's id. */
export function encodeHello({ token, migrationId }: { token: Uint8Array; migrationId: string }): Buffer {
  return encodeFrame(FrameKind.hello, 0, Buffer.concat([token, Buffer.from(migrationId, 'latin1')]));
}

export function decodeHello(payload: Buffer): { token: Buffer; migrationId: string } {
  if (payload.length <= tokenBytes) throw refused(`a HELLO of ${payload.length} bytes`);
  return { token: payload.subarray(0, tokenBytes), migrationId: payload.toString('latin1', tokenBytes) };
}

/** FAILED: code, what and remedy, one line each. */
export function encodeFailed({ code, what, remedy }: FailureFacts): Buffer {
  const lines = [code, what, remedy].map((line) => line.replaceAll('\n', ' ').slice(0, maxFailedLine));
  return encodeFrame(FrameKind.failed, 0, Buffer.from(lines.join('\n'), 'utf8'));
}

/** Text of a peer ends on a terminal: nothing but printable characters passes. */
export function decodeFailed(payload: Buffer): FailureFacts {
  const [code = '', what, remedy] = payload
    .toString('utf8')
    .split('\n')
    .map((line) => line.replace(/\p{C}/gu, ''));
  return {
    code: /^[a-z][a-z0-9-]{0,63}$/.test(code) ? code : 'page-store-failed',
    what: what || 'the destination could not store the images',
    remedy: remedy || 'see the log of its agent',
  };
}
