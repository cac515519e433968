/**
 * The service `phaul.v1.Agent` as gRPC sees it: one typed line per method, encoded and decoded by the generated module.
 * What is sent may leave fields out (`$Properties`); what arrives has every field.
 */
import type { MethodDefinition } from '@grpc/grpc-js';
import { phaul } from '../../gen/agent.js';

import v1 = phaul.v1;

/** Protocol numbers that this program speaks, best first. Zero is never one. */
export const spokenProtocols: readonly number[] = [1];

interface MessageCodec<Sent, Received> {
  encode(message: Sent): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Received;
}

/** One method: what the client sends, what the server reads, what the server sends, what the client reads. */
export interface RpcMethod<SentRequest, Request, SentAnswer, Answer> {
  readonly name: string;
  readonly path: string;
  readonly streams: boolean;
  encodeRequest(message: SentRequest): Buffer;
  decodeRequest(bytes: Buffer): Request;
  encodeAnswer(message: SentAnswer): Buffer;
  decodeAnswer(bytes: Buffer): Answer;
}

function method<SentRequest, Request, SentAnswer, Answer>(
  name: string,
  request: MessageCodec<SentRequest, Request>,
  answer: MessageCodec<SentAnswer, Answer>,
  streams = false,
): RpcMethod<SentRequest, Request, SentAnswer, Answer> {
  return {
    name,
    path: `/phaul.v1.Agent/${name}`,
    streams,
    encodeRequest: (message) => bufferOf(request.encode(message).finish()),
    decodeRequest: (bytes) => request.decode(bytes),
    encodeAnswer: (message) => bufferOf(answer.encode(message).finish()),
    decodeAnswer: (bytes) => answer.decode(bytes),
  };
}

export const rpc = {
  hello: method('Hello', v1.HelloRequest, v1.HelloAnswer),
  check: method('Check', v1.LandingRequestDocument, v1.CheckAnswer),
  prepare: method('Prepare', v1.LandingRequestDocument, v1.PrepareAnswer),
  arm: method('Arm', v1.MigrationRef, v1.Nothing),
  restoreAndHold: method('RestoreAndHold', v1.DeliveryRequest, v1.ReadyAnswer),
  keepImages: method('KeepImages', v1.DeliveryRequest, v1.KeepImagesAnswer),
  takeOver: method('TakeOver', v1.TakeOverRequest, v1.RunningAnswer),
  abort: method('Abort', v1.MigrationRef, v1.Nothing),
  heartbeat: method('Heartbeat', v1.MigrationRef, v1.HeartbeatAnswer),
  outcome: method('Outcome', v1.OutcomeRequest, v1.OutcomeAnswer),
  migrate: method('Migrate', v1.MigrateRequest, v1.Event, true),
  watch: method('Watch', v1.MigrationRef, v1.Event, true),
  status: method('Status', v1.StatusRequest, v1.StatusAnswer),
  cancel: method('Cancel', v1.MigrationRef, v1.Nothing),
  recover: method('Recover', v1.RecoverRequest, v1.RecoverAnswer),
  leftovers: method('Leftovers', v1.LeftoversRequest, v1.LeftoversAnswer),
  engineInfo: method('EngineInfo', v1.Nothing, v1.EngineAnswer),
};

/** The form in which grpc-js takes a method. */
export function definitionOf<SR, R, SA, A>(of: RpcMethod<SR, R, SA, A>): MethodDefinition<R, SA> {
  return {
    path: of.path,
    requestStream: false,
    responseStream: of.streams,
    // A server never serializes requests nor reads answers; the client (rpc-client.ts) takes the functions themselves.
    requestSerialize: () => Buffer.alloc(0),
    requestDeserialize: (bytes) => of.decodeRequest(bytes),
    responseSerialize: (message) => of.encodeAnswer(message),
    responseDeserialize: () => {
      throw new Error('a server reads no answers');
    },
  };
}

/** Bounds a message before it is allocated: caught packets and file hashes of a large tree fit. Bytes. */
export const maxMessageBytes = 64 * 1024 * 1024;

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
