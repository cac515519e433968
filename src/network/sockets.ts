/**
 * The sockets of a network namespace as /proc/PID/net/{tcp,tcp6,udp,udp6,icmp,icmp6} shows them (proc_pid_net(5)).
 * Reading changes nothing; the file of a task shows the namespace of that task.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { errnoOf } from '../failure/phaul-error.js';
import { ipText, unmapped } from './ip-address.js';

export type SocketProtocol = 'tcp' | 'udp' | 'icmp';

/** States of TCP as the kernel numbers them (net/tcp_states.h); unconnected UDP is `close`, connected is `established`. */
export type SocketState =
  | 'established'
  | 'syn-sent'
  | 'syn-recv'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'time-wait'
  | 'close'
  | 'close-wait'
  | 'last-ack'
  | 'listen'
  | 'closing'
  | 'new-syn-recv'
  | 'bound-inactive';

export interface Endpoint {
  /** Canonical; IPv4 also when an IPv6 socket speaks IPv4. */
  readonly ip: string;
  readonly port: number;
}

export interface SocketEntry {
  readonly protocol: SocketProtocol;
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly state: SocketState;
  /** Bytes not yet acknowledged; of a listener the limit of its queue. */
  readonly txQueue: number;
  /** Bytes not yet read; of a listener the connections not yet accepted. */
  readonly rxQueue: number;
  /** 0: no process holds it (not yet accepted, or orphaned). */
  readonly inode: number;
  /** True for an IPv6 socket, also when it speaks IPv4. */
  readonly ipv6: boolean;
}

/** Who holds a socket. */
export interface SocketHolder {
  readonly pid: number;
  readonly fd: number;
}

/** Holder by inode of the socket. */
export type TreeSockets = ReadonlyMap<number, SocketHolder>;

const files: readonly { readonly file: string; readonly protocol: SocketProtocol }[] = [
  { file: 'tcp', protocol: 'tcp' },
  { file: 'tcp6', protocol: 'tcp' },
  { file: 'udp', protocol: 'udp' },
  { file: 'udp6', protocol: 'udp' },
  { file: 'icmp', protocol: 'icmp' },
  { file: 'icmp6', protocol: 'icmp' },
];

const states: readonly (SocketState | null)[] = [
  null,
  'established',
  'syn-sent',
  'syn-recv',
  'fin-wait-1',
  'fin-wait-2',
  'time-wait',
  'close',
  'close-wait',
  'last-ack',
  'listen',
  'closing',
  'new-syn-recv',
  'bound-inactive',
];

/** All sockets of the network namespace in which this task lives. `self` for our own. */
export async function readSockets(pid: number | 'self'): Promise<readonly SocketEntry[]> {
  const tables = await Promise.all(
    files.map(async ({ file, protocol }) => parseSockets(await textOf(`/proc/${pid}/net/${file}`), protocol)),
  );
  return tables.flat();
}

/** Parses one table; lines that are not sockets are left out. */
export function parseSockets(text: string, protocol: SocketProtocol): readonly SocketEntry[] {
  return text.split('\n').flatMap((line) => {
    const entry = parseLine(line, protocol);
    return entry === null ? [] : [entry];
  });
}

/** Sockets held by these tasks, with one holder each. A task that has gone meanwhile holds none. */
export async function socketsOf(pids: readonly (number | 'self')[]): Promise<TreeSockets> {
  const found = new Map<number, SocketHolder>();
  for (const pid of pids) {
    for (const { fd, target } of await descriptorsOf(pid)) {
      const inode = Number(/^socket:\[([0-9]+)\]$/.exec(target)?.[1] ?? 0);
      if (inode !== 0 && !found.has(inode)) found.set(inode, { pid: pid === 'self' ? process.pid : pid, fd });
    }
  }
  return found;
}

async function descriptorsOf(pid: number | 'self'): Promise<readonly { fd: number; target: string }[]> {
  const folder = `/proc/${pid}/fd`;
  const names = await unlessGone(readdir(folder), []);
  return await Promise.all(
    names.map(async (name) => ({ fd: Number(name), target: await unlessGone(readlink(`${folder}/${name}`), '') })),
  );
}

async function unlessGone<T>(work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work;
  } catch (failure) {
    // The task or the descriptor has gone between two looks.
    if (['ENOENT', 'ESRCH'].includes(errnoOf(failure) ?? '')) return otherwise;
    throw failure;
  }
}

async function textOf(path: string): Promise<string> {
  // No such file: a kernel without IPv6 or without ping sockets. A missing task must not look like a host without sockets.
  const exists = await unlessGone(readdir(path.slice(0, path.lastIndexOf('/'))), null);
  if (exists === null || exists.includes(path.slice(path.lastIndexOf('/') + 1))) return await readFile(path, 'utf8');
  return '';
}

// "sl: local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ..."
const linePattern =
  /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) ([0-9A-F]{8}):([0-9A-F]{8}) \S+ \S+\s+\d+\s+\d+ (\d+)/;

function parseLine(line: string, protocol: SocketProtocol): SocketEntry | null {
  const [, localIp = '', localPort = '', remoteIp = '', remotePort = '', state = '', tx = '', rx = '', inode = ''] =
    linePattern.exec(line) ?? [];
  const named = states[Number.parseInt(state, 16)];
  if (named === undefined || named === null) return null;
  return {
    protocol,
    local: { ip: hexIp(localIp), port: Number.parseInt(localPort, 16) },
    remote: { ip: hexIp(remoteIp), port: Number.parseInt(remotePort, 16) },
    state: named,
    txQueue: Number.parseInt(tx, 16),
    rxQueue: Number.parseInt(rx, 16),
    inode: Number(inode),
    ipv6: localIp.length === 32,
  };
}

// Each 32-bit word is printed as a number of the host: on little-endian machines its bytes stand reversed.
function hexIp(hex: string): string {
  const bytes = new Uint8Array(hex.length / 2);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 4) {
    view.setUint32(at, Number.parseInt(hex.slice(2 * at, 2 * at + 8), 16), littleEndian);
  }
  return ipText(unmapped(bytes));
}

const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
