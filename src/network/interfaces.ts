/** Interfaces and addresses of the network namespace in which this process runs. */
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';
import type { AddressOrder } from '../migration/order.js';
import { formatAddress } from './address.js';
import { ip } from './commands.js';
import { canonicalIp, type IpFamily, ipBytes, sameSubnet } from './ip-address.js';

export interface LocalAddress {
  readonly family: IpFamily;
  /** Canonical. */
  readonly ip: string;
  readonly prefixLength: number;
  readonly device: string;
  /** IPv4: deleted together with its primary unless promote_secondaries is set. */
  readonly secondary: boolean;
  /** True when it ends by itself, as a DHCP lease or an address from a router advertisement. */
  readonly leased: boolean;
  readonly linkLocal: boolean;
}

export interface NetworkInterface {
  readonly name: string;
  readonly index: number;
  /** Null when the link is not Ethernet: nothing to announce there. */
  readonly mac: Uint8Array | null;
  readonly mtu: number;
  readonly up: boolean;
  readonly addresses: readonly LocalAddress[];
}

/** All interfaces of this network namespace with their addresses (`ip -j addr`, one dump of rtnetlink). */
export async function listInterfaces(signal: AbortSignal): Promise<readonly NetworkInterface[]> {
  return parseInterfaces(await ip(['-j', 'addr', 'show'], signal));
}

/** Parses the answer of `ip -j addr show`. */
export function parseInterfaces(json: string): readonly NetworkInterface[] {
  return linkList.parse(JSON.parse(json)).filter(isWhole).map(toInterface);
}

/** All addresses of these interfaces. */
export function listAddresses(interfaces: readonly NetworkInterface[]): readonly LocalAddress[] {
  return interfaces.flatMap((each) => each.addresses);
}

/** Where an address stands on this host, or null. */
export function findAddress(ip: string, interfaces: readonly NetworkInterface[]): LocalAddress | null {
  return listAddresses(interfaces).find((each) => each.ip === ip) ?? null;
}

/**
 * The interface on which an address is to stand: the given one, else the one whose subnet holds it (longest prefix first).
 * @throws PhaulError `no-device-for-address`
 */
export function deviceFor(order: AddressOrder, interfaces: readonly NetworkInterface[]): NetworkInterface {
  const named = order.device ?? bestSubnet(order, interfaces);
  const device = interfaces.find((each) => each.name === named);
  if (device !== undefined) return device;
  throw new PhaulError({
    code: 'no-device-for-address',
    what:
      order.device === null
        ? `No interface of this host has a subnet that holds ${order.ip}.`
        : `This host has no interface ${order.device} for ${order.ip}.`,
    remedy: `Name the interface of this host: --move-address ${formatAddress({ ...order, device: null })}@DEVICE.`,
  });
}

function bestSubnet(order: AddressOrder, interfaces: readonly NetworkInterface[]): string | null {
  const wanted = ipBytes(order.ip);
  if (wanted === null) return null;
  const [best] = listAddresses(interfaces)
    .filter((each) => !each.linkLocal && sameSubnet(ipBytes(each.ip) ?? new Uint8Array(), wanted, each.prefixLength))
    .toSorted((one, other) => other.prefixLength - one.prefixLength);
  return best?.device ?? null;
}

const infinite = 0xffffffff;

const linkList = z.array(
  z.object({
    ifindex: z.int().positive().optional(),
    ifname: z.string().optional(),
    flags: z.array(z.string()).default([]),
    mtu: z.number().default(1500),
    link_type: z.string().default('none'),
    address: z.string().optional(),
    addr_info: z
      .array(
        z.object({
          family: z.string().optional(),
          local: z.string().optional(),
          prefixlen: z.int().default(0),
          scope: z.string().default('global'),
          secondary: z.boolean().default(false),
          valid_life_time: z.number().default(infinite),
        }),
      )
      .default([]),
  }),
);
type Link = z.infer<typeof linkList>[number];

// iproute2 prints an empty object for a link that a filter has left out.
function isWhole(link: Link): link is Link & { ifindex: number; ifname: string } {
  return link.ifindex !== undefined && link.ifname !== undefined;
}

function toInterface(link: Link & { ifindex: number; ifname: string }): NetworkInterface {
  return {
    name: link.ifname,
    index: link.ifindex,
    mac: link.link_type === 'ether' ? macBytes(link.address ?? '') : null,
    mtu: link.mtu,
    up: link.flags.includes('UP'),
    addresses: link.addr_info.flatMap((info) => {
      const canonical = canonicalIp(info.local ?? '');
      if (canonical === null) return [];
      return {
        family: info.family === 'inet6' ? 6 : 4,
        ip: canonical,
        prefixLength: info.prefixlen,
        device: link.ifname,
        // IPv6 prints temporary addresses as "secondary"; those go alone.
        secondary: info.secondary && info.family === 'inet',
        leased: info.valid_life_time !== infinite,
        linkLocal: info.scope === 'link',
      };
    }),
  };
}

function macBytes(text: string): Uint8Array | null {
  return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)
    ? Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16))
    : null;
}
