/**
 * Keeps copies of what clients send while the tree is frozen. Caught before netfilter, so the fence drops the originals
 * and the destination gets them at once, instead of after the clients' retransmission time-out (dangers.md 38c, 52).
 */
import type { CaughtPackets } from '../migration/ports.js';
import { addon, type PacketCatcher } from '../native/addon.js';
import { addressBytes } from './address.js';
import { fixChecksums, isTcp, opensConnection } from './packet-checksum.js';

/** A moved address and the interface on which its packets come in. */
export interface CatchPlace {
  readonly ip: string;
  readonly device: { readonly index: number; readonly mtu: number };
}

interface DeviceCatcher {
  readonly catcher: PacketCatcher;
  readonly addresses: Uint8Array[];
  readonly mtu: number;
}

// They travel with COMMIT in one message, whose limit is 4 MiB in gRPC by default.
const defaultMaxBytes = 3 * 1024 * 1024;

export class SourceCatcher implements Disposable {
  readonly #devices: readonly DeviceCatcher[];
  #kept: Uint8Array[] = [];
  #lost = 0;

  private constructor(devices: readonly DeviceCatcher[]) {
    this.#devices = devices;
  }

  /** Opens one catcher per interface, shut: a drop-all filter, or 20,000 packets a second would have to be drained. */
  static prepare(places: readonly CatchPlace[], maxBytes = defaultMaxBytes): SourceCatcher {
    const devices: DeviceCatcher[] = [];
    try {
      for (const { index, mtu } of new Map(places.map(({ device }) => [device.index, device])).values()) {
        const addresses = places.filter((place) => place.device.index === index).map(addressBytes);
        devices.push({ catcher: addon().packetCatcher(index, maxBytes), addresses, mtu });
      }
    } catch (failure) {
      for (const each of devices) each.catcher.close();
      throw failure;
    }
    return new SourceCatcher(devices);
  }

  /** Before new connections are held back and the tree is frozen: their SYNs are to be caught too. Synchronous. */
  open(): void {
    for (const each of this.#devices) each.catcher.open(each.addresses);
  }

  /**
   * While the fence is still open: what came so far was delivered here, and is in the image or answered, except for new
   * connections that were held back. Synchronous; just before the freeze, so that little is left to look at in the
   * window, and just before the fence is closed.
   */
  forgetDelivered(): void {
    this.#take(opensConnection);
  }

  /**
   * Right after the fence was closed. What came in the moment before may have been delivered here as well: TCP knows its
   * duplicates, any other protocol would be answered twice, so the rest of it is forgotten. Synchronous.
   */
  fenceIsClosed(): void {
    this.#take((packet) => isTcp(packet));
  }

  /** After an abort that went on without replay, or before another try. Synchronous. */
  shut(): void {
    for (const each of this.#devices) {
      each.catcher.shut();
      each.catcher.drain();
    }
    this.#kept = [];
    this.#lost = 0;
  }

  /** Everything caught so far, checksums completed; damaged packets count as lost. Synchronous. */
  drain(): CaughtPackets {
    this.#take(() => true);
    const caught = { packets: this.#kept, lost: this.#lost };
    this.#kept = [];
    this.#lost = 0;
    return caught;
  }

  [Symbol.dispose](): void {
    for (const each of this.#devices) each.catcher.close();
  }

  #take(wanted: (packet: Uint8Array) => boolean): void {
    for (const each of this.#devices) {
      const { packets, lost } = each.catcher.drain();
      this.#lost += lost;
      for (const packet of packets.filter(wanted)) {
        const verdict = fixChecksums(packet, each.mtu);
        if (verdict === 'whole' || verdict === 'completed') this.#kept.push(packet);
        else this.#lost += 1;
      }
    }
  }
}
