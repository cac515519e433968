/** Calls another agent: one HTTP/2 connection, promises, PhaulErrors. */
import { type CallOptions, type Client, type ClientOptions, Metadata, type ServiceError } from '@grpc/grpc-js';
import { PhaulError } from '../../failure/phaul-error.js';
import { fromRpcError } from './rpc-failure.js';
import { maxMessageBytes, type RpcMethod } from './rpc-service.js';

export interface CallLimits {
  /** Ends the call; its reason is thrown if it is a PhaulError. */
  readonly signal?: AbortSignal;
  /** ms; without it the call may last as long as the connection. */
  readonly timeoutMs?: number;
}

/** A dead link is found within 4 s even while a call waits; a lost connection is dialled again within a second. */
export const channelOptions: ClientOptions = {
  'grpc.keepalive_time_ms': 2000,
  'grpc.keepalive_timeout_ms': 2000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.max_receive_message_length': maxMessageBytes,
  'grpc.max_send_message_length': maxMessageBytes,
  // A connection of this link alone, closed with it.
  'grpc.use_local_subchannel_pool': 1,
  // COMMIT must never be sent again by the library behind our back, nor go through a proxy named in the environment.
  'grpc.enable_retries': 0,
  'grpc.enable_http_proxy': 0,
};

export class RpcClient implements Disposable {
  readonly #client: Client;
  /** For messages only. */
  readonly host: string;

  constructor(client: Client, host: string) {
    this.#client = client;
    this.host = host;
  }

  /** One request, one answer. Throws PhaulErrors only. */
  call<SR, R, SA, A>(method: RpcMethod<SR, R, SA, A>, request: SR, limits: CallLimits = {}): Promise<A> {
    return new Promise<A>((resolve, reject) => {
      if (limits.signal?.aborted) return reject(reasonOf(limits.signal, this.host, method.name));
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.encodeRequest,
        method.decodeAnswer,
        request,
        new Metadata(),
        optionsOf(limits),
        (error: ServiceError | null, answer?: A) => {
          limits.signal?.removeEventListener('abort', cancel);
          if (limits.signal?.aborted && error) return reject(reasonOf(limits.signal, this.host, method.name));
          if (error) return reject(fromRpcError(error, this.host, method.name));
          if (answer === undefined) return reject(new Error(`${method.name} was answered with nothing`));
          resolve(answer);
        },
      );
      const cancel = (): void => call.cancel();
      limits.signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** One request, many answers. Leaving the loop early hangs up. */
  async *stream<SR, R, SA, A>(
    method: RpcMethod<SR, R, SA, A>,
    request: SR,
    limits: CallLimits = {},
  ): AsyncGenerator<A> {
    limits.signal?.throwIfAborted();
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.encodeRequest,
      method.decodeAnswer,
      request,
      new Metadata(),
      optionsOf(limits),
    );
    const cancel = (): void => call.cancel();
    limits.signal?.addEventListener('abort', cancel, { once: true });
    try {
      for await (const answer of call) yield answer as A;
    } catch (thrown) {
      if (limits.signal?.aborted) throw reasonOf(limits.signal, this.host, method.name);
      throw fromRpcError(thrown as ServiceError, this.host, method.name);
    } finally {
      limits.signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function optionsOf(limits: CallLimits): CallOptions {
  return limits.timeoutMs === undefined ? {} : { deadline: Date.now() + limits.timeoutMs };
}

function reasonOf(signal: AbortSignal, host: string, doing: string): Error {
  if (signal.reason instanceof PhaulError) return signal.reason;
  return new PhaulError({
    code: 'call-cancelled',
    what: `the call to ${host} was cancelled (${doing})`,
    remedy: 'try again',
  });
}
