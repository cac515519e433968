/** A connection to the agent of another host, however it is reached; control and pages of all kinds of ways look the same. */
import { connect as connectSocket, type Socket } from 'node:net';
import { ChannelCredentials, Client } from '@grpc/grpc-js';
import { messageOf, PhaulError } from '../../failure/phaul-error.js';
import type { HostFacts } from '../duties.js';
import { factsFromWire } from './messages.js';
import { channelOptions, RpcClient } from './rpc-client.js';
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

const pageConnectTimeoutMs = 10_000;

/** Longest wait for the first answer, connection included. ms. */
const helloTimeoutMs = 10_000;

/** Says hello: agrees on a protocol, warms the connection, brings the facts. Throws `protocol-mismatch`, `peer-not-allowed`, `host-unreachable`. */
export async function sayHello(client: RpcClient, ourName: string, signal?: AbortSignal): Promise<HostFacts> {
  const request = { protocols: [...spokenProtocols], programVersion: programVersion(), hostName: ourName };
  const answer = await client.call(rpc.hello, request, { timeoutMs: helloTimeoutMs, ...(signal ? { signal } : {}) });
  return factsFromWire(answer);
}

/** The agent behind a unix socket. `shown` is for messages. */
export async function dialUnix(path: string, shown: string, ourName: string, signal?: AbortSignal): Promise<PeerLink> {
  const options = { ...channelOptions, 'grpc.default_authority': 'localhost' };
  const client = new RpcClient(new Client(`unix:${path}`, ChannelCredentials.createInsecure(), options), shown);
  const openPages = (): Promise<Socket> => connected(connectSocket({ path }), 'connect', shown);
  return greeted(client, ourName, openPages, signal);
}

/** A link over `client`, once hello was said; the client is closed when that fails. */
export async function greeted(
  client: RpcClient,
  ourName: string,
  openPages: () => Promise<Socket>,
  signal?: AbortSignal,
): Promise<PeerLink> {
  try {
    const facts = await sayHello(client, ourName, signal);
    return {
      name: facts.hostName,
      facts,
      rpc: client,
      openPages,
      [Symbol.asyncDispose]: async () => client[Symbol.dispose](),
    };
  } catch (thrown) {
    client[Symbol.dispose]();
    throw thrown;
  }
}

/** Waits for a connection of pages. Throws `host-unreachable`. */
export function connected(socket: Socket, ready: 'connect' | 'secureConnect', host: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      clearTimeout(patience);
      socket.destroy();
      reject(
        new PhaulError({
          code: 'host-unreachable',
          what: `no page connection to ${host}: ${messageOf(cause)}`,
          remedy: `check the network and the agent on ${host}`,
          cause,
        }),
      );
    };
    const patience = setTimeout(() => fail(new Error('timed out')), pageConnectTimeoutMs);
    socket.once('error', fail);
    socket.once(ready, () => {
      clearTimeout(patience);
      socket.off('error', fail);
      resolve(socket);
    });
  });
}
