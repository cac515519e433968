/**
 * What a copy needs around it on the destination: its address behind a fence, a cgroup, a TUN for the packets that were
 * caught. Raised before the freeze; raised again by whoever goes forward after a crash.
 */
import { join } from 'node:path';
import { LeafCgroup } from '../../host/cgroup.js';
import type { AddressOrder } from '../../migration/order.js';
import type { CaughtPackets } from '../../migration/ports.js';
import { announceOnce, announceRepeatedly } from '../../network/announce.js';
import { DestinationFence } from '../../network/destination-fence.js';
import { listInterfaces, type NetworkInterface } from '../../network/interfaces.js';
import { addSilently, type PlacedAddress, placeFor, removeAddress } from '../../network/moved-address.js';
import { type Replay, Replayer } from '../../network/replayer.js';
import { cgroupGround } from '../helper-cgroup.js';

export interface SitePlan {
  readonly id: string;
  readonly addresses: readonly AddressOrder[];
  /** Ports of TCP connections inside the tree: fenced until both ends exist (dangers.md 17a). */
  readonly loopbackPorts: readonly number[];
}

/** Where a copy of this id will live; null without a writable cgroup v2. */
export function copyCgroup(id: string): string | null {
  const { ground } = cgroupGround();
  return ground === null ? null : join(ground.home, id);
}

export class LandingSite {
  readonly leaf: LeafCgroup | null;
  readonly addresses: readonly PlacedAddress[];
  readonly #plan: SitePlan;
  readonly #interfaces: readonly NetworkInterface[];
  #fence: DestinationFence | null = null;
  #replayer: Replayer | null = null;

  private constructor(plan: SitePlan, interfaces: readonly NetworkInterface[], addresses: readonly PlacedAddress[]) {
    this.#plan = plan;
    this.#interfaces = interfaces;
    this.addresses = addresses;
    const cgroup = copyCgroup(plan.id);
    this.leaf = cgroup === null ? null : LeafCgroup.create(join(cgroup, '..'), plan.id);
  }

  /** Finds places and makes the cgroup; no address and no fence yet: the engine is started and primed before these (dangers.md 17a). */
  static async survey(plan: SitePlan, signal: AbortSignal): Promise<LandingSite> {
    const interfaces = await listInterfaces(signal);
    return new LandingSite(
      plan,
      interfaces,
      plan.addresses.map((address) => placeFor(address, interfaces)),
    );
  }

  /** Fence first, then the address behind it, then the TUN. Idempotent. */
  async raise(signal: AbortSignal): Promise<void> {
    if (this.addresses.length === 0 && this.#plan.loopbackPorts.length === 0) return;
    this.#fence = await DestinationFence.install(this.#plan.id, this.addresses, this.#plan.loopbackPorts, signal);
    for (const address of this.addresses) await addSilently(address, signal);
    this.#replayer ??= await Replayer.open(this.addresses, signal);
  }

  /** Behind the line, synchronous: traffic may come and go, and the neighbours are told. */
  openNetwork(): void {
    this.#fence?.open();
    for (const { address, device } of this.#announced()) announceOnce(address, device);
  }

  /** Behind the line, when the copy has failed: closed until it is restored again. Synchronous. */
  closeNetwork(): void {
    this.#fence?.close();
  }

  replay(packets: CaughtPackets): Replay {
    return this.#replayer?.replay(packets) ?? { replayed: 0, remarks: [] };
  }

  /** In the background, when the copy runs: the neighbours are told four times more, the fence and the TUN go. */
  async settle(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#announced().map(({ address, device }) => announceRepeatedly(address, device, signal)));
    this.#replayer?.[Symbol.dispose]();
    await this.#fence?.remove();
  }

  /** Everything stays for whoever goes on; only the TUN, which lives by its descriptor, goes. */
  leave(): void {
    this.#replayer?.[Symbol.dispose]();
  }

  /** Before the line: everything goes, the address before the fence (dangers.md 14). */
  async clear(): Promise<void> {
    await clearSite(this.#plan.id, this.addresses, this.#replayer);
  }

  #announced(): { address: PlacedAddress; device: NetworkInterface }[] {
    return this.addresses.flatMap((address) => {
      const device = this.#interfaces.find((each) => each.name === address.device);
      return device === undefined ? [] : [{ address, device }];
    });
  }
}

/** Tells the neighbours of a copy that runs, five times within 1.5 s: for whoever knows its addresses only from a journal. */
export async function announceAll(addresses: readonly PlacedAddress[], signal: AbortSignal): Promise<void> {
  const interfaces = await listInterfaces(signal);
  await Promise.all(
    addresses.map(async (address) => {
      const device = interfaces.find((each) => each.name === address.device);
      if (device === undefined) return;
      announceOnce(address, device);
      await announceRepeatedly(address, device, signal);
    }),
  );
}

/** The same for whoever knows the site only from a journal. Tasks in its cgroup are killed: it is for copies that never ran. */
export async function clearSite(
  id: string,
  addresses: readonly PlacedAddress[],
  replayer: Replayer | null,
): Promise<void> {
  for (const address of addresses) await removeAddress(address);
  await DestinationFence.removeByName(id);
  replayer?.[Symbol.dispose]();
  const cgroup = copyCgroup(id);
  if (cgroup === null) return;
  const leaf = LeafCgroup.at(cgroup);
  leaf.kill();
  await leaf.remove();
}
