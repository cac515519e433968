/**
 * Reads a stream socket into a fixed ring of buffers, without an allocation or a copy, and stops reading while the next
 * buffer is still in use. The buffers are all the memory that a slow consumer can make this side hold.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';

/** 256 KiB a read: beyond that nothing was gained, below it reads cost more than what they read (stack.md 1.4, 1.6). */
const bufferBytes = 256 * 1024;
/** Enough to keep CRIU, this process and the wire busy at once: 1 MiB in all. */
const ringBuffers = 4;

export interface RingEvents {
  /** Bytes that came, the consumer's until the promise is settled; null: it is done with them already. Must not throw. */
  bytes(chunk: Buffer): Promise<void> | null;
  /** The other end is closed, or reading failed. Called once, last; not after `destroy`. */
  end(cause: Error | null): void;
}

export class ReadRing {
  readonly #events: RingEvents;
  readonly #ring: readonly { readonly buffer: Buffer; inUse: boolean }[];
  readonly #socket: Socket;
  #next = 0;

  /** Takes the descriptor over: a connected STREAM socket. */
  constructor(fd: number, events: RingEvents) {
    this.#events = events;
    this.#ring = Array.from({ length: ringBuffers }, () => ({
      buffer: Buffer.allocUnsafeSlow(bufferBytes),
      inUse: false,
    }));
    // `onread` works with a descriptor too (lib/net.js of Node 20 and 22), its types only know it for `connect`.
    const options: SocketConstructorOpts & { onread: OnReadOpts } = {
      fd,
      readable: true,
      writable: true,
      onread: {
        // Asked for after every read, also after the one that stops reading: by the time it flows again this one is free.
        buffer: () => this.#slot.buffer,
        callback: (length) => this.#read(length),
      },
    };
    this.#socket = new Socket(options);
    let cause: Error | null = null;
    this.#socket.on('error', (error) => {
      cause = error;
    });
    this.#socket.once('close', () => this.#events.end(cause));
  }

  /** A few bytes to the other end. */
  answer(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Closes the descriptor at once; nothing is called any more. */
  destroy(): void {
    this.#socket.removeAllListeners('close');
    this.#socket.destroy();
  }

  get #slot(): { readonly buffer: Buffer; inUse: boolean } {
    const slot = this.#ring[this.#next];
    if (slot === undefined) throw new RangeError(`the ring has no buffer ${this.#next}`);
    return slot;
  }

  /** False stops reading. */
  #read(length: number): boolean {
    const slot = this.#slot;
    const consumed = this.#events.bytes(slot.buffer.subarray(0, length));
    // A buffer that is free already is used again at once: it is still in the cache.
    if (consumed === null) return true;
    slot.inUse = true;
    this.#next = (this.#next + 1) % ringBuffers;
    const release = (): void => {
      slot.inUse = false;
      if (slot === this.#slot && !this.#socket.destroyed) this.#socket.resume();
    };
    consumed.then(release, release);
    return !this.#slot.inUse;
  }
}
