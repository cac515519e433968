/**
 * Reaches the agent of another host: `host[:port]` by mutual TLS, `user@host[:port]` by ssh, `unix:PATH` on this one.
 */
import { isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ChannelCredentials, Client } from '@grpc/grpc-js';
import { PhaulError } from '../../failure/phaul-error.js';
import { type AgentConfig, parseHostPort } from '../config.js';
import { connected, dialUnix, greeted, type PeerLink } from './peer-link.js';
import { channelOptions, RpcClient } from './rpc-client.js';
import type { SshCredentials } from './ssh-login.js';
import { diagnoseTls } from './tls-diagnosis.js';
import { checkHostIdentity, readTlsIdentity } from './tls-identity.js';

export type Destination =
  | { readonly way: 'unix'; readonly path: string }
  | { readonly way: 'tls'; readonly host: string; readonly port: number }
  | { readonly way: 'ssh'; readonly user: string; readonly host: string; readonly port: number };

/** Throws `destination-wrong`. */
export function parseDestination(text: string): Destination {
  if (text.startsWith('unix:/')) return { way: 'unix', path: text.slice('unix:'.length) };
  const at = text.lastIndexOf('@');
  const address = parseHostPort(text.slice(at + 1), at >= 0 ? 22 : undefined);
  const user = text.slice(0, Math.max(at, 0));
  if (address !== null && at < 0) return { way: 'tls', ...address };
  // A leading dash or white space in a login name is somebody's trick, not a name.
  if (address !== null && /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$/.test(user)) return { way: 'ssh', user, ...address };
  throw new PhaulError({
    code: 'destination-wrong',
    what: `${text} is no destination`,
    remedy: 'name host[:port] (certificates), user@host[:port] (ssh) or unix:PATH',
  });
}

export interface DialOptions {
  readonly signal?: AbortSignal;
  /** Default: those of the user that runs this program. */
  readonly ssh?: SshCredentials;
}

/** Opens a link and says hello on it. The caller disposes it. */
export async function dial(destination: string, config: AgentConfig, options: DialOptions = {}): Promise<PeerLink> {
  const { signal } = options;
  const parsed = parseDestination(destination);
  switch (parsed.way) {
    case 'unix':
      return dialUnix(parsed.path, destination, config.hostName, signal);
    case 'tls':
      return dialTls(parsed, config, signal);
    case 'ssh': {
      const [{ dialSsh }, { ownSshCredentials }] = await Promise.all([import('./ssh.js'), import('./ssh-login.js')]);
      return dialSsh(parsed, config.hostName, options.ssh ?? ownSshCredentials(), signal);
    }
  }
}

async function dialTls(
  to: { host: string; port: number },
  config: AgentConfig,
  signal?: AbortSignal,
): Promise<PeerLink> {
  if (config.tls === null) {
    throw new PhaulError({
      code: 'no-certificate',
      what: `${to.host} is reached by certificates, and this host has none`,
      remedy: `make them with \`phaul certs\` and name them under tls in the configuration, or use ssh: user@${to.host}`,
    });
  }
  const identity = readTlsIdentity(config.tls);
  const { context } = identity;
  const credentials = ChannelCredentials.createFromSecureContext(context, {
    checkServerIdentity: (dialled, certificate) => checkHostIdentity(dialled, certificate),
  });
  const bracketed = isIP(to.host) === 6 ? `[${to.host}]` : to.host;
  const client = new RpcClient(new Client(`${bracketed}:${to.port}`, credentials, channelOptions), to.host);
  const openPages = (): Promise<Socket> => {
    const socket = connectTls({
      host: to.host,
      port: to.port,
      secureContext: context,
      checkServerIdentity: checkHostIdentity,
      ...(isIP(to.host) === 0 ? { servername: to.host } : {}),
    });
    socket.setNoDelay(true);
    return connected(socket, 'secureConnect', to.host);
  };
  try {
    return await greeted(client, config.hostName, openPages, signal);
  } catch (thrown) {
    if (!(thrown instanceof PhaulError) || thrown.code !== 'host-unreachable') throw thrown;
    throw await diagnoseTls(to, identity, thrown);
  }
}
