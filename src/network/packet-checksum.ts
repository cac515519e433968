/**
 * Checksums of packets caught before the network card or the receiving stack had finished them. On a veth and behind
 * virtio the sender leaves the sum of the pseudo-header in the field (CHECKSUM_PARTIAL, linux/skbuff.h), and so do
 * packets that GRO has merged.
 */
import { internetSum, pseudoHeaderSum } from './internet-checksum.js';

/**
 * `whole`: was right, or has none. `completed`: now right. `corrupt`: it was damaged on its way; a checksum made for it
 * would pass the damage to the program. `aggregate`: several UDP datagrams in one packet whose borders are lost.
 */
export type ChecksumVerdict = 'whole' | 'completed' | 'corrupt' | 'aggregate';

interface Transport {
  readonly protocol: number;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** A view into the packet: header and data. */
  readonly segment: Uint8Array;
}

const tcp = 6;
const udp = 17;
const icmpv6 = 58;
// Flags in the fourteenth byte of a TCP header (RFC 9293 3.1).
const syn = 0x02;
const ack = 0x10;
const checksumAt = new Map([
  [tcp, 16],
  [udp, 6],
  [icmpv6, 2],
]);

/**
 * Completes the transport checksum of an IP packet in place.
 * @param mtu of the interface that caught it: what is bigger, and no fragment, was merged by its driver or GRO, which
 *   had verified the parts.
 */
export function fixChecksums(packet: Uint8Array, mtu: number): ChecksumVerdict {
  const transport = transportOf(packet);
  const at = transport === null ? undefined : checksumAt.get(transport.protocol);
  // Fragments and other protocols come as their sender made them.
  if (transport === null || at === undefined || transport.segment.length < at + 2) return 'whole';
  const { segment, protocol, source, destination } = transport;
  const merged = packet.length > mtu;
  if (merged && protocol === udp) return 'aggregate';
  const field = ((segment[at] ?? 0) << 8) | (segment[at + 1] ?? 0);
  if (protocol === udp && field === 0) return 'whole';
  const pseudo = pseudoHeaderSum(source, destination, protocol, segment.length);
  if (internetSum(segment, pseudo) === 0xffff) return 'whole';
  if (field !== pseudo && !merged) return 'corrupt';
  segment.set([0, 0], at);
  const sum = ~internetSum(segment, pseudo) & 0xffff;
  // A UDP checksum of 0 would mean "none" (RFC 768).
  const written = sum === 0 && protocol === udp ? 0xffff : sum;
  segment.set([written >> 8, written & 0xff], at);
  return 'completed';
}

/** Destination of an IP packet whose lengths are consistent, 4 or 16 bytes, or null for anything else. */
export function destinationOf(packet: Uint8Array): Uint8Array | null {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4 && packet.length >= 20) {
    return v4Length(packet) === packet.length && v4Header(packet) >= 20 ? packet.subarray(16, 20) : null;
  }
  if (version === 6 && packet.length >= 40)
    return 40 + wordAt(packet, 4) === packet.length ? packet.subarray(24, 40) : null;
  return null;
}

/** True for TCP, fragments of it included. */
export function isTcp(packet: Uint8Array): boolean {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4) return packet[9] === tcp;
  return (transportOf(packet)?.protocol ?? packet[6]) === tcp;
}

/** True for a SYN that opens a connection. */
export function opensConnection(packet: Uint8Array): boolean {
  const transport = transportOf(packet);
  return transport?.protocol === tcp && ((transport.segment[13] ?? 0) & (syn | ack)) === syn;
}

function transportOf(packet: Uint8Array): Transport | null {
  if (destinationOf(packet) === null) return null;
  return (packet[0] ?? 0) >> 4 === 4 ? v4Transport(packet) : v6Transport(packet);
}

function v4Transport(packet: Uint8Array): Transport | null {
  // More fragments, or an offset.
  if ((wordAt(packet, 6) & 0x3fff) !== 0) return null;
  return {
    protocol: packet[9] ?? 0,
    source: packet.subarray(12, 16),
    destination: packet.subarray(16, 20),
    segment: packet.subarray(v4Header(packet)),
  };
}

// Extension headers that may stand before the transport (RFC 8200 4): hop-by-hop and destination options. A routing
// header changes the destination of the pseudo-header, a fragment is none of ours.
const options = new Set([0, 60]);

function v6Transport(packet: Uint8Array): Transport | null {
  let protocol = packet[6] ?? 0;
  let at = 40;
  while (options.has(protocol)) {
    if (at + 8 > packet.length) return null;
    protocol = packet[at] ?? 0;
    at += ((packet[at + 1] ?? 0) + 1) * 8;
  }
  if (at > packet.length) return null;
  return {
    protocol,
    source: packet.subarray(8, 24),
    destination: packet.subarray(24, 40),
    segment: packet.subarray(at),
  };
}

function v4Header(packet: Uint8Array): number {
  return ((packet[0] ?? 0) & 0x0f) * 4;
}

function v4Length(packet: Uint8Array): number {
  return wordAt(packet, 2);
}

function wordAt(packet: Uint8Array, at: number): number {
  return ((packet[at] ?? 0) << 8) | (packet[at + 1] ?? 0);
}
