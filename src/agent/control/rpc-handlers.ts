/**
 * Every RPC, in three steps: who calls and may he, is the message whole, then the duty. A method that is missing here is
 * a type error.
 */
import {
  Server,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { messageOf, PhaulError } from '../../failure/phaul-error.js';
import type { phaul } from '../../gen/agent.js';
import type { AgentDuties } from '../duties.js';
import type { Authorisation } from './authorisation.js';
import { type Caller, callerKey } from './caller.js';
import { deliveredFromWire, factsToWire, findingToWire, runningToWire } from './messages.js';
import { parseLandingRequest, parseMigrationId, parseOrder } from './order-schema.js';
import { toRpcError } from './rpc-failure.js';
import { definitionOf, maxMessageBytes, type RpcMethod, rpc, spokenProtocols } from './rpc-service.js';
import { commonProtocol, programVersion } from './version.js';

/** Any call of grpc-js, as far as the caller's identity is concerned. */
export type AnyCall =
  | ServerUnaryCall<unknown, unknown>
  | ServerWritableStream<unknown, unknown>
  | ServerReadableStream<unknown, unknown>
  | ServerDuplexStream<unknown, unknown>;

/** Tells who calls, from the connection. Throws when it cannot be told. */
export type Identify = (call: AnyCall) => Caller;

interface Context {
  readonly caller: Caller;
  /** Ends when the caller hangs up or its deadline passes. */
  readonly signal: AbortSignal;
}

type UnaryHandlers = {
  [Name in keyof typeof rpc as (typeof rpc)[Name] extends RpcMethod<infer _SR, infer _R, infer _SA, infer _A>
    ? Name extends 'migrate' | 'watch'
      ? never
      : Name
    : never]: (typeof rpc)[Name] extends RpcMethod<infer _SR, infer Request, infer SentAnswer, infer _A>
    ? (request: Request, context: Context) => Promise<SentAnswer>
    : never;
};

/** A gRPC server with all methods; it listens nowhere, connections are injected (front-door.ts). */
export function rpcServer(duties: AgentDuties, may: Authorisation, identify: Identify, log: Logger): Server {
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.keepalive_time_ms': 5000,
    'grpc.keepalive_timeout_ms': 5000,
  });
  const unary = unaryHandlers(duties, may);
  const service: Record<string, ReturnType<typeof definitionOf>> = {};
  const handlers: Record<string, UntypedHandleCall> = {};
  for (const name of Object.keys(unary) as (keyof UnaryHandlers)[]) {
    service[name] = definitionOf(rpc[name] as RpcMethod<unknown, unknown, unknown, unknown>) as never;
    const work = unary[name] as (request: unknown, context: Context) => Promise<unknown>;
    handlers[name] = (call: ServerUnaryCall<unknown, unknown>, done: sendUnaryData<unknown>): void => {
      void answer(call, name, work, identify, log).then(
        (message) => done(null, message),
        (thrown: unknown) => done(toRpcError(thrown)),
      );
    };
  }
  const streams = streamHandlers(duties, may);
  for (const name of ['migrate', 'watch'] as const) {
    service[name] = definitionOf(rpc[name] as RpcMethod<unknown, unknown, unknown, unknown>) as never;
    const work = streams[name] as StreamHandler<unknown>;
    handlers[name] = (call: ServerWritableStream<unknown, unknown>): void => {
      void pour(call, name, work, identify, log);
    };
  }
  server.addService(service as never, handlers);
  return server;
}

