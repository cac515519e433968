/** Unix sockets and what they are connected to: `ss`, because /proc/net/unix does not name the peer (unix_diag). */
import { runCommand } from '../host/command.js';

export interface UnixSocket {
  readonly inode: number;
  readonly type: 'stream' | 'datagram' | 'seqpacket';
  readonly listening: boolean;
  /** A path, `@name` in the abstract namespace, or null. */
  readonly name: string | null;
  /** Inode of the socket at the other end; 0 for none. */
  readonly peer: number;
}

const types: Readonly<Record<string, UnixSocket['type']>> = { u_str: 'stream', u_dgr: 'datagram', u_seq: 'seqpacket' };
const timeoutMs = 10_000;

/** All unix sockets of this network namespace, by inode. */
export async function readUnixSockets(signal: AbortSignal): Promise<ReadonlyMap<number, UnixSocket>> {
  const { stdout } = await runCommand(['ss', '-xanH'], { input: null, timeoutMs, signal });
  return parseUnixSockets(stdout);
}

export function parseUnixSockets(text: string): ReadonlyMap<number, UnixSocket> {
  // "Netid State Recv-Q Send-Q Name Inode PeerName PeerInode"; names may hold blanks, "*" is none.
  const line = /^(u_\w+)\s+(\S+)\s+\d+\s+\d+\s+(.*?)\s+(\d+)\s+(.*?)\s+(\d+)\s*$/;
  const sockets = text.split('\n').flatMap((entry): UnixSocket[] => {
    const [, netid = '', state = '', name = '', inode = '', , peer = ''] = line.exec(entry) ?? [];
    const type = types[netid];
    if (type === undefined) return [];
    const socket = { inode: Number(inode), type, listening: state === 'LISTEN', peer: Number(peer) };
    return [{ ...socket, name: name === '*' ? null : name }];
  });
  return new Map(sockets.map((socket) => [socket.inode, socket]));
}
