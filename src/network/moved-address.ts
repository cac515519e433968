/** The address that moves with the tree: put silently on the destination, taken from the source. */
import { readFile } from 'node:fs/promises';
import { neverAborted } from '../failure/never-aborted.js';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import type { AddressOrder } from '../migration/order.js';
import { ip } from './commands.js';
import {
  deviceFor,
  findAddress,
  type LocalAddress,
  listAddresses,
  listInterfaces,
  type NetworkInterface,
} from './interfaces.js';
import { type IpFamily, ipBytes, sameSubnet } from './ip-address.js';

/** An address with its place on one host; plain data, fit for a journal. */
export interface PlacedAddress {
  readonly family: IpFamily;
  readonly ip: string;
  readonly prefixLength: number;
  readonly device: string;
}

/**
 * Where the address stands on the source, with the prefix length that it really has. The device of the order is that of
 * the destination.
 * @throws PhaulError `address-not-here`
 */
export function placeHere(order: AddressOrder, interfaces: readonly NetworkInterface[]): PlacedAddress {
  const found = findAddress(order.ip, interfaces);
  if (found !== null)
    return { family: found.family, ip: found.ip, prefixLength: found.prefixLength, device: found.device };
  throw new PhaulError({
    code: 'address-not-here',
    what: `${order.ip} is not an address of this host.`,
    remedy: 'Look at `ip addr` on this host and name an address that it has.',
  });
}

/**
 * Where the address will stand on this host. Without a prefix length it is a host address (/32, /128): it brings no
 * route of its own and is nobody's secondary.
 * @throws PhaulError `no-device-for-address`
 */
export function placeFor(order: AddressOrder, interfaces: readonly NetworkInterface[]): PlacedAddress {
  return {
    family: order.family,
    ip: order.ip,
    prefixLength: order.prefixLength ?? (order.family === 4 ? 32 : 128),
    device: deviceFor(order, interfaces).name,
  };
}

/**
 * Adds the address; to be done behind the destination's fence. The kernel announces nothing: IPv4 never does when an
 * address is added (arp_notify is for links that come up), IPv6 skips duplicate detection with `nodad`.
 * Idempotent.
 */
export async function addSilently(address: PlacedAddress, signal: AbortSignal): Promise<void> {
  // Deprecated: else the host's own new IPv6 connections may choose it as their source (RFC 6724) while it is fenced.
  const quiet = address.family === 6 ? ['nodad', 'preferred_lft', '0'] : [];
  await ip(['addr', 'replace', `${address.ip}/${address.prefixLength}`, 'dev', address.device, ...quiet], signal);
}

/** Takes the address off this host; one that is gone already is fine. */
export async function removeAddress(address: PlacedAddress): Promise<void> {
  try {
    await ip(['addr', 'del', `${address.ip}/${address.prefixLength}`, 'dev', address.device], neverAborted);
  } catch (failure) {
    // `ip` fails alike for "no such address" and for everything else: look instead of reading its words.
    if (await isHere(address)) throw failure;
  }
}

/** True when the address stands on its device. */
export async function isHere(address: PlacedAddress): Promise<boolean> {
  const interfaces = await listInterfaces(neverAborted);
  return listAddresses(interfaces).some((each) => each.ip === address.ip && each.device === address.device);
}

/**
 * The addresses that would go with this one: IPv4 deletes the secondaries of a primary, unless promote_secondaries is
 * set for the device or for all (ip-sysctl).
 */
export function removalWouldDropOthers(
  address: PlacedAddress,
  interfaces: readonly NetworkInterface[],
  promotesSecondaries: boolean,
): readonly LocalAddress[] {
  const neighbours = listAddresses(interfaces).filter((each) => each.device === address.device);
  const own = neighbours.find((each) => each.ip === address.ip);
  if (address.family === 6 || promotesSecondaries || own === undefined || own.secondary) return [];
  return neighbours.filter((each) => each.secondary && inSubnetOf(own, each));
}

/** True when this is the only address that gives its device a route to its subnet. */
export function carriesSubnet(address: PlacedAddress, interfaces: readonly NetworkInterface[]): boolean {
  const whole = address.family === 4 ? 32 : 128;
  if (address.prefixLength === whole) return false;
  return !listAddresses(interfaces).some(
    (each) =>
      each.device === address.device &&
      each.ip !== address.ip &&
      each.prefixLength <= address.prefixLength &&
      inSubnetOf(address, each),
  );
}

/** net.ipv4.conf.{all,DEVICE}.promote_secondaries of this network namespace. */
export async function promotesSecondaries(device: string): Promise<boolean> {
  const values = await Promise.all(
    ['all', device].map((name) => setting(`/proc/sys/net/ipv4/conf/${name}/promote_secondaries`)),
  );
  return values.includes('1');
}

async function setting(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (failure) {
    // A device that has gone, or a kernel without IPv4 on it.
    if (errnoOf(failure) === 'ENOENT') return null;
    throw failure;
  }
}

function inSubnetOf(one: { ip: string; prefixLength: number }, other: { ip: string }): boolean {
  const [mine, theirs] = [ipBytes(one.ip), ipBytes(other.ip)];
  return mine !== null && theirs !== null && sameSubnet(mine, theirs, one.prefixLength);
}
