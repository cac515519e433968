/** Bytes on the wire: announcements and checksums, against packets that were made by others. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { announcementFrames } from '../../src/network/announce.js';
import { internetSum } from '../../src/network/internet-checksum.js';
import { ipBytes } from '../../src/network/ip-address.js';
import { destinationOf, fixChecksums, isTcp, opensConnection } from '../../src/network/packet-checksum.js';

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));
const mac = bytes('02005e001122');

// 10.0.0.1 -> 10.0.0.2, ports 4660 -> 22136; their checksums are judged by `reference`.
const udp4 = bytes('4500001e00004000401126cd 0a0000010a000002 12345678 000a 1a28 6869');
const tcp4 = bytes(
  '4500002c00004000400626ca 0a0000010a000002 12345678 00000001 00000002 50180200 0000 0000 70696e67'.replaceAll(
    ' ',
    '',
  ),
);
const icmp6 = bytes(
  `60000000000c3aff ${'fd'.padEnd(30, '0')}01 ${'fd'.padEnd(30, '0')}02 8000 0000 0001 0001 70696e67`,
);

/** The transport checksum by another way than the code's: 32-bit big-endian words of a whole pseudo-packet, per RFC 1071 (2.B). */
function reference(packet: Uint8Array, header: number, at: number, protocol: number): number {
  const v4 = header === 20;
  const segment = Buffer.from(packet.subarray(header));
  segment.writeUInt16BE(0, at);
  const addresses = v4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(segment.length, 0);
  tail.writeUInt32BE(protocol, 4);
  const whole = Buffer.concat([addresses, tail, segment, Buffer.alloc((4 - (segment.length % 4)) % 4)]);
  let sum = 0n;
  for (let word = 0; word < whole.length; word += 4) sum += BigInt(whole.readUInt32BE(word));
  while (sum > 0xffffn) sum = (sum >> 16n) + (sum & 0xffffn);
  return Number(~sum & 0xffffn);
}

function withPartial(packet: Uint8Array, header: number, at: number, protocol: number): Uint8Array {
  const copy = Uint8Array.from(packet);
  const addresses = header === 20 ? copy.subarray(12, 20) : copy.subarray(8, 40);
  const partial = internetSum(addresses, protocol + (copy.length - header));
  copy.set([partial >> 8, partial & 0xff], header + at);
  return copy;
}

describe('danger 38c: checksums', () => {
  test.each([
    ['UDP over IPv4', udp4, 20, 6, 17],
    ['TCP over IPv4', tcp4, 20, 16, 6],
    ['ICMPv6', icmp6, 40, 2, 58],
  ])('a packet whose sender left only the pseudo-header sum is completed: %s', (_, packet, header, at, protocol) => {
    const caught = withPartial(packet, header, at, protocol);
    expect(fixChecksums(caught, 1500)).toBe('completed');
    const field = ((caught[header + at] ?? 0) << 8) | (caught[header + at + 1] ?? 0);
    expect(field).toBe(reference(caught, header, at, protocol));
    expect(fixChecksums(caught, 1500)).toBe('whole');
  });

  test('any TCP segment is completed once, and the damage of any one byte is not laundered', () => {
    const segment = fc.uint8Array({ minLength: 0, maxLength: 101 });
    fc.assert(
      fc.property(segment, fc.nat(), fc.integer({ min: 1, max: 255 }), (data, where, flip) => {
        const packet = new Uint8Array([...tcp4.subarray(0, 40), ...data]);
        packet.set([packet.length >> 8, packet.length & 0xff], 2);
        const caught = withPartial(packet, 20, 16, 6);
        expect(['completed', 'whole']).toContain(fixChecksums(caught, 1500));
        expect(fixChecksums(caught, 1500)).toBe('whole');
        const at = 20 + (where % (caught.length - 20));
        caught[at] = (caught[at] ?? 0) ^ flip;
        // The damage may make the field look like a pseudo-header sum only if it hits the field itself.
        if (at < 36 || at > 37) expect(fixChecksums(caught, 1500)).toBe('corrupt');
      }),
    );
  });

  test('danger 52: a merged TCP packet is completed whatever its field says, merged UDP cannot be taken apart', () => {
    const big = new Uint8Array(60_000);
    big.set(tcp4);
    big.set([big.length >> 8, big.length & 0xff], 2);
    big.set([0xde, 0xad], 36);
    expect(fixChecksums(big, 1500)).toBe('completed');
    expect(fixChecksums(big, 65_535)).toBe('whole');
    big[9] = 17;
    expect(fixChecksums(big, 1500)).toBe('aggregate');
  });

  test('fragments and other protocols stay as they are', () => {
    const fragment = Uint8Array.from(udp4);
    fragment[6] = 0x20;
    const before = Uint8Array.from(fragment);
    expect(fixChecksums(fragment, 1500)).toBe('whole');
    expect(fragment).toEqual(before);
    const sctp = Uint8Array.from(tcp4);
    sctp[9] = 132;
    expect(fixChecksums(sctp, 1500)).toBe('whole');
    expect(isTcp(sctp)).toBe(false);
    expect(isTcp(tcp4)).toBe(true);
  });

  test('nothing that a peer sends as a packet makes it throw', () => {
    const start = fc.constantFrom(0x45, 0x46, 0x4f, 0x40, 0x60, 0x00, 0xff);
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 120 }), fc.boolean(), (first, rest, honestLength) => {
        const packet = Uint8Array.of(first, ...rest);
        if (honestLength && packet.length > 5) {
          if (first >> 4 === 4) packet.set([0, packet.length], 2);
          else packet.set([0, Math.max(0, packet.length - 40)], 4);
        }
        fixChecksums(packet, 1500);
        const destination = destinationOf(packet);
        if (destination !== null) expect([4, 16]).toContain(destination.length);
      }),
    );
  });
});

