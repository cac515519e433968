/**
 * The fields of one protobuf message, as they lie in CRIU's images (protobuf.dev, "Encoding"). Only what phaul reads
 * itself goes through here, so there is no schema: the caller knows the numbers.
 */

export interface ProtobufField {
  readonly number: number;
  /** Of a varint or a fixed-width field, unsigned; else null. */
  readonly value: bigint | null;
  /** Of a length-delimited field, a view of the message; else null. */
  readonly bytes: Buffer | null;
}

/** Throws RangeError where the message is cut off or is none. */
export function* protobufFields(message: Buffer): Generator<ProtobufField> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 64n; shift += 7n) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError('a varint is cut off');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new RangeError('a varint has no end');
  };
  const take = (length: number): Buffer => {
    if (length > message.length - at) throw new RangeError(`a field of ${length} bytes is cut off`);
    at += length;
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const key = varint();
    const number = Number(key >> 3n);
    switch (Number(key & 7n)) {
      case 0:
        yield { number, value: varint(), bytes: null };
        break;
      case 1:
        yield { number, value: take(8).readBigUInt64LE(), bytes: null };
        break;
      case 2:
        yield { number, value: null, bytes: take(Number(varint())) };
        break;
      case 5:
        yield { number, value: BigInt(take(4).readUInt32LE()), bytes: null };
        break;
      default:
        throw new RangeError(`a field of wire type ${key & 7n}`);
    }
  }
}
