/** A connection to the agent of another host, however it is reached; control and pages of all kinds of ways look the same. */
import type { Socket } from 'node:net';
import type { HostFacts } from './duties.js';
import { factsFromWire } from './messages.js';
import type { RpcClient } from './rpc-client.js';
import { rpc, spokenProtocols } from './rpc-service.js';
import { programVersion } from './version.js';

export interface PeerLink extends AsyncDisposable {
  /** Name that the other host goes by. */
  readonly name: string;
  readonly facts: HostFacts;
  readonly rpc: RpcClient;
  /** A connection for pages: authenticated, nothing sent on it yet. The caller closes it. */
  openPages(): Promise<Socket>;
}

/** Longest wait for the first answer, connection included. ms. */
const helloTimeoutMs = 10_000;

/** Says hello: agrees on a protocol, warms the connection, brings the facts. Throws `protocol-mismatch`, `peer-not-allowed`, `host-unreachable`. */
export async function sayHello(client: RpcClient, ourName: string, signal?: AbortSignal): Promise<HostFacts> {
  const request = { protocols: [...spokenProtocols], programVersion: programVersion(), hostName: ourName };
  const answer = await client.call(rpc.hello, request, { timeoutMs: helloTimeoutMs, ...(signal ? { signal } : {}) });
  return factsFromWire(answer);
}
