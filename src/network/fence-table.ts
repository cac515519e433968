/**
 * The nft tables of a fence: one for IP (inet), one for ARP, of the same name. Registering hooks costs 1-5 ms, so the
 * tables are installed while the tree runs; in the window only elements come and go (30-60 us each).
 *
 * `closed4`, `closed6`: addresses that nothing reaches and that say nothing.
 * `farewell4`, `farewell6`: of these the end of a connection (FIN, RST) may still leave.
 * `closed_loopback`: holds the loopback device while TCP between `loopback_ports` over it is dropped.
 * `held4`, `held6`, `held_ports`: listeners that get no new connections.
 */
import { neverAborted } from '../failure/never-aborted.js';
import { errnoOf } from '../failure/phaul-error.js';
import { addon } from '../native/addon.js';
import { addressBytes } from './address.js';
import { nft } from './commands.js';
import { isAny } from './ip-address.js';

export type FenceSide = 'source' | 'destination';

/** A listening socket; `0.0.0.0` and `::` are every address. */
export interface Listener {
  readonly ip: string;
  readonly port: number;
}

/** What a fence holds when it is installed. */
export interface FenceContents {
  readonly addresses: readonly { readonly ip: string }[];
  readonly loopbackPorts: readonly number[];
  readonly loopbackClosed: boolean;
}

/** One element of one set of a fence. */
export interface FenceElement {
  readonly family: 'inet' | 'arp';
  readonly set: string;
  readonly key: Uint8Array;
}

const idPattern = /^[a-z0-9-]{1,32}$/;
const tablePattern = /^phaul-([a-z0-9-]{1,32})-(source|destination)$/;

/** `phaul-<id>-source` or `-destination`: both may be on one host when it is its own neighbour. */
export function fenceName(id: string, side: FenceSide): string {
  if (!idPattern.test(id)) throw new TypeError(`not the id of a migration: ${JSON.stringify(id)}`);
  return `phaul-${id}-${side}`;
}

/** The migration and side to which a table belongs, or null when it is no fence of phaul. */
export function parseFenceName(table: string): { readonly id: string; readonly side: FenceSide } | null {
  const [, id, side] = tablePattern.exec(table) ?? [];
  return id === undefined ? null : { id, side: side as FenceSide };
}

/** Both tables of a fence as one nft transaction. The prerouting chain also covers what a host forwards. */
export function fenceScript(name: string, contents: FenceContents): string {
  const [v4, v6] = [4, 16].map((bytes) => contents.addresses.filter((each) => addressBytes(each).length === bytes));
  const loopback = contents.loopbackClosed ? ['lo'] : [];
  const ports = [...new Set(contents.loopbackPorts)].filter(isPort).map(String);
  const newConnection = 'tcp flags & (fin | syn | rst | ack) == syn';
  // libsoccr restores a half closed connection by sending the peer's FIN to it, over loopback and through the closed
  // fence; this mark is on those packets alone (SOCCR_MARK in CRIU's soccr.h).
  const ofCriu = 'meta mark 0xc114 accept';
  const loopbackTcp = 'tcp sport @loopback_ports tcp dport @loopback_ports drop';
  return `table inet ${name} {
  set closed4 { type ipv4_addr; ${elements(texts(v4))} }
  set closed6 { type ipv6_addr; ${elements(texts(v6))} }
  set farewell4 { type ipv4_addr; }
  set farewell6 { type ipv6_addr; }
  set closed_loopback { type iface_index; ${elements(loopback)} }
  set loopback_ports { type inet_service; ${elements(ports)} }
  set held4 { type ipv4_addr . inet_service; }
  set held6 { type ipv6_addr . inet_service; }
  set held_ports { type inet_service; }
  chain arriving {
    type filter hook prerouting priority -300; policy accept;
    ${ofCriu}
    ip daddr @closed4 drop
    ip6 daddr @closed6 drop
  }
  chain input {
    type filter hook input priority -300; policy accept;
    ${ofCriu}
    ip daddr @closed4 drop
    ip6 daddr @closed6 drop
    iif @closed_loopback ${loopbackTcp}
    ${newConnection} tcp dport @held_ports drop
    ${newConnection} ip daddr . tcp dport @held4 drop
    ${newConnection} ip6 daddr . tcp dport @held6 drop
  }
  chain output {
    type filter hook output priority -300; policy accept;
    ${ofCriu}
    tcp flags & (fin | rst) != 0 ip saddr @farewell4 accept
    tcp flags & (fin | rst) != 0 ip6 saddr @farewell6 accept
    ip saddr @closed4 drop
    ip6 saddr @closed6 drop
    oif @closed_loopback ${loopbackTcp}
  }
}
table arp ${name} {
  set closed4 { type ipv4_addr; ${elements(texts(v4))} }
  chain input {
    type filter hook input priority -300; policy accept;
    arp daddr ip @closed4 drop
  }
  chain output {
    type filter hook output priority -300; policy accept;
    arp saddr ip @closed4 drop
  }
}
`;
}

