/**
 * The one configuration file of an agent: /etc/phaul/agent.json, or what PHAUL_CONFIG names. Without it nothing listens
 * on TCP, no peer may send here, no address may come (dangers.md 16).
 *
 *     {
 *       "hostName": "a",
 *       "listen": "10.0.0.1:7437",
 *       "tls": { "ca": "/etc/phaul/ca.pem", "certificate": "/etc/phaul/host.pem", "key": "/etc/phaul/host.key" },
 *       "peers": [{ "name": "b", "mayMove": ["10.0.0.100/32"] }],
 *       "operators": ["alice"],
 *       "stateDirectory": "/var/lib/phaul"
 *     }
 */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { z } from 'zod';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import { type AddressRange, parseAddressRange } from './control/address-range.js';
import { namePattern } from './control/caller.js';
import { runDirectoryOf } from './control/run-folder.js';

/** One port for control and pages. */
export const defaultPort = 7437;
const defaultConfigPath = '/etc/phaul/agent.json';

export interface TlsFiles {
  /** Paths of PEM files. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export interface PeerRule {
  /** Name in its host certificate. */
  readonly name: string;
  /** Addresses that may come from it. */
  readonly mayMove: readonly AddressRange[];
}

export interface AgentConfig {
  readonly hostName: string;
  readonly listen: { readonly host: string; readonly port: number } | null;
  readonly tls: TlsFiles | null;
  readonly peers: readonly PeerRule[];
  /** Names in operator certificates that may command this host over TCP. The local socket needs none. */
  readonly operators: readonly string[];
  readonly stateDirectory: string;
  /** 0700; holds `agent.sock`. */
  readonly runDirectory: string;
}

const absolutePath = z.string().startsWith('/', 'must be an absolute path');
const certifiedName = z.string().regex(namePattern, 'letters, digits, dots and dashes, at most 63 characters');

const file = z.strictObject({
  hostName: certifiedName.optional(),
  listen: z.string().nullable().default(null),
  tls: z.strictObject({ ca: absolutePath, certificate: absolutePath, key: absolutePath }).nullable().default(null),
  peers: z.array(z.strictObject({ name: certifiedName, mayMove: z.array(z.string()).default([]) })).default([]),
  operators: z.array(certifiedName).default([]),
  stateDirectory: absolutePath.optional(),
});

/** Where the configuration is: `chosen`, else PHAUL_CONFIG, else /etc/phaul/agent.json. */
export function configPath(chosen: string | null, environment: NodeJS.ProcessEnv = process.env): string {
  return chosen ?? environment['PHAUL_CONFIG'] ?? defaultConfigPath;
}

/** Reads the configuration; a missing default file means the defaults. Throws `config-unreadable` or `config-wrong`. */
export function loadConfig(chosen: string | null = null, environment: NodeJS.ProcessEnv = process.env): AgentConfig {
  const path = configPath(chosen, environment);
  const named = chosen !== null || environment['PHAUL_CONFIG'] !== undefined;
  return parseConfig(readText(path, named), path, environment);
}

/** Throws `config-wrong` with the path of the first wrong value. PHAUL_STATE_DIR goes before the file. */
export function parseConfig(text: string, path: string, environment: NodeJS.ProcessEnv = process.env): AgentConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw wrong(path, 'it is not JSON', cause);
  }
  const result = file.safeParse(json);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw wrong(path, `${issue?.path.join('.') || 'top level'}: ${issue?.message ?? 'unknown'}`, result.error);
  }
  const { hostName, listen, tls, peers, operators, stateDirectory } = result.data;
  if (listen !== null && tls === null)
    throw wrong(path, 'listen needs tls: there is no unauthenticated listening', undefined);
  const names = peers.map((peer) => peer.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw wrong(path, `peers: ${twice} is there twice`, undefined);
  return {
    hostName: hostName ?? hostname(),
    listen: listen === null ? null : listenAddress(listen, path),
    tls,
    peers: peers.map((peer) => ({
      name: peer.name,
      mayMove: peer.mayMove.map((range) => rangeIn(range, peer.name, path)),
    })),
    operators,
    stateDirectory: environment['PHAUL_STATE_DIR'] ?? stateDirectory ?? '/var/lib/phaul',
    runDirectory: runDirectoryOf(environment),
  };
}

/** `host`, `host:port`, `1.2.3.4:port`, `[v6]:port`; null when it is none of these. */
export function parseHostPort(text: string, port = defaultPort): { host: string; port: number } | null {
  if (isIP(text) === 6) return { host: text, port };
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s/@]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (!match || host === undefined || host.startsWith('-')) return null;
  if (match[1] !== undefined && isIP(match[1]) !== 6) return null;
  const chosen = match[3] === undefined ? port : Number(match[3]);
  return chosen >= 1 && chosen <= 65_535 ? { host, port: chosen } : null;
}

function listenAddress(text: string, path: string): { host: string; port: number } {
  const address = parseHostPort(text);
  if (address === null || isIP(address.host) === 0) throw wrong(path, `listen: ${text} is not IP:port`, undefined);
  return address;
}

function rangeIn(text: string, peer: string, path: string): AddressRange {
  const range = parseAddressRange(text);
  if (range === null) throw wrong(path, `peers: mayMove of ${peer}: ${text} is not IP or IP/length`, undefined);
  return range;
}

function readText(path: string, mustExist: boolean): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT' && !mustExist) return '{}';
    throw new PhaulError({
      code: 'config-unreadable',
      what: `the configuration ${path} cannot be read (${errnoOf(thrown) ?? 'unknown'})`,
      remedy: 'create the file, or name another one with --config or PHAUL_CONFIG',
      cause: thrown,
    });
  }
}

function wrong(path: string, what: string, cause: unknown): PhaulError {
  return new PhaulError({
    code: 'config-wrong',
    what: `the configuration ${path} is wrong: ${what}`,
    remedy: 'correct the file; docs/operations.md describes every key',
    cause,
  });
}
