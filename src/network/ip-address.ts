/** IP addresses as bytes and in their one canonical text form (RFC 5952 for IPv6). No zones, no prefix lengths. */
import { isIPv4, isIPv6 } from 'node:net';

export type IpFamily = 4 | 6;

/** Bytes in network order (4 or 16) of an address in any valid text form, or null. Zones (`%eth0`) are refused. */
export function ipBytes(text: string): Uint8Array | null {
  if (isIPv4(text)) return Uint8Array.from(text.split('.').map(Number));
  if (!isIPv6(text) || text.includes('%')) return null;
  return ipv6Bytes(text);
}

/** Canonical text of 4 or 16 bytes. */
export function ipText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, index) => ((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0));
  const gap = longestRunOfZeros(groups);
  const hex = groups.map((group) => group.toString(16));
  if (gap.length < 2) return hex.join(':');
  return `${hex.slice(0, gap.start).join(':')}::${hex.slice(gap.start + gap.length).join(':')}`;
}

/** Canonical text of an address in any valid text form, or null. */
export function canonicalIp(text: string): string | null {
  const bytes = ipBytes(text);
  return bytes === null ? null : ipText(bytes);
}

/** IPv4 address inside an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`), as the sockets of a dual-stack server have it; else the bytes themselves. */
export function unmapped(bytes: Uint8Array): Uint8Array {
  return isMapped(bytes) ? bytes.subarray(12) : bytes;
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(ip: string): boolean {
  return ip === '::1' || (ip.startsWith('127.') && isIPv4(ip));
}

/** True for `0.0.0.0` and `::`: bound to every address. */
export function isAny(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

/** True when both addresses have the same first `prefixLength` bits. */
export function sameSubnet(one: Uint8Array, other: Uint8Array, prefixLength: number): boolean {
  if (one.length !== other.length) return false;
  for (let bit = 0; bit < prefixLength; bit += 8) {
    const mask = prefixLength - bit >= 8 ? 0xff : (0xff << (8 - (prefixLength - bit))) & 0xff;
    if ((((one[bit / 8] ?? 0) ^ (other[bit / 8] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

/** Why an address cannot belong to one host and move, in words, or null when it can. */
export function whyNotMovable(bytes: Uint8Array): string | null {
  const first = bytes[0] ?? 0;
  if (bytes.length === 4) {
    if (first === 0) return 'it names no host';
    if (first === 127) return 'it is a loopback address';
    if (first >= 224) return 'it is a multicast, reserved or broadcast address';
    return null;
  }
  if (first === 0xff) return 'it is a multicast address';
  if (first === 0xfe && ((bytes[1] ?? 0) & 0xc0) === 0x80) return 'it is a link-local address';
  if (isMapped(bytes)) return 'it is an IPv4 address in IPv6 form: give the IPv4 address';
  if (bytes.subarray(0, 15).every((byte) => byte === 0) && (bytes[15] ?? 0) <= 1) {
    return 'it is the unspecified or the loopback address';
  }
  return null;
}

/** True for multicast and limited broadcast: a socket may be bound to them on any host. */
export function isGroup(ip: string): boolean {
  const bytes = ipBytes(ip);
  const first = bytes?.[0] ?? 0;
  return bytes?.length === 16 ? first === 0xff : (first >= 224 && first < 240) || ip === '255.255.255.255';
}

function isMapped(bytes: Uint8Array): boolean {
  return (
    bytes.length === 16 && bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
  );
}

function ipv6Bytes(text: string): Uint8Array {
  const [head = '', tail] = text.split('::');
  const front = groupsOf(head);
  const back = tail === undefined ? [] : groupsOf(tail);
  const groups = [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

function groupsOf(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}

function longestRunOfZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let length = 0;
  groups.forEach((group, index) => {
    length = group === 0 ? length + 1 : 0;
    if (length > best.length) best = { start: index - length + 1, length };
  });
  return best;
}
