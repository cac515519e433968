/** What the operator writes after `--move-address`: `IP[/len][@dev]`. */
import { PhaulError } from '../failure/phaul-error.js';
import type { AddressOrder } from '../migration/order.js';
import { ipBytes, ipText, whyNotMovable } from './ip-address.js';

// Narrower than the kernel's rule (no '/', ':' or white space, at most 15 bytes: dev_valid_name), so that a name can
// stand in a command line and in nft text as it is.
const deviceName = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/;
const lengthText = /^(0|[1-9][0-9]{0,2})$/;

/**
 * Parses `IP[/len][@dev]` to its canonical form. Loopback, multicast, link-local and unspecified addresses are refused:
 * they cannot move.
 * @throws PhaulError `bad-address`
 */
export function parseAddressOrder(text: string): AddressOrder {
  const [, ipPart = '', lengthPart = null, device = null] = /^([^/@]*)(?:\/([^/@]*))?(?:@([^/@]*))?$/.exec(text) ?? [];
  const bytes = ipBytes(ipPart);
  if (bytes === null) throw badAddress(text, 'it does not start with an IPv4 or IPv6 address');
  const obstacle = whyNotMovable(bytes);
  if (obstacle !== null) throw badAddress(text, obstacle);
  const bits = bytes.length * 8;
  const prefixLength = lengthPart === null ? null : Number(lengthPart);
  if (lengthPart !== null && (!lengthText.test(lengthPart) || Number(lengthPart) < 1 || Number(lengthPart) > bits)) {
    throw badAddress(text, `the prefix length is not a number from 1 to ${bits}`);
  }
  if (device !== null && !isDeviceName(device)) throw badAddress(text, 'the device is not the name of an interface');
  return { family: bytes.length === 4 ? 4 : 6, ip: ipText(bytes), prefixLength, device };
}

/** True when a name can be an interface and may stand in a command as it is. */
export function isDeviceName(name: string): boolean {
  return deviceName.test(name);
}

/** Network-order bytes, 4 or 16. */
export function addressBytes(address: { readonly ip: string }): Uint8Array {
  const bytes = ipBytes(address.ip);
  if (bytes === null) throw badAddress(address.ip, 'it is not an IP address');
  return bytes;
}

/** The inverse of `parseAddressOrder`. */
export function formatAddress(order: AddressOrder): string {
  const length = order.prefixLength === null ? '' : `/${order.prefixLength}`;
  return `${order.ip}${length}${order.device === null ? '' : `@${order.device}`}`;
}

function badAddress(text: string, why: string): PhaulError {
  return new PhaulError({
    code: 'bad-address',
    what: `${JSON.stringify(text.slice(0, 80))} is not an address that can be moved: ${why}.`,
    remedy: 'Give IP[/len][@dev], for example 10.0.0.5, 10.0.0.5/24@eth0 or 2001:db8::5@eth0.',
  });
}
