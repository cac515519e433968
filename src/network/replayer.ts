/**
 * Gives caught packets to the stack of this host, as if they came from the network: a TUN interface, opened before the
 * window, into which they are written (dangers.md 38c). On the destination at `pre-resume`; on the source after an abort.
 */
import { closeSync, writeSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { errnoOf, messageOf } from '../failure/phaul-error.js';
import type { CaughtPackets } from '../migration/ports.js';
import { addon } from '../native/addon.js';
import { ip } from './commands.js';
import { ipText } from './ip-address.js';
import { destinationOf } from './packet-checksum.js';

/** Names of our interfaces, `%d` filled in by the kernel. */
export const tunPattern = 'phaul%d';

// Errors of a container or kernel that has no TUN, as against those of a wrong call.
const withoutTun = new Set(['ENOENT', 'ENODEV', 'ENXIO', 'EPERM', 'EACCES', 'ENOSYS', 'EOPNOTSUPP']);

// Any IPv4 address makes loose reverse-path filtering look at the routes (see `letIn`); this one is nobody's.
const tunAddress = '127.255.112.108/32';

export interface Replay {
  readonly replayed: number;
  /** What went less than well, in words. */
  readonly remarks: readonly string[];
}

export class Replayer implements Disposable {
  readonly #allowed: ReadonlySet<string>;
  readonly #remark: string | null;
  #fd: number | null;

  private constructor(fd: number | null, allowed: ReadonlySet<string>, remark: string | null) {
    this.#fd = fd;
    this.#allowed = allowed;
    this.#remark = remark;
  }

  /**
   * Opens the TUN. Where there is none (no /dev/net/tun), the replayer replays nothing and says so.
   * @param addresses only packets to these are ever written: they come from a peer.
   */
  static async open(addresses: readonly { readonly ip: string }[], signal: AbortSignal): Promise<Replayer> {
    const allowed = new Set(addresses.map((each) => each.ip));
    if (allowed.size === 0) return new Replayer(null, allowed, null);
    let tun: { fd: number; name: string };
    try {
      tun = addon().openTun(tunPattern);
    } catch (failure) {
      if (!withoutTun.has(errnoOf(failure) ?? '')) throw failure;
      return new Replayer(null, allowed, `no TUN interface on this host (${messageOf(failure)})`);
    }
    const replayer = new Replayer(tun.fd, allowed, null);
    try {
      await letIn(tun.name, signal);
    } catch (failure) {
      replayer[Symbol.dispose]();
      throw failure;
    }
    return replayer;
  }

  /** Writes the packets in their order; synchronous, a few us each. Never fails: what is not replayed is sent again by TCP. */
  replay(caught: CaughtPackets): Replay {
    const remarks: string[] = [];
    if (caught.lost > 0) remarks.push(`${caught.lost} packets of clients were lost while the tree was frozen`);
    if (caught.packets.length === 0) return { replayed: 0, remarks };
    if (this.#fd === null) {
      remarks.push(
        `${caught.packets.length} caught packets were not replayed: ${this.#remark ?? 'the replayer is closed'}`,
      );
      return { replayed: 0, remarks };
    }
    let replayed = 0;
    let refused: string | null = null;
    for (const packet of caught.packets) {
      const why = this.#write(this.#fd, packet);
      if (why === null) replayed += 1;
      else refused ??= why;
    }
    if (refused !== null)
      remarks.push(`${caught.packets.length - replayed} caught packets were not replayed: ${refused}`);
    return { replayed, remarks };
  }

  /** Closes the descriptor; the kernel removes the interface with it. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#fd === null) return;
    closeSync(this.#fd);
    this.#fd = null;
  }

  #write(fd: number, packet: Uint8Array): string | null {
    const destination = destinationOf(packet);
    if (destination === null || !this.#allowed.has(ipText(destination))) return 'not a packet to a moved address';
    try {
      writeSync(fd, packet);
      return null;
    } catch (failure) {
      return messageOf(failure);
    }
  }
}

/**
 * Makes the stack accept packets from the TUN although replies leave by another interface. The stricter of the device's
 * and of all's rp_filter counts, except that 2 (loose) beats 1 (ip-sysctl); but loose refuses everything on an interface
 * without any address (fib_validate_source), hence the address. accept_local: a client on this very host.
 */
async function letIn(device: string, signal: AbortSignal): Promise<void> {
  await Promise.all([
    set(`/proc/sys/net/ipv4/conf/${device}/rp_filter`, '2'),
    set(`/proc/sys/net/ipv4/conf/${device}/accept_local`, '1'),
    set(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '0'),
    set(`/proc/sys/net/ipv6/conf/${device}/accept_ra`, '0'),
    ip(['addr', 'add', tunAddress, 'dev', device, 'scope', 'host'], signal),
  ]);
}

async function set(path: string, value: string): Promise<void> {
  try {
    // In containers /proc/sys may be read-only: most often the values serve as they are.
    if ((await readFile(path, 'utf8')).trim() !== value) await writeFile(path, value);
  } catch (failure) {
    // ENOENT: no IPv6 here. EROFS, EACCES: replay works unless rp_filter is strict; then TCP sends again by itself.
    if (!['ENOENT', 'EROFS', 'EACCES'].includes(errnoOf(failure) ?? '')) throw failure;
  }
}
