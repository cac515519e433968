/**
 * Where page connections are let in: a one-time 256-bit token, given out over the control channel, opens it for one
 * migration (dangers.md 17). Whoever shows none within 5 s is sent away, and at most 16 may stand outside at a time.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { decodeHeader, decodeHello, encodeHeader, FrameKind, headerBytes, preface, tokenBytes } from './frame.js';

export interface DoorLimits {
  /** ms from `admit` to a complete HELLO. */
  readonly patienceMs: number;
  /** Connections at a time that have not yet shown a token. */
  readonly maxStrangers: number;
  /** ms for which a token is good; the source dials as soon as it has it. */
  readonly tokenMs: number;
}

export const defaultDoorLimits: DoorLimits = { patienceMs: 5000, maxStrangers: 16, tokenMs: 60_000 };

/** A preface and a HELLO with the longest id; more is never read before a token was shown. */
const maxHelloBytes = tokenBytes + 64;

/** A connection that has shown its token, and what was read behind it. */
export interface AdmittedConnection {
  readonly connection: Duplex;
  readonly rest: Buffer;
}

interface Expected {
  readonly token: Buffer;
  /** ms, performance.now(). */
  readonly until: number;
  admit(connection: AdmittedConnection): void;
}

interface Hello {
  readonly token: Buffer;
  readonly migrationId: string;
  /** Bytes that it took, preface included. */
  readonly length: number;
}

export class PageDoor {
  readonly preface = preface;
  readonly #limits: DoorLimits;
  readonly #expected = new Map<string, Expected>();
  #strangers = 0;

  constructor(limits: DoorLimits = defaultDoorLimits) {
    this.#limits = limits;
  }

  /** A new token for a migration; `admit` is called once, with the connection that shows it. An older token of the same migration is void. */
  expect(migrationId: string, admit: (connection: AdmittedConnection) => void): Uint8Array {
    const token = randomBytes(tokenBytes);
    this.#expected.set(migrationId, { token, until: performance.now() + this.#limits.tokenMs, admit });
    return token;
  }

  forget(migrationId: string): void {
    this.#expected.delete(migrationId);
  }

  get strangers(): number {
    return this.#strangers;
  }

  /** Takes a connection whose preface is still unread. */
  admit(connection: Duplex): void {
    // Whoever takes the connection over listens too; until then a broken one is no more than gone.
    connection.on('error', () => connection.destroy());
    if (this.#strangers >= this.#limits.maxStrangers) {
      connection.destroy();
      return;
    }
    this.#strangers++;
    let standing = true;
    const leave = (): void => {
      if (standing) this.#strangers--;
      standing = false;
      clearTimeout(patience);
    };
    const patience = setTimeout(() => connection.destroy(), this.#limits.patienceMs);
    connection.once('close', leave);

    let seen: Buffer = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      const hello = readHello(seen);
      if (hello === 'more') return;
      connection.off('data', look);
      connection.pause();
      leave();
      if (hello === 'refused' || !this.#enter(hello, connection, seen)) connection.destroy();
    };
    connection.on('data', look);
  }

  #enter(hello: Hello, connection: Duplex, seen: Buffer): boolean {
    const expected = this.#expected.get(hello.migrationId);
    // An unknown migration costs the same comparison as a wrong token.
    const token = expected?.token ?? Buffer.alloc(tokenBytes);
    if (!timingSafeEqual(token, hello.token) || expected === undefined) return false;
    this.#expected.delete(hello.migrationId);
    if (performance.now() > expected.until) return false;
    connection.write(encodeHeader(FrameKind.welcome, 0, 0));
    expected.admit({ connection, rest: seen.subarray(hello.length) });
    return true;
  }
}

/** Preface and HELLO at the head of what was read so far; decided as early as its bytes allow. */
function readHello(seen: Buffer): Hello | 'more' | 'refused' {
  const shown = Math.min(seen.length, preface.length);
  if (!preface.subarray(0, shown).equals(seen.subarray(0, shown))) return 'refused';
  const payloadAt = preface.length + headerBytes;
  if (seen.length < payloadAt) return 'more';
  try {
    const header = decodeHeader(seen.subarray(preface.length, payloadAt));
    if (header.kind !== FrameKind.hello || header.length > maxHelloBytes) return 'refused';
    const length = payloadAt + header.length;
    if (seen.length < length) return 'more';
    return { ...decodeHello(seen.subarray(payloadAt, length)), length };
  } catch {
    // Whatever it is that a stranger sends instead of a HELLO, it is not worth a word.
    return 'refused';
  }
}