function unaryHandlers(duties: AgentDuties, may: Authorisation): UnaryHandlers {
  const { peer, operator } = duties;
  /** Who has prepared which migration since this agent started; older ones are in the journal. */
  const owners = new Map<string, string>();

  async function owned(id: string, caller: Caller): Promise<string> {
    may.requirePeer(caller);
    const parsed = parseMigrationId(id);
    const owner = owners.get(parsed) ?? (await peer.ownerOf(parsed));
    if (owner !== null) may.requireOwner(caller, owner, parsed);
    return parsed;
  }

  return {
    hello: async (request, { caller }) => {
      // An operator says hello too: everything else is judged call by call.
      if (caller.kind === 'host') may.requirePeer(caller);
      else if (caller.kind === 'operator') may.requireOperator(caller);
      const facts = await peer.facts();
      const protocol = commonProtocol(spokenProtocols, request.protocols, facts.hostName);
      return { ...factsToWire(facts), protocol, programVersion: programVersion() };
    },
    check: async ({ request }, { caller, signal }) => {
      may.requirePeer(caller);
      const landing = parseLandingRequest(request);
      may.requireAddresses(caller, landing);
      return { findings: (await peer.check(landing, caller, signal)).map(findingToWire) };
    },
    prepare: async ({ request }, { caller, signal }) => {
      may.requirePeer(caller);
      const landing = parseLandingRequest(request);
      may.requireAddresses(caller, landing);
      const id = await owned(landing.order.id, caller);
      const isNew = !owners.has(id);
      // From the first moment: nobody else may abort it while it is being prepared.
      if (isNew) owners.set(id, callerKey(caller));
      try {
        const { pageToken } = await peer.prepare(landing, caller, signal);
        return { pageToken };
      } catch (thrown) {
        if (isNew) owners.delete(id);
        throw thrown;
      }
    },
    arm: async ({ id }, { caller, signal }) => {
      await peer.arm(await owned(id, caller), signal);
      return {};
    },
    restoreAndHold: async ({ id, delivered }, { caller, signal }) => {
      return peer.restoreAndHold(await owned(id, caller), deliveredFromWire(delivered), signal);
    },
    keepImages: async ({ id, delivered }, { caller, signal }) => {
      return { folder: await peer.keepImages(await owned(id, caller), deliveredFromWire(delivered), signal) };
    },
    takeOver: async ({ id, packets, lost }, { caller }) => {
      return runningToWire(await peer.takeOver(await owned(id, caller), { packets, lost }));
    },
    abort: async ({ id }, { caller }) => {
      const parsed = await owned(id, caller);
      await peer.abort(parsed);
      owners.delete(parsed);
      return {};
    },
    heartbeat: async ({ id }, { caller }) => ({ held: peer.heartbeat(await owned(id, caller)) }),
    outcome: async ({ id, role }, { caller }) => {
      may.requireHost(caller);
      const parsed = parseMigrationId(id);
      if (role === 'source') return { word: await peer.wordAsSource(parsed, caller) };
      if (role === 'destination') return { word: await peer.wordAsDestination(parsed, caller) };
      throw new PhaulError({
        code: 'bad-message',
        what: `unknown role ${role}`,
        remedy: 'use the same version of phaul on both hosts',
      });
    },
    status: async ({ id }, { caller }) => {
      may.requireOperator(caller);
      return { migrations: [...(await operator.status(id === '' ? null : parseMigrationId(id)))] };
    },
    cancel: async ({ id }, { caller }) => {
      may.requireOperator(caller);
      await operator.cancel(parseMigrationId(id));
      return {};
    },
    recover: async ({ id, sourceIsDead }, { caller }) => {
      may.requireOperator(caller);
      return { recoveries: [...(await operator.recover(id === '' ? null : parseMigrationId(id), sourceIsDead))] };
    },
    leftovers: async ({ clean }, { caller }) => {
      may.requireOperator(caller);
      const found = await operator.leftovers(clean);
      return { leftovers: found.map((leftover) => ({ ...leftover, migration: leftover.migration ?? '' })) };
    },
    engineInfo: async (_request, { caller }) => {
      may.requireOperator(caller);
      return operator.engine();
    },
  };
}

type StreamHandler<Request> = (request: Request, context: Context, tell: (event: object) => void) => Promise<void>;

function streamHandlers(duties: AgentDuties, may: Authorisation) {
  const { operator } = duties;
  return {
    migrate: (async ({ order, destination, sshHome, sshAgentSocket }, { caller }, tell) => {
      may.requireOperator(caller);
      // Paths of this host: only who is root here already may name them.
      const named = caller.kind === 'local' && sshHome.startsWith('/');
      const ssh = named ? { home: sshHome, agentSocket: sshAgentSocket === '' ? null : sshAgentSocket } : null;
      await operator.migrate(parseOrder(order), destination, tell, ssh);
    }) satisfies StreamHandler<phaul.v1.MigrateRequest>,
    watch: (async ({ id }, { caller, signal }, tell) => {
      may.requireOperator(caller);
      await operator.watch(parseMigrationId(id), tell, signal);
    }) satisfies StreamHandler<phaul.v1.MigrationRef>,
  };
}

async function answer(
  call: ServerUnaryCall<unknown, unknown>,
  name: string,
  work: (request: unknown, context: Context) => Promise<unknown>,
  identify: Identify,
  log: Logger,
): Promise<unknown> {
  const hungUp = new AbortController();
  call.on('cancelled', () => hungUp.abort(callerGone(name)));
  try {
    return await work(call.request, { caller: identify(call), signal: hungUp.signal });
  } catch (thrown) {
    log.warn(
      { rpc: name, code: thrown instanceof PhaulError ? thrown.code : 'internal', err: thrown },
      messageOf(thrown),
    );
    throw thrown;
  }
}

async function pour(
  call: ServerWritableStream<unknown, unknown>,
  name: string,
  work: StreamHandler<unknown>,
  identify: Identify,
  log: Logger,
): Promise<void> {
  const hungUp = new AbortController();
  call.on('cancelled', () => hungUp.abort(callerGone(name)));
  // Events are few and small; what nobody reads any more is dropped, the work goes on.
  const tell = (event: object): void => {
    if (!call.cancelled) call.write({ event: JSON.stringify(event) });
  };
  try {
    await work(call.request, { caller: identify(call), signal: hungUp.signal }, tell);
    call.end();
  } catch (thrown) {
    if (!hungUp.signal.aborted) log.warn({ rpc: name, err: thrown }, messageOf(thrown));
    call.emit('error', toRpcError(thrown));
  }
}

function callerGone(name: string): PhaulError {
  return new PhaulError({
    code: 'caller-gone',
    what: `the caller of ${name} has hung up`,
    remedy: 'none: whoever called has ended',
  });
}
