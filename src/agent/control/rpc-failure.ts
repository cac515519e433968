/**
 * Failures across gRPC: a PhaulError travels as JSON in a binary trailer and comes out as a PhaulError again.
 * What gRPC itself reports (no connection, deadline) becomes a PhaulError here too, so that callers see one type.
 */
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import {
  asFailure,
  type FailurePlace,
  PhaulError,
  type ProcessFate,
  type SerializedFailure,
} from '../../failure/phaul-error.js';

const trailer = 'phaul-failure-bin';
/** Node refuses header blocks above 64 KiB; base64 makes 4/3 of this. The tail of an engine's log fits. */
const maxTrailerBytes = 16 * 1024;

/** What a handler answers for anything that was thrown in it. */
export function toRpcError(thrown: unknown): Partial<StatusObject> {
  const failure = asFailure(thrown, {
    code: 'internal',
    what: 'an unexpected failure inside the agent',
    remedy: 'please report it with the log of the agent',
  });
  const metadata = new Metadata();
  metadata.set(trailer, Buffer.from(JSON.stringify(shortened(failure.toJSON()))));
  // UNKNOWN is never retried by gRPC; the code that counts is in the trailer.
  return { code: status.UNKNOWN, details: failure.code, metadata };
}

/** The failure behind an RPC error. `host` is who was called; `doing` completes the sentence "... while". */
export function fromRpcError(error: ServiceError, host: string, doing: string): PhaulError {
  const [sent] = error.metadata?.get(trailer) ?? [];
  const told = sent instanceof Buffer ? parseFailure(sent.toString('utf8')) : null;
  if (told !== null) return PhaulError.fromJSON(told);
  switch (error.code) {
    case status.UNAVAILABLE:
      return new PhaulError({
        code: 'host-unreachable',
        what: `${host} cannot be reached (${doing}): ${error.details}`,
        remedy: `check that the agent runs on ${host}, that its port is open, and that the certificates fit`,
        cause: error,
      });
    case status.DEADLINE_EXCEEDED:
      return new PhaulError({
        code: 'host-silent',
        what: `${host} did not answer in time (${doing})`,
        remedy: `look at the agent and its log on ${host}`,
        cause: error,
      });
    case status.CANCELLED:
      return new PhaulError({
        code: 'call-cancelled',
        what: `the call to ${host} was cancelled (${doing})`,
        remedy: 'try again',
        cause: error,
      });
    case status.UNIMPLEMENTED:
      return new PhaulError({
        code: 'protocol-mismatch',
        what: `${host} does not know this request (${doing})`,
        remedy: 'use the same version of phaul on both hosts',
        cause: error,
      });
    default:
      return new PhaulError({
        code: 'rpc-failed',
        what: `the call to ${host} failed (${doing}): ${error.details || error.message}`,
        remedy: `look at the log of the agent on ${host}`,
        cause: error,
      });
  }
}

function shortened(failure: SerializedFailure): SerializedFailure {
  const bounded = { ...failure, what: failure.what.slice(0, 4000), remedy: failure.remedy.slice(0, 2000) };
  let causes = [...failure.causes];
  while (causes.length > 0 && Buffer.byteLength(JSON.stringify({ ...bounded, causes })) > maxTrailerBytes) {
    const longest = causes.reduce((most, cause) => Math.max(most, cause.length), 0);
    // The end of an engine's log says more than its beginning.
    causes = longest > 200 ? causes.map((cause) => cause.slice(-Math.ceil(longest / 2))) : causes.slice(0, -1);
  }
  return { ...bounded, causes };
}

/** Null for anything that is not a failure: then the plain RPC error is told. */
export function parseFailure(json: string): SerializedFailure | null {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return null;
  }
  if (!isRecord(value)) return null;
  const { code, what, remedy, causes } = value;
  if (typeof code !== 'string' || !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(code)) return null;
  if (typeof what !== 'string' || typeof remedy !== 'string' || !isTextList(causes)) return null;
  return { code, what, remedy, causes, place: parsePlace(value['place']) };
}

function parsePlace(value: unknown): FailurePlace | null {
  if (!isRecord(value)) return null;
  const { phase, host, fate } = value;
  const known = parseFate(fate);
  if (typeof phase !== 'string' || typeof host !== 'string' || known === null) return null;
  return { phase, host, fate: known };
}

function parseFate(value: unknown): ProcessFate | null {
  if (!isRecord(value)) return null;
  const { kind, host, ask } = value;
  if (kind === 'untouched' || kind === 'not-concerned') return { kind };
  if ((kind === 'running-on' || kind === 'frozen-on') && typeof host === 'string') return { kind, host };
  if (kind === 'undecided' && typeof ask === 'string') return { kind, ask };
  return null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
