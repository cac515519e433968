/** A range of IP addresses in CIDR notation, as the configuration grants it to a peer. */
import { BlockList, isIP } from 'node:net';

export class AddressRange {
  readonly text: string;
  readonly #list = new BlockList();

  constructor(network: string, prefixLength: number, family: 4 | 6) {
    this.text = `${network}/${prefixLength}`;
    this.#list.addSubnet(network, prefixLength, family === 4 ? 'ipv4' : 'ipv6');
  }

  contains(ip: string): boolean {
    const family = isIP(ip);
    if (family === 0) return false;
    return this.#list.check(ip, family === 4 ? 'ipv4' : 'ipv6');
  }
}

/** `IP` (that address alone) or `IP/length`; null when it is neither. */
export function parseAddressRange(text: string): AddressRange | null {
  const [network = '', length, ...rest] = text.split('/');
  const family = isIP(network);
  if (family === 0 || network.includes('%') || rest.length > 0) return null;
  const longest = family === 4 ? 32 : 128;
  if (length === undefined) return new AddressRange(network, longest, family === 4 ? 4 : 6);
  if (!/^\d{1,3}$/.test(length) || Number(length) > longest) return null;
  return new AddressRange(network, Number(length), family === 4 ? 4 : 6);
}
