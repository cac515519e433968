/**
 * The agent of another host by ssh, for hosts without certificates. A local unix socket in a 0700 folder takes gRPC and
 * page connections; each becomes one `phaul agent --stdio` on the other host, which only relays to the agent there. That
 * agent is started when none answers, and outlives the ssh connection (dangers.md 6). When the connection is lost, the
 * next use opens a new one.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client, ClientChannel } from 'ssh2';
import { PhaulError } from '../../failure/phaul-error.js';
import { dialUnix, type PeerLink } from './peer-link.js';
import { logIn, type SshCredentials, type SshTarget } from './ssh-login.js';

/** Where phaul may be when a login without a terminal has a short PATH. */
const remotePath = 'PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"';
/** Whoever is not root on the other host needs `sudo` without a question. */
const remoteProgram = 'if [ "$(id -u)" = 0 ]; then exec phaul "$@"; else exec sudo -n phaul "$@"; fi';

function remoteCommand(...args: readonly string[]): string {
  return `${remotePath}; export PATH; command -v phaul >/dev/null || exit 127; set -- ${args.join(' ')}; ${remoteProgram}`;
}

/** Throws what ssh-login.ts throws, and `not-installed` or `agent-not-started`. */
export async function dialSsh(
  target: SshTarget,
  ourName: string,
  own: SshCredentials,
  signal?: AbortSignal,
): Promise<PeerLink> {
  const tunnel = await SshTunnel.open(target, own);
  try {
    const link = await dialUnix(tunnel.socketPath, `${target.user}@${target.host}`, ourName, signal);
    return {
      ...link,
      [Symbol.asyncDispose]: async () => {
        await link[Symbol.asyncDispose]();
        await tunnel[Symbol.asyncDispose]();
      },
    };
  } catch (thrown) {
    await tunnel[Symbol.asyncDispose]();
    throw thrown;
  }
}

class SshTunnel implements AsyncDisposable {
  readonly socketPath: string;
  readonly #folder: string;
  readonly #target: SshTarget;
  readonly #own: SshCredentials;
  readonly #listener: Server;
  readonly #sockets = new Set<Socket>();
  #client: Promise<Client> | null = null;

  private constructor(target: SshTarget, own: SshCredentials) {
    this.#target = target;
    this.#own = own;
    // mkdtemp makes it 0700.
    this.#folder = mkdtempSync(join(tmpdir(), 'phaul-ssh-'));
    this.socketPath = join(this.#folder, 's');
    this.#listener = createServer((socket) => void this.#forward(socket));
  }

  static async open(target: SshTarget, own: SshCredentials): Promise<SshTunnel> {
    const tunnel = new SshTunnel(target, own);
    try {
      await tunnel.#connected();
      await new Promise<void>((resolve, reject) => {
        tunnel.#listener.once('error', reject);
        tunnel.#listener.listen(tunnel.socketPath, () => resolve());
      });
      return tunnel;
    } catch (thrown) {
      await tunnel[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** The living connection, or a new one with an agent at its other end. */
  #connected(): Promise<Client> {
    this.#client ??= this.#connect().catch((thrown: unknown) => {
      this.#client = null;
      throw thrown;
    });
    return this.#client;
  }

  async #connect(): Promise<Client> {
    const client = await logIn(this.#target, this.#own);
    client.once('close', () => {
      this.#client = null;
    });
    try {
      await ensureRemoteAgent(client, this.#target);
      return client;
    } catch (thrown) {
      client.end();
      throw thrown;
    }
  }

  async #forward(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    // Whoever opened the socket sees it close; a listener is needed lest Node ends the program.
    socket.on('error', () => undefined);
    try {
      const channel = await execute(await this.#connected(), remoteCommand('agent', '--stdio'));
      channel.stderr.resume();
      channel.on('error', () => socket.destroy());
      channel.once('close', () => socket.destroy());
      socket.once('close', () => channel.close());
      socket.pipe(channel).pipe(socket);
    } catch {
      // gRPC and the page sender report a closed connection and dial again; the reason is told by the first `open`.
      socket.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#listener.close(() => resolve()));
    // A connection that never came about has nothing to end; its reason was thrown by `open`.
    const client = await this.#client?.catch(() => null);
    client?.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function ensureRemoteAgent(client: Client, target: SshTarget): Promise<void> {
  const { status, output } = await finished(await execute(client, remoteCommand('agent', '--daemon')));
  if (status === 0) return;
  if (status === 127) {
    throw new PhaulError({
      code: 'not-installed',
      what: `phaul is not installed on ${target.host}`,
      remedy: `install phaul on ${target.host}, so that \`ssh ${target.user}@${target.host} phaul --version\` answers`,
    });
  }
  throw new PhaulError({
    code: 'agent-not-started',
    what: `the agent on ${target.host} cannot be started: ${output.trim().slice(-2000) || `status ${status}`}`,
    remedy: `run \`phaul agent --daemon\` on ${target.host} as root and look at what it says`,
  });
}

function execute(client: Client, command: string): Promise<ClientChannel> {
  return new Promise((resolve, reject) => {
    client.exec(command, (error, channel) => {
      if (error) reject(error);
      else resolve(channel);
    });
  });
}

function finished(channel: ClientChannel): Promise<{ status: number; output: string }> {
  return new Promise((resolve) => {
    let output = '';
    let status = -1;
    channel.on('data', () => undefined);
    channel.stderr.on('data', (bytes: Buffer) => {
      output = (output + bytes.toString('utf8')).slice(-10_000);
    });
    channel.on('exit', (code: number | null) => {
      status = code ?? -1;
    });
    channel.on('close', () => resolve({ status, output }));
  });
}