describe('danger 38c: what was delivered already is forgotten, a connection that was held back is not', () => {
  const flags = { syn: 0x02, ack: 0x10, push: 0x08 };

  function segment(version: 4 | 6, carried: number): Uint8Array {
    const header = version === 4 ? 20 : 40;
    const packet = Buffer.alloc(header + 20);
    packet[0] = version === 4 ? 0x45 : 0x60;
    packet[version === 4 ? 9 : 6] = 6;
    packet.writeUInt16BE(version === 4 ? packet.length : 20, version === 4 ? 2 : 4);
    packet[header + 13] = carried;
    return packet;
  }

  test.each([4, 6] as const)('IPv%i: only a SYN without ACK opens a connection', (version) => {
    expect(opensConnection(segment(version, flags.syn))).toBe(true);
    expect(opensConnection(segment(version, flags.syn | flags.ack))).toBe(false);
    expect(opensConnection(segment(version, flags.ack | flags.push))).toBe(false);
  });

  test('a datagram opens none', () => {
    const datagram = segment(4, flags.syn);
    datagram[9] = 17;
    expect(opensConnection(datagram)).toBe(false);
  });
});

describe('danger 14: announcements', () => {
  test('gratuitous ARP as request and as reply, to all', () => {
    const [request, reply] = announcementFrames(Uint8Array.of(10, 0, 0, 5), mac);
    const padding = '00'.repeat(18);
    expect(Buffer.from(request ?? []).toString('hex')).toBe(
      `ffffffffffff02005e00112208060001080006040001${'02005e001122'}0a000005${'000000000000'}0a000005${padding}`,
    );
    expect(Buffer.from(reply ?? []).toString('hex')).toBe(
      `ffffffffffff02005e00112208060001080006040002${'02005e001122'}0a000005${'ffffffffffff'}0a000005${padding}`,
    );
  });

  test('unsolicited neighbour advertisement with the override flag and a right checksum', () => {
    const address = ipBytes('2001:db8::5') ?? new Uint8Array();
    const [frame = new Uint8Array()] = announcementFrames(address, mac);
    expect(Buffer.from(frame.subarray(0, 22)).toString('hex')).toBe(
      '33330000000102005e00112286dd60000000' + '00203aff',
    );
    expect(Buffer.from(frame.subarray(22, 54)).toString('hex')).toBe(
      '20010db8000000000000000000000005' + 'ff020000000000000000000000000001',
    );
    expect(Buffer.from(frame.subarray(54, 56)).toString('hex')).toBe('8800');
    expect(Buffer.from(frame.subarray(58)).toString('hex')).toBe(
      '20000000' + '20010db8000000000000000000000005' + '020102005e001122',
    );
    expect(fixChecksums(frame.slice(14), 1500)).toBe('whole');
    const field = ((frame[56] ?? 0) << 8) | (frame[57] ?? 0);
    expect(field).toBe(reference(frame.subarray(14), 40, 2, 58));
  });
});