/** Installs both tables; a fence of the same name that was left is replaced in the same transaction. */
export async function installFence(name: string, contents: FenceContents, signal: AbortSignal): Promise<void> {
  await nft(deletion(name) + fenceScript(name, contents), signal);
  // The first change loads the addon and opens its socket, 4 ms that do not belong into the window. Nobody dials port 0.
  const warmth: readonly FenceElement[] = [{ family: 'inet', set: 'held_ports', key: Uint8Array.of(0, 0) }];
  addElements(name, warmth);
  deleteElements(name, warmth);
}

/** Deletes both tables; idempotent. */
export async function deleteFence(name: string): Promise<void> {
  await nft(deletion(name), neverAborted);
}

/** Elements that close an address: for IPv4 also its ARP. */
export function addressElements(address: { readonly ip: string }): readonly FenceElement[] {
  const key = addressBytes(address);
  if (key.length === 16) return [{ family: 'inet', set: 'closed6', key }];
  return [
    { family: 'inet', set: 'closed4', key },
    { family: 'arp', set: 'closed4', key },
  ];
}

/** Element that lets the ends of an address' connections out of a closed fence. */
export function farewellElement(address: { readonly ip: string }): FenceElement {
  const key = addressBytes(address);
  return { family: 'inet', set: key.length === 16 ? 'farewell6' : 'farewell4', key };
}

/** Element that closes loopback TCP between the ports of the tree. The index of `lo` is 1 in every network namespace. */
export function loopbackElement(): FenceElement {
  return { family: 'inet', set: 'closed_loopback', key: new Uint8Array(Uint32Array.of(1).buffer) };
}

/** Element that holds back new connections to a listener. */
export function listenerElement(listener: Listener): FenceElement {
  const port = Uint8Array.of(listener.port >> 8, listener.port & 0xff);
  if (isAny(listener.ip)) return { family: 'inet', set: 'held_ports', key: port };
  const address = addressBytes(listener);
  // Each part of a concatenation fills whole 32-bit registers (nft(8), CONCATENATIONS; nft_set in the kernel).
  const key = Uint8Array.of(...address, ...port, 0, 0);
  return { family: 'inet', set: address.length === 4 ? 'held4' : 'held6', key };
}

/** Puts elements in, synchronously. One that is there already is fine. */
export function addElements(name: string, wanted: readonly FenceElement[]): void {
  for (const each of wanted) addon().nftElement(true, each.family, name, each.set, each.key);
}

/** Takes all elements out, synchronously, also when one of them fails. One that is not there is fine. */
export function deleteElements(name: string, unwanted: readonly FenceElement[]): void {
  const failures: unknown[] = [];
  for (const each of unwanted) {
    try {
      addon().nftElement(false, each.family, name, each.set, each.key);
    } catch (failure) {
      // No such element, set or table: it closes nothing, which is what was asked for.
      if (errnoOf(failure) !== 'ENOENT') failures.push(failure);
    }
  }
  if (failures.length > 0) throw failures[0];
}

// `add` first: `delete` of a missing table fails, `destroy` needs Linux 6.3.
function deletion(name: string): string {
  return ['inet', 'arp'].map((family) => `add table ${family} ${name}\ndelete table ${family} ${name}\n`).join('');
}

function texts(addresses: readonly { readonly ip: string }[] | undefined): readonly string[] {
  return [...new Set((addresses ?? []).map((each) => each.ip))];
}

function elements(values: readonly string[]): string {
  return values.length === 0 ? '' : `elements = { ${values.join(', ')} };`;
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port < 65536;
}
