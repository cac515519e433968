/** Requests to CRIU and its responses, as bytes. The rest of phaul never sees the generated code or CRIU's field names. */
import { criu } from '../gen/criu-rpc.js';
import { decodeMessage, type Exact, encodeMessage } from './message-codec.js';

export type RequestFields = Exact<criu.IRequest>;
export type ResponseFields = Exact<criu.IResponse>;
export type OptionFields = Exact<criu.IOptions>;
export const RequestType = criu.RequestType;
export const NetworkLock = criu.NetworkLock;
export const CgroupMode = criu.CgroupMode;
export const PreDumpMode = criu.PreDumpMode;

/** Throws a TypeError for a field that is missing, of the wrong type or out of range: a bug of the caller. */
export function encodeRequest(request: RequestFields): Uint8Array {
  return encodeMessage(criu.Request, request);
}

/** Throws `engine-garbled` when the bytes are no response, or a required field is missing. */
export function decodeResponse(bytes: Uint8Array): ResponseFields {
  return decodeMessage(criu.Response, bytes);
}

/** What we send, read as CRIU reads it. */
export function decodeRequest(bytes: Uint8Array): RequestFields {
  return decodeMessage(criu.Request, bytes);
}
