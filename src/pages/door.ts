/**
 * Where page connections are let in: a one-time 256-bit token, given out over the control channel, opens it for one
 * migration (dangers.md 17). Whoever shows none within 5 s is sent away, and at most 16 may stand outside at a time.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { PhaulError } from '../failure/phaul-error.js';
import { encodeHeader, type FrameHeader, FrameKind, FrameParser, headerBytes, preface, tokenBytes } from './frame.js';

const patienceMs = 5000;
const maxStrangers = 16;

/** A connection that has shown its token, and what was read behind it. */
export interface AdmittedConnection {
  readonly connection: Duplex;
  readonly rest: Buffer;
}

interface Expected {
  readonly token: Buffer;
  admit(connection: AdmittedConnection): void;
}

export class PageDoor {
  readonly preface = preface;
  readonly #expected = new Map<string, Expected>();
  #strangers = 0;

  /** A new token for a migration; `admit` is called once, with the connection that shows it. An older token of the same migration is void. */
  expect(migrationId: string, admit: (connection: AdmittedConnection) => void): Uint8Array {
    const token = randomBytes(tokenBytes);
    this.#expected.set(migrationId, { token, admit });
    return token;
  }

  forget(migrationId: string): void {
    this.#expected.delete(migrationId);
  }

  /** Takes a connection whose preface is still unread. */
  admit(connection: Duplex): void {
    if (this.#strangers >= maxStrangers) {
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
    const patience = setTimeout(() => connection.destroy(), patienceMs);
    connection.once('close', leave);
    connection.on('error', () => connection.destroy());

    let seen = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const hello = readHello(seen);
      if (hello === 'more') return;
      connection.off('data', look);
      connection.pause();
      leave();
      if (hello === 'refused' || !this.#enter(hello, connection, seen.subarray(hello.length))) connection.destroy();
    };
    connection.on('data', look);
  }

  #enter(hello: Hello, connection: Duplex, rest: Buffer): boolean {
    const expected = this.#expected.get(hello.migrationId);
    // An unknown migration costs the same comparison as a wrong token.
    const token = expected?.token ?? Buffer.alloc(tokenBytes);
    if (!timingSafeEqual(token, hello.token) || expected === undefined) return false;
    this.#expected.delete(hello.migrationId);
    connection.write(encodeHeader(FrameKind.welcome, 0, 0));
    expected.admit({ connection, rest });
    return true;
  }
}

interface Hello {
  readonly token: Buffer;
  readonly migrationId: string;
  /** Bytes that it took. */
  readonly length: number;
}

/** Preface and HELLO at the head of what was read so far. */
function readHello(seen: Buffer): Hello | 'more' | 'refused' {
  if (!preface.subarray(0, seen.length).equals(seen.subarray(0, preface.length))) return 'refused';
  if (seen.length < preface.length + headerBytes) return 'more';
  let hello: Hello | null = null;
  const parser = new FrameParser({
    frame: (header: FrameHeader, payload: Buffer) => {
      if (header.kind !== FrameKind.hello || payload.length <= tokenBytes)
        throw new PhaulError({ code: 'page-frame-refused', what: 'no HELLO', remedy: 'none' });
      const length = preface.length + headerBytes + header.length;
      hello ??= { token: payload.subarray(0, tokenBytes), migrationId: payload.toString('latin1', tokenBytes), length };
    },
    data: () => {},
  });
  try {
    // Only the first frame: what follows belongs to the receiver.
    const length = seen.readUInt32LE(preface.length + 8);
    parser.feed(seen.subarray(preface.length, preface.length + headerBytes + Math.min(length, seen.length)));
  } catch {
    return 'refused';
  }
  return hello ?? 'more';
}
