/**
 * Tells the neighbours where the address lives now: gratuitous ARP (RFC 826, RFC 5227) as request and as reply, since
 * some take only one of them, or an unsolicited neighbour advertisement (RFC 4861 4.4). Without it clients wait 107 s.
 */
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../failure/phaul-error.js';
import { addon } from '../native/addon.js';
import { addressBytes } from './address.js';
import { internetSum, pseudoHeaderSum } from './internet-checksum.js';
import { canonicalIp } from './ip-address.js';

/** The interface to announce on. */
export interface AnnouncingDevice {
  readonly name: string;
  readonly index: number;
  readonly mac: Uint8Array | null;
}

const broadcast = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
const allNodes = Uint8Array.of(0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const allNodesMac = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
const minimumFrame = 60;
const icmpv6 = 58;
// After the first: four more, the last at 1.5 s (dangers.md 14).
const repeatAfterMs = [100, 300, 500, 600];

// Errors of an interface that is down or gone (packet(7), ERRORS), or whose queue is full.
const unsendable = new Set(['ENETDOWN', 'ENXIO', 'ENODEV', 'ENETUNREACH', 'ENOBUFS', 'EAGAIN']);

/**
 * Announces once, synchronously. A device that is not Ethernet or is down has nobody to be told: false. It is no failure:
 * a copy that is let go must not be stopped by it.
 */
export function announceOnce(address: { readonly ip: string }, device: AnnouncingDevice): boolean {
  if (device.mac === null) return false;
  try {
    for (const frame of announcementFrames(addressBytes(address), device.mac)) addon().sendFrame(device.index, frame);
    return true;
  } catch (failure) {
    if (!unsendable.has(errnoOf(failure) ?? '')) throw failure;
    return false;
  }
}

/**
 * Announces four times more within 1.5 s. Ends early, without an error, when `signal` is aborted or when the address
 * has left its device: a late announcement would take it from where it went.
 */
export async function announceRepeatedly(
  address: { readonly ip: string },
  device: AnnouncingDevice,
  signal: AbortSignal,
): Promise<void> {
  for (const delay of repeatAfterMs) {
    try {
      await sleep(delay, undefined, { signal });
    } catch (failure) {
      if (signal.aborted) return;
      throw failure;
    }
    if (!isOn(address.ip, device.name)) return;
    announceOnce(address, device);
  }
}

/** The Ethernet frames of one announcement. */
export function announcementFrames(address: Uint8Array, mac: Uint8Array): readonly Uint8Array[] {
  return address.length === 4
    ? [gratuitousArp(1, address, mac), gratuitousArp(2, address, mac)]
    : [unsolicitedAdvertisement(address, mac)];
}

function gratuitousArp(operation: 1 | 2, address: Uint8Array, mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(minimumFrame);
  frame.set(broadcast, 0);
  frame.set(mac, 6);
  // Ethertype ARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, operation.
  frame.set([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation], 12);
  frame.set(mac, 22);
  frame.set(address, 28);
  // The target's hardware address is ignored in a request.
  frame.set(operation === 1 ? new Uint8Array(6) : broadcast, 32);
  frame.set(address, 38);
  return frame;
}

function unsolicitedAdvertisement(address: Uint8Array, mac: Uint8Array): Uint8Array {
  const override = 0x20;
  const message = new Uint8Array(32);
  message.set([136, 0, 0, 0, override], 0);
  message.set(address, 8);
  // Option 2: target link-layer address, length 1 unit of 8 bytes.
  message.set([2, 1, ...mac], 24);
  const sum = ~internetSum(message, pseudoHeaderSum(address, allNodes, icmpv6, message.length)) & 0xffff;
  message.set([sum >> 8, sum & 0xff], 2);

  const frame = new Uint8Array(14 + 40 + message.length);
  frame.set(allNodesMac, 0);
  frame.set(mac, 6);
  // Ethertype IPv6; version 6, payload length, next header, hop limit 255 (RFC 4861 7.1.2).
  frame.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.length, icmpv6, 255], 12);
  frame.set(address, 22);
  frame.set(allNodes, 38);
  frame.set(message, 54);
  return frame;
}

function isOn(ip: string, device: string): boolean {
  return (networkInterfaces()[device] ?? []).some((each) => canonicalIp(each.address) === ip);
}
