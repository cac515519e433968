/** Bytes of CRIU's RPC, in and out. No I/O. The rest of phaul never sees protobufjs or CRIU's field names. */
import { criu } from '../gen/criu-rpc.js';
import { PhaulError } from '../failure/phaul-error.js';

export type RequestFields = criu.IRequest;
export type ResponseFields = criu.Response;
export type OptionFields = criu.IOptions;
export const RequestType = criu.RequestType;
export const NetworkLock = criu.NetworkLock;
export const CgroupMode = criu.CgroupMode;
export const PreDumpMode = criu.PreDumpMode;

/** Throws a TypeError for a field of the wrong type or a missing required one: a bug of the caller. */
export function encodeRequest(request: RequestFields): Uint8Array {
  const wrong = criu.Request.verify({ ...request });
  if (wrong) throw new TypeError(`CRIU request: ${wrong}`);
  // `fromObject` first: plain `encode` writes a wrong value for some types without a word.
  return criu.Request.encode(criu.Request.fromObject({ ...request })).finish();
}

/** Throws `engine-garbled` when the bytes are no response, or a required field is missing. */
export function decodeResponse(bytes: Uint8Array): ResponseFields {
  try {
    return criu.Response.decode(bytes);
  } catch (cause) {
    throw new PhaulError({
      code: 'engine-garbled',
      what: `CRIU has sent ${bytes.length} bytes that are no response`,
      remedy: 'check the engine with `phaul engine`',
      cause,
    });
  }
}
