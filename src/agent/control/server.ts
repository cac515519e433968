/**
 * Where an agent listens: a unix socket for root of this host, and, if configured, one TCP port with mutual TLS for
 * other hosts and for operators. Control and pages share both. Nothing else listens (dangers.md 16, 17).
 */
import { constants } from 'node:crypto';
import { chmodSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { type Server as GrpcServer, ServerCredentials } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { errnoOf, messageOf, PhaulError } from '../../failure/phaul-error.js';
import type { AgentConfig } from '../config.js';
import type { AgentDuties } from '../duties.js';
import { Authorisation } from './authorisation.js';
import { type Caller, callerOf } from './caller.js';
import { defaultLimits, FrontDoor, type FrontDoorLimits, type PageEntrance } from './front-door.js';
import { type AnyCall, rpcServer } from './rpc-handlers.js';
import { type RunLock, removeStaleSocket, socketPathIn } from './run-folder.js';
import { readTlsIdentity } from './tls-identity.js';

export class AgentServer implements AsyncDisposable {
  readonly socketPath: string;
  readonly #listeners: NetServer[] = [];
  readonly #grpcServers: GrpcServer[] = [];
  readonly #connections = new Set<Socket>();

  private constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  /** Listens. `_lock` shows that no other agent has this run folder. Throws `port-in-use`, and what certificates can be wrong with. */
  static async open(
    config: AgentConfig,
    _lock: RunLock,
    duties: AgentDuties,
    pages: PageEntrance,
    log: Logger,
    limits: FrontDoorLimits = defaultLimits,
  ): Promise<AgentServer> {
    const server = new AgentServer(socketPathIn(config.runDirectory));
    try {
      const may = new Authorisation(config);
      await server.#listenLocally(duties, may, pages, log, limits);
      if (config.listen !== null && config.tls !== null) {
        await server.#listenOnTcp(config, duties, may, pages, log, limits);
      }
      return server;
    } catch (thrown) {
      await server[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** The port that TCP listens on; null when it does not. */
  get tcpPort(): number | null {
    const address = this.#listeners[1]?.address() as AddressInfo | null | undefined;
    return address?.port ?? null;
  }

  async #listenLocally(
    duties: AgentDuties,
    may: Authorisation,
    pages: PageEntrance,
    log: Logger,
    limits: FrontDoorLimits,
  ): Promise<void> {
    const inject = this.#control(duties, may, () => ({ kind: 'local' }), log);
    const door = new FrontDoor({ control: inject, pages }, log, limits);
    const listener = createServer((socket) => {
      this.#keep(socket, log);
      if (door.knock(socket)) door.listen(socket, socket);
    });
    removeStaleSocket(this.socketPath);
    await listening(listener, { path: this.socketPath });
    chmodSync(this.socketPath, 0o600);
    this.#listeners.push(listener);
  }

  async #listenOnTcp(
    config: AgentConfig,
    duties: AgentDuties,
    may: Authorisation,
    pages: PageEntrance,
    log: Logger,
    limits: FrontDoorLimits,
  ): Promise<void> {
    if (config.listen === null || config.tls === null) return;
    const identity = readTlsIdentity(config.tls);
    if (identity.caller.kind !== 'host' || identity.caller.name !== config.hostName) {
      throw new PhaulError({
        code: 'certificate-of-another',
        what: `the certificate ${config.tls.certificate} belongs to ${identity.caller.kind} ${identity.caller.name}, not to host ${config.hostName}`,
        remedy: `use the certificate of this host, or set hostName to the name in it`,
      });
    }
    const listener = createTlsServer({
      ca: identity.ca,
      cert: identity.certificate,
      key: identity.key,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['h2'],
      handshakeTimeout: limits.patienceMs,
      noDelay: true,
      // Every connection proves its certificate anew.
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
    const knocked = new Map<string, Socket>();
    const certifiedPages: PageEntrance = {
      preface: pages.preface,
      admit: (connection) => {
        try {
          may.requirePeer(callerOf((connection as TLSSocket).getPeerCertificate()));
        } catch (thrown) {
          log.warn({ err: thrown }, `a page connection was refused: ${messageOf(thrown)}`);
          connection.destroy();
          return;
        }
        pages.admit(connection);
      },
    };
    const door = new FrontDoor(
      { control: this.#control(duties, may, certifiedCaller, log), pages: certifiedPages },
      log,
      limits,
    );
    listener.on('connection', (raw: Socket) => {
      this.#keep(raw, log);
      if (!door.knock(raw)) return;
      const key = endpointOf(raw);
      knocked.set(key, raw);
      raw.once('close', () => knocked.delete(key));
    });
    listener.on('secureConnection', (secured) => {
      const raw = knocked.get(endpointOf(secured));
      if (raw === undefined) return void secured.destroy();
      this.#keep(secured, log);
      door.listen(raw, secured);
    });
    listener.on('tlsClientError', (error, socket) => {
      log.warn({ remote: socket.remoteAddress, err: error }, `a TLS connection was refused: ${error.message}`);
      socket.destroy();
    });
    await listening(listener, { host: config.listen.host, port: config.listen.port });
    this.#listeners.push(listener);
  }

  /** One gRPC server for each way in, so that a connection from TCP can never be taken for a local one. */
  #control(
    duties: AgentDuties,
    may: Authorisation,
    identify: (call: AnyCall) => Caller,
    log: Logger,
  ): (socket: Socket) => void {
    const server = rpcServer(duties, may, identify, log);
    this.#grpcServers.push(server);
    // TLS is ours already; insecure says only that gRPC adds none of its own.
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    return (socket) => injector.injectConnection(socket);
  }

  #keep(socket: Socket, log: Logger): void {
    this.#connections.add(socket);
    socket.once('close', () => this.#connections.delete(socket));
    // A connection that breaks is the business of whoever reads it; without a listener it would end the agent.
    socket.on('error', (error) => log.debug({ err: error }, 'a connection broke'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = this.#listeners.map((listener) => new Promise<void>((resolve) => listener.close(() => resolve())));
    for (const server of this.#grpcServers) server.forceShutdown();
    for (const socket of this.#connections) socket.destroy();
    await Promise.all(closed);
    if (this.#listeners.length > 0) rmSync(this.socketPath, { force: true });
  }
}

/** The caller of an RPC that came by TCP: what the verified certificate of its connection says, or nobody. */
function certifiedCaller(call: AnyCall): Caller {
  const certificate = call.getAuthContext().sslPeerCertificate;
  if (certificate === undefined) {
    throw new PhaulError({
      code: 'certificate-without-role',
      what: 'the connection has no verified certificate',
      remedy: 'make the certificates with `phaul certs`',
    });
  }
  return callerOf(certificate);
}

function endpointOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

function listening(server: NetServer, where: { path: string } | { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const text = 'path' in where ? where.path : `${where.host}:${where.port}`;
      reject(
        new PhaulError({
          code: errnoOf(cause) === 'EADDRINUSE' ? 'port-in-use' : 'cannot-listen',
          what: `cannot listen on ${text}: ${messageOf(cause)}`,
          remedy: 'choose another address under listen in the configuration',
          cause,
        }),
      );
    });
    server.listen(where, () => resolve());
  });
}
