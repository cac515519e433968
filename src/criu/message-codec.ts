/**
 * Protobuf messages to bytes and back, without the traps of the library below: unknown fields survive, 64-bit numbers are
 * bigints and exact, and a value that does not fit its field is refused instead of being written as another one. No I/O.
 */
// CommonJS without names that Node could import.
import protobuf from 'protobufjs/minimal.js';
import { PhaulError } from '../failure/phaul-error.js';

/** A generated message class, as far as it is used here; `Fields` is its interface, where what may be absent is optional. */
export interface MessageType<Fields> {
  verify(fields: { [field: string]: unknown }): string | null;
  fromObject(fields: { [field: string]: unknown }): object;
  encode(message: Fields): protobuf.Writer;
  decode(reader: protobuf.Reader): Fields;
}

/** How the library holds 64-bit numbers. */
interface Long {
  readonly low: number;
  readonly high: number;
  readonly unsigned: boolean;
}

/** The fields of a message with 64-bit numbers, which are generated as `number | Long`, as bigints. */
export type Exact<T> = T extends Uint8Array
  ? T
  : T extends readonly (infer Item)[]
    ? Exact<Item>[]
    : T extends object
      ? {
          [Field in keyof T]: [Extract<T[Field], Long>] extends [never]
            ? Exact<T[Field]>
            : bigint | Exclude<T[Field], number | Long>;
        }
      : T;

/** Fields as the library knows them, and those that this version of the message does not have. */
interface Decoded {
  readonly [field: string]: unknown;
  readonly $unknowns?: readonly Uint8Array[];
}

/**
 * Bytes of a message. Unknown fields of a decoded message, however deep, are written again.
 * Throws a TypeError for a missing required field, a wrong type, or a value that its field cannot hold: a bug of the caller.
 */
export function encodeMessage<Fields>(type: MessageType<Fields>, fields: Exact<Fields>): Uint8Array {
  const given = fields as Decoded;
  const plain = toLibrary(given) as { [field: string]: unknown };
  const wrong = type.verify(plain);
  if (wrong !== null) throw new TypeError(`CRIU message: ${wrong}`);
  const message = type.fromObject(plain);
  putUnknowns(message as Decoded, given);
  const bytes = type.encode(message as Fields).finish();
  // The library writes 2^32 in a 32-bit field as 0 and drops a misspelt field, both without a word: read it back.
  const lost = firstDifference(given, decodeMessage(type, bytes) as Decoded);
  if (lost !== null) throw new TypeError(`CRIU message: ${lost} cannot be written as it is`);
  return bytes;
}

/** Throws `engine-garbled` when the bytes are no such message, or a required field is missing. */
export function decodeMessage<Fields>(type: MessageType<Fields>, bytes: Uint8Array): Exact<Fields> {
  try {
    const reader = protobuf.Reader.create(bytes);
    reader.discardUnknown = false;
    return fromLibrary(type.decode(reader)) as Exact<Fields>;
  } catch (cause) {
    throw new PhaulError({
      code: 'engine-garbled',
      what: `${bytes.length} bytes from CRIU are not the message that they should be`,
      remedy: 'check the engine with `phaul engine`',
      cause,
    });
  }
}

function fromLibrary(value: unknown): unknown {
  if (isLong(value)) return longToBigInt(value);
  if (Array.isArray(value)) return value.map(fromLibrary);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const fields = Object.fromEntries(Object.entries(value).map(([name, field]) => [name, fromLibrary(field)]));
  const unknowns = (value as Decoded).$unknowns;
  if (unknowns !== undefined) hide(fields, unknowns);
  return fields;
}

function toLibrary(value: unknown): unknown {
  if (typeof value === 'bigint') return bigIntToLong(value);
  if (Array.isArray(value)) return value.map(toLibrary);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .map(([name, field]) => [name, toLibrary(field)]),
  );
}

function putUnknowns(message: Decoded, given: Decoded): void {
  if (given.$unknowns !== undefined) hide(message, given.$unknowns);
  for (const [name, field] of Object.entries(given)) {
    const made = message[name];
    const pairs: [unknown, unknown][] = Array.isArray(field)
      ? field.map((item, i) => [(made as unknown[])[i], item])
      : [[made, field]];
    for (const [into, from] of pairs) {
      if (isMessage(from) && isMessage(into)) putUnknowns(into, from);
    }
  }
}

/** Path of the first given value that reads back as another, or null. */
function firstDifference(given: unknown, read: unknown): string | null {
  if (isMessage(given)) {
    for (const [name, value] of Object.entries(given)) {
      if (value === undefined || value === null) continue;
      // An empty list is not on the wire.
      if (Array.isArray(value) && value.length === 0) continue;
      const inner = firstDifference(value, isMessage(read) && Object.hasOwn(read, name) ? read[name] : undefined);
      if (inner !== null) return inner === '' ? name : `${name}.${inner}`;
    }
    return isMessage(read) ? null : '';
  }
  if (Array.isArray(given)) {
    if (!Array.isArray(read) || read.length !== given.length) return '';
    for (const [index, item] of given.entries()) {
      const inner = firstDifference(item, read[index]);
      if (inner !== null) return inner === '' ? String(index) : `${index}.${inner}`;
    }
    return null;
  }
  if (given instanceof Uint8Array) return read instanceof Uint8Array && Buffer.compare(given, read) === 0 ? null : '';
  return Object.is(given, read) || given === read ? null : '';
}

function isMessage(value: unknown): value is Decoded {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

function hide(fields: object, unknowns: readonly Uint8Array[]): void {
  Object.defineProperty(fields, '$unknowns', { value: unknowns, enumerable: false, configurable: true });
}

function isLong(value: unknown): value is Long {
  return typeof value === 'object' && value !== null && 'low' in value && 'high' in value && 'unsigned' in value;
}

function longToBigInt({ low, high, unsigned }: Long): bigint {
  const bits = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  return unsigned ? bits : BigInt.asIntN(64, bits);
}

function bigIntToLong(value: bigint): Long {
  const bits = BigInt.asUintN(64, value);
  return { low: Number(bits & 0xffffffffn) | 0, high: Number(bits >> 32n) | 0, unsigned: value >= 0n } as Long;
}
