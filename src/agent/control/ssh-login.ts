/** One ssh connection: keys from the agent and from ~/.ssh, the host's key from known_hosts. ~/.ssh/config is not read. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { AnyAuthMethod, Client, ConnectConfig, ServerHostKeyAlgorithm } from 'ssh2';
import { errnoOf, messageOf, PhaulError } from '../../failure/phaul-error.js';
import {
  type HostKeyVerdict,
  judgeHostKey,
  type KnownHost,
  knownKeyTypes,
  knownName,
  parseKnownHosts,
} from './known-hosts.js';

export interface SshTarget {
  readonly user: string;
  readonly host: string;
  readonly port: number;
}

/** Whose keys and known hosts are used. */
export interface SshCredentials {
  /** Folder that holds `.ssh`. */
  readonly home: string;
  /** Socket of ssh-agent; null: none. */
  readonly agentSocket: string | null;
}

/** Of the user that runs this program. */
export function ownSshCredentials(): SshCredentials {
  return { home: homedir(), agentSocket: process.env['SSH_AUTH_SOCK'] || null };
}

const readyTimeoutMs = 10_000;
/** A dead link is found after three unanswered questions. ms. */
const keepaliveMs = 2000;
const keepaliveMisses = 2;

/** Names of key types in known_hosts to the algorithms that prove them (RFC 8332 for RSA). */
const algorithmsOfType: Readonly<Record<string, readonly string[]>> = {
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

/** Connects and logs in. Throws `host-key-unknown`, `host-key-mismatch`, `ssh-login-refused`, `host-unreachable`. */
export async function logIn(target: SshTarget, own: SshCredentials): Promise<Client> {
  const { default: ssh2 } = await import('ssh2');
  const known = readKnownHosts(own.home);
  const name = knownName(target.host, target.port);
  let verdict: HostKeyVerdict | null = null;
  const client = new ssh2.Client();
  const settings: ConnectConfig = {
    host: target.host,
    port: target.port,
    username: target.user,
    readyTimeout: readyTimeoutMs,
    keepaliveInterval: keepaliveMs,
    keepaliveCountMax: keepaliveMisses,
    authHandler: credentials(target.user, own, (text) => ssh2.utils.parseKey(text) instanceof Error),
    hostVerifier: (key: Buffer) => {
      verdict = judgeHostKey(known, name, key);
      return verdict === 'known';
    },
  };
  const types = knownKeyTypes(known, name).flatMap((type) => algorithmsOfType[type] ?? [type]);
  if (types.length > 0) settings.algorithms = { serverHostKey: types as ServerHostKeyAlgorithm[] };
  return new Promise((resolve, reject) => {
    client.once('ready', () => {
      // An error after this is followed by `close`, which whoever uses the connection watches.
      client.off('error', fail).on('error', () => undefined);
      client.setNoDelay(true);
      resolve(client);
    });
    client.once('error', fail);
    client.connect(settings);

    function fail(error: Error & { level?: string }): void {
      client.on('error', () => undefined).end();
      reject(failureOf(error, verdict, target));
    }
  });
}

function failureOf(error: Error & { level?: string }, verdict: HostKeyVerdict | null, target: SshTarget): PhaulError {
  const where = `${target.host}:${target.port}`;
  if (verdict === 'unknown') {
    return new PhaulError({
      code: 'host-key-unknown',
      what: `the ssh key of ${where} is not in known_hosts`,
      remedy: `log in once with \`ssh -p ${target.port} ${target.user}@${target.host}\` and compare the fingerprint`,
    });
  }
  // Without a common algorithm the host no longer has the key that known_hosts names.
  if (verdict === 'mismatch' || verdict === 'revoked' || /no matching host key/i.test(error.message)) {
    return new PhaulError({
      code: 'host-key-mismatch',
      what: `${where} shows another ssh key than the one in known_hosts${verdict === 'revoked' ? ' (it is revoked)' : ''}`,
      remedy: `somebody may stand between; if the host was set up anew, remove the old key with \`ssh-keygen -R '${knownName(target.host, target.port)}'\``,
    });
  }
  if (error.level === 'client-authentication') {
    return new PhaulError({
      code: 'ssh-login-refused',
      what: `${where} does not let ${target.user} in`,
      remedy: 'load a key into ssh-agent, or put one without a passphrase into ~/.ssh/id_ed25519',
      cause: error,
    });
  }
  return new PhaulError({
    code: 'host-unreachable',
    what: `no ssh connection to ${where}: ${messageOf(error)}`,
    remedy: 'check the name, the network and the ssh server',
    cause: error,
  });
}

/** The agent first, then the usual key files. A key that needs a passphrase belongs into the agent and is left out here. */
function credentials(username: string, own: SshCredentials, isUnusable: (key: Buffer) => boolean): AnyAuthMethod[] {
  const methods: AnyAuthMethod[] = [];
  if (own.agentSocket !== null) methods.push({ type: 'agent', username, agent: own.agentSocket });
  for (const file of ['id_ed25519', 'id_ecdsa', 'id_rsa']) {
    const key = readIfThere(join(own.home, '.ssh', file));
    if (key !== null && !isUnusable(key)) methods.push({ type: 'publickey', username, key });
  }
  return methods;
}

function readKnownHosts(home: string): KnownHost[] {
  const files = [join(home, '.ssh', 'known_hosts'), '/etc/ssh/ssh_known_hosts'];
  return files.flatMap((file) => parseKnownHosts(readIfThere(file)?.toString('utf8') ?? ''));
}

function readIfThere(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT' || errnoOf(thrown) === 'ENOTDIR') return null;
    throw new PhaulError({
      code: 'ssh-file-unreadable',
      what: `${path} cannot be read (${errnoOf(thrown) ?? 'unknown'})`,
      remedy: 'correct its owner and mode',
      cause: thrown,
    });
  }
}
