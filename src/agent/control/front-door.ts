/**
 * What happens to a connection before it has said what it is: the first bytes tell HTTP/2 (control) from the page
 * protocol, and whoever says nothing is sent away. The bytes that were read are given back to the connection.
 */
import type { Socket } from 'node:net';
import type { Logger } from 'pino';

/** RFC 9113, 3.4: how every HTTP/2 connection begins; eight bytes are enough to know it. */
const http2Preface = Buffer.from('PRI * HT', 'latin1');

/** Who takes connections that speak the page protocol. The preface is still unread. */
export interface PageEntrance {
  /** First bytes of the page protocol, eight of them. */
  readonly preface: Buffer;
  admit(connection: Socket): void;
}

export interface FrontDoorRooms {
  control(connection: Socket): void;
  readonly pages: PageEntrance;
}

export interface FrontDoorLimits {
  /** ms from the first packet to the preface, TLS handshake included (dangers.md 17). */
  readonly patienceMs: number;
  /** Connections at a time that have not yet said what they are (dangers.md 17). */
  readonly maxStrangers: number;
}

export const defaultLimits: FrontDoorLimits = { patienceMs: 5000, maxStrangers: 16 };

export class FrontDoor {
  readonly #rooms: FrontDoorRooms;
  readonly #limits: FrontDoorLimits;
  readonly #log: Logger;
  readonly #strangers = new Map<Socket, NodeJS.Timeout>();

  constructor(rooms: FrontDoorRooms, log: Logger, limits: FrontDoorLimits = defaultLimits) {
    this.#rooms = rooms;
    this.#log = log;
    this.#limits = limits;
  }

  get strangers(): number {
    return this.#strangers.size;
  }

  /** A connection has been accepted, below TLS. False: there are too many already; it was closed. */
  knock(connection: Socket): boolean {
    if (this.#strangers.size >= this.#limits.maxStrangers) {
      this.#log.warn({ remote: connection.remoteAddress }, 'too many connections that have not said what they are');
      connection.destroy();
      return false;
    }
    const patience = setTimeout(() => {
      this.#log.warn({ remote: connection.remoteAddress }, 'a connection did not say what it is and was closed');
      connection.destroy();
    }, this.#limits.patienceMs);
    this.#strangers.set(connection, patience);
    connection.once('close', () => this.#forget(connection));
    return true;
  }

  /** `secured` is what carries the bytes (the TLS socket on top of `knocked`, or `knocked` itself). Reads its first bytes and shows it to its room. */
  listen(knocked: Socket, secured: Socket): void {
    let seen = Buffer.alloc(0);
    const look = (): void => {
      for (let chunk = secured.read() as Buffer | null; chunk !== null; chunk = secured.read() as Buffer | null) {
        seen = Buffer.concat([seen, chunk]);
      }
      if (seen.length < http2Preface.length) return;
      secured.off('readable', look);
      secured.unshift(seen);
      this.#forget(knocked);
      this.#show(secured, seen.subarray(0, http2Preface.length));
    };
    secured.on('readable', look);
  }

  #show(connection: Socket, preface: Buffer): void {
    if (preface.equals(http2Preface)) {
      this.#rooms.control(connection);
    } else if (preface.equals(this.#rooms.pages.preface)) {
      this.#rooms.pages.admit(connection);
    } else {
      this.#log.warn({ remote: connection.remoteAddress }, 'a connection speaks neither HTTP/2 nor the page protocol');
      connection.destroy();
    }
  }

  #forget(knocked: Socket): void {
    clearTimeout(this.#strangers.get(knocked));
    this.#strangers.delete(knocked);
  }
}
