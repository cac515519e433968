/** Both ends of a page stream for tests: what a dumping CRIU would send, sockets that are real, sinks that are slow. */
import { Socket } from 'node:net';
import type { DeliveredImage, ImageSink } from '../../src/migration/ports.js';
import { addon } from '../../src/native/addon.js';

export const pageSize = 4096;
export const present = 4;
/** Numbers as CRIU's page-server protocol has them, written down a second time on purpose. */
export const code = { add: 1, hole: 2, open: 4, parent: 5, addWithFlags: 6, get: 7, close: 0x1023, forceClose: 0x1024 };

export interface HeaderFields {
  readonly command: number;
  readonly flags?: number;
  readonly pages?: number;
  readonly address?: bigint;
  readonly image?: bigint;
}

export function header(
  size: 24 | 32,
  { command, flags = 0, pages = 0, address = 0n, image = 0n }: HeaderFields,
): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.writeUInt32LE(((flags << 16) | command) >>> 0, 0);
  if (size === 32) bytes.writeBigUInt64LE(BigInt(pages), 8);
  else bytes.writeUInt32LE(pages, 4);
  bytes.writeBigUInt64LE(address, size - 16);
  bytes.writeBigUInt64LE(image, size - 8);
  return bytes;
}

export const taskImage = (pid: number): bigint => (BigInt(pid) << 8n) | 1n;
export const sharedImage = (id: number): bigint => (BigInt(id) << 8n) | 2n;

/** Bytes that repeat nowhere near. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let at = 0; at + 4 <= length; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
}

/** A descriptor for the code under test, and the other end as a socket. */
export function streamPair(): { fd: number; peer: Socket } {
  const { near, far } = addon().socketPair('stream', 0);
  const peer = new Socket({ fd: far });
  peer.on('error', () => undefined);
  return { fd: near, peer };
}

export function connectedSockets(): { left: Socket; right: Socket } {
  const { fd, peer } = streamPair();
  return { left: new Socket({ fd, allowHalfOpen: false }), right: peer };
}

/** Keeps what it was given; takes `ms` for each write and counts what it has not yet given back. */
export class MemorySink implements ImageSink {
  readonly images = new Map<string, Buffer[]>();
  readonly ended: string[] = [];
  outstanding = 0;
  mostOutstanding = 0;
  writes = 0;
  bytesSent = 0;
  readonly #ms: number;

  constructor(ms = 0) {
    this.#ms = ms;
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    this.writes++;
    this.bytesSent += bytes.length;
    this.outstanding += bytes.length;
    this.mostOutstanding = Math.max(this.mostOutstanding, this.outstanding);
    if (this.#ms > 0) await new Promise((resolve) => setTimeout(resolve, this.#ms));
    // Taken as late as the contract allows: a buffer that was used again too early shows.
    const pieces = this.images.get(name) ?? [];
    this.images.set(name, [...pieces, Buffer.from(bytes)]);
    this.outstanding -= bytes.length;
  }

  async end(name: string): Promise<DeliveredImage> {
    this.ended.push(name);
    return { name, bytes: 0, hash: '' };
  }

  async flush(): Promise<void> {}

  image(name: string): Buffer {
    return Buffer.concat(this.images.get(name) ?? []);
  }
}
