/**
 * The whole boundary to the native addon, typed once. Nothing else imports the `.node` file.
 *
 * Contract: JavaScript validates and decides; C++ does one syscall-shaped thing. A failing call throws an
 * Error with `code` (errno name, e.g. `EPERM`) and `syscall`. All file descriptors are CLOEXEC and owned by the caller.
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a handler throws is an uncaught exception, as in every callback of Node. After `close()` none is called. */
export interface PacketSocketEvents {
  /** One SEQPACKET message, whatever its size, with the descriptors that came by SCM_RIGHTS (now the handler's). */
  packet(data: Buffer, fds: number[]): void;
  /** The peer is gone, and all that it sent has been delivered. Called once; the socket is closed by then. */
  end(): void;
  /** Reading or a queued send failed (`EMFILE`: no room for descriptors that came). The socket is closed by then, no `end` follows. */
  error(error: Error): void;
}

/** A SOCK_SEQPACKET socket polled on Node's loop; owns its descriptor. Keeps the loop alive until it is closed. */
export interface PacketSocket {
  /**
   * Sends one message, in order; queued when the buffer is full. Throws `EMSGSIZE` (greater than the send buffer),
   * `EPIPE` or `ECONNRESET` (the peer is gone; `end` still comes), `ENOBUFS`, `EBADF` (closed).
   */
  send(data: Uint8Array): void;
  /** Closes the descriptor at once; queued messages are lost. Idempotent. */
  close(): void;
}

/**
 * Tells once when the process of a pidfd has exited (poll(2) on a pidfd), at once if it has already.
 * Watches a duplicate: the pidfd may be closed meanwhile. Keeps the loop alive until then.
 */
export interface ExitWatch {
  close(): void;
}

/**
 * AF_PACKET socket that keeps copies of incoming IP packets to given addresses (seen before netfilter, so a fence does
 * not hide them). Their checksums may be unfinished: a sender on the same machine leaves them to hardware.
 */
export interface PacketCatcher {
  /** Replaces the drop-all filter: from now on packets for these addresses (4 or 16 bytes each) are kept. */
  open(addresses: Uint8Array[]): void;
  /** Back to the drop-all filter. */
  shut(): void;
  /**
   * Takes all packets caught so far, each from its IP header on (up to 64 KiB by GRO), Ethernet padding cut. About
   * `maxBytes` bytes are kept, overhead of the kernel (some 700 bytes a packet) included; `lost` counts the rest.
   */
  drain(): { packets: Buffer[]; lost: number };
  close(): void;
}

export interface Addon {
  /** Connected AF_UNIX sockets, blocking. `bufferBytes` > 0 sizes both directions; a message can be as long as that. */
  socketPair(kind: 'seqpacket' | 'stream', bufferBytes: number): { near: number; far: number };
  /** Takes the descriptor over, unless it throws. */
  packetSocket(fd: number, events: PacketSocketEvents): PacketSocket;

  /** `ESRCH`: no such process. */
  pidfdOpen(pid: number): number;
  pidfdSignal(pidfd: number, signal: number): void;
  /** A duplicate of another process's descriptor: the same open file, connection or repair mode. */
  pidfdGetfd(pidfd: number, targetFd: number): number;
  /** Adds O_APPEND to an open file, for all who share it: of a duplicate, for the process that it was taken from. */
  appendAlways(fd: number): void;
  exitWatch(pidfd: number, onExit: () => void): ExitWatch;
  /** getsockopt(TCP_REPAIR); false for a descriptor that is not a TCP socket. */
  tcpInRepair(fd: number): boolean;
  /** setsockopt(TCP_REPAIR, 0): the socket sends a window probe and goes on. */
  tcpLeaveRepair(fd: number): void;
  /** flock(LOCK_EX | LOCK_NB); false when another open file holds it. */
  flock(fd: number): boolean;

  /**
   * Adds or deletes one element of an nft set (without `flags interval`) by one netlink batch, acknowledged.
   * `ENOENT`: no such table or set, or, when deleting, element. Adding what is there succeeds.
   */
  nftElement(add: boolean, family: 'inet' | 'arp', table: string, set: string, key: Uint8Array): void;
  packetCatcher(interfaceIndex: number, maxBytes: number): PacketCatcher;
  /** Sends one Ethernet frame as it is. */
  sendFrame(interfaceIndex: number, frame: Uint8Array): void;
  /** Creates a TUN interface (IFF_NO_PI), sets it up; the name is chosen by the kernel from `pattern` (e.g. `phaul%d`). */
  openTun(pattern: string): { fd: number; name: string };

  /** XXH3-64 of a buffer. */
  xxh3(data: Uint8Array): bigint;
  /** Incremental XXH3-128. */
  xxh3Stream(): Xxh3Stream;
}

export interface Xxh3Stream {
  update(data: Uint8Array): void;
  /** 32 hex digits, as `xxhsum -H2` prints them. */
  digest(): string;
}

/** Root of the checkout or of the installed package, found from this file (src/native or dist/src/native). */
export const packageRoot = findPackageRoot(dirname(fileURLToPath(import.meta.url)));

/** The addon, loaded at first use: `phaul --help` must work before anything is built. */
export function addon(): Addon {
  loaded ??= createRequire(import.meta.url)(join(packageRoot, 'build', 'Release', 'phaul.node')) as Addon;
  return loaded;
}

let loaded: Addon | null = null;

function findPackageRoot(from: string): string {
  for (let folder = from; folder !== '/'; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder;
  }
  throw new Error(`no package.json above ${from}`);
}
