/** The Internet checksum (RFC 1071) and the pseudo-headers of IPv4 and IPv6 (RFC 9293 3.1, RFC 8200 8.1). */

/** Ones' complement sum, folded to 16 bits and not complemented. */
export function internetSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  const even = bytes.length & ~1;
  // At most 2^16 words of 16 bits: exact in a double, folded once at the end.
  for (let at = 0; at < even; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  if (even < bytes.length) sum += (bytes[even] ?? 0) << 8;
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** Sum of the pseudo-header; the addresses are 4 bytes each or 16 bytes each. */
export function pseudoHeaderSum(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): number {
  return internetSum(destination, internetSum(source, protocol + (length >> 16) + (length & 0xffff)));
}
