/** Checks of an address that is to move, before anything is touched (dangers.md 14). */
import { messageOf } from '../failure/phaul-error.js';
import type { AddressOrder } from '../migration/order.js';
import type { Finding } from '../migration/ports.js';
import { deviceFor, findAddress, type NetworkInterface } from './interfaces.js';
import { carriesSubnet, placeHere, removalWouldDropOthers } from './moved-address.js';
import type { SocketEntry, TreeSockets } from './sockets.js';

/** What the source knows when it checks an address. */
export interface SourceAddressFacts {
  readonly host: string;
  readonly interfaces: readonly NetworkInterface[];
  /** All sockets of the host. */
  readonly sockets: readonly SocketEntry[];
  readonly tree: TreeSockets;
  /** Sockets of phaul itself (`socketsOf(['self'])`), all agents of this host together where there are several. */
  readonly own: TreeSockets;
  /** Devices that keep secondaries when their primary goes (`promotesSecondaries`). */
  readonly promoting: ReadonlySet<string>;
}

/** The address is here, belongs to the tree alone, and can be taken off without taking others along. */
export function checkAddressOnSource(order: AddressOrder, facts: SourceAddressFacts): readonly Finding[] {
  const finding = findingOf(facts.host);
  if (findAddress(order.ip, facts.interfaces) === null) {
    return [
      finding('blocker', 'address-not-here', {
        what: `${order.ip} is not an address of this host.`,
        why: 'Only an address that the clients of the tree use now can follow it.',
        remedy: 'Look at `ip addr` and name an address of this host, or leave the option out.',
      }),
    ];
  }
  const place = placeHere(order, facts.interfaces);
  const dropped = removalWouldDropOthers(place, facts.interfaces, facts.promoting.has(place.device));
  const leased = findAddress(order.ip, facts.interfaces)?.leased ?? false;
  return [
    ...foreignSockets(order, facts),
    ...(dropped.length === 0
      ? []
      : [
          finding('blocker', 'address-carries-others', {
            what: `${order.ip} is the primary address of ${dropped.map((each) => each.ip).join(', ')} on ${place.device}.`,
            why: 'The kernel deletes secondary addresses together with their primary.',
            remedy: `Set net.ipv4.conf.${place.device}.promote_secondaries=1, or add the address that moves as /32.`,
          }),
        ]),
    ...(carriesSubnet(place, facts.interfaces)
      ? [
          finding('warning', 'address-carries-subnet', {
            what: `${order.ip}/${place.prefixLength} is the only address of its subnet on ${place.device}.`,
            why: 'When it leaves, this host loses its route to that subnet, and routes through it.',
            remedy: 'Give this host an address of its own in that subnet.',
          }),
        ]
      : []),
    ...(leased
      ? [
          finding('warning', 'address-leased', {
            what: `${order.ip} is leased (DHCP or a router advertisement).`,
            why: 'The client that leased it here may put it back after the move.',
            remedy: 'Use a static address for the service.',
          }),
        ]
      : []),
  ];
}

/** The address has a device here and is not here yet. */
export function checkAddressOnDestination(
  order: AddressOrder,
  host: string,
  interfaces: readonly NetworkInterface[],
): readonly Finding[] {
  const finding = findingOf(host);
  const here = findAddress(order.ip, interfaces);
  if (here !== null) {
    return [
      finding('blocker', 'address-taken', {
        what: `${order.ip} is an address of this host already, on ${here.device}.`,
        why: 'It would answer the clients before the tree is here.',
        remedy: `Delete it here (ip addr del ${here.ip}/${here.prefixLength} dev ${here.device}), or leave the option out.`,
      }),
    ];
  }
  let device: NetworkInterface;
  try {
    device = deviceFor(order, interfaces);
  } catch (failure) {
    return [
      finding('blocker', 'no-device-for-address', {
        what: messageOf(failure),
        why: 'The clients of the tree must find the address on this host.',
        remedy: `Name the interface of this host: --move-address ${order.ip}@DEVICE.`,
      }),
    ];
  }
  if (!device.up) {
    return [
      finding('blocker', 'device-down', {
        what: `${device.name}, the interface for ${order.ip}, is down.`,
        why: 'Nothing would reach the tree.',
        remedy: `Bring it up (ip link set ${device.name} up), or name another one.`,
      }),
    ];
  }
  if (device.mac !== null) return [];
  return [
    finding('warning', 'address-not-announced', {
      what: `${device.name}, the interface for ${order.ip}, is not Ethernet.`,
      why: 'There are no neighbours to be told by ARP or ND; the route to the address must be moved by other means.',
      remedy: 'Move the route in a hook (--hook), or name an Ethernet interface.',
    }),
  ];
}

function foreignSockets(order: AddressOrder, facts: SourceAddressFacts): readonly Finding[] {
  const finding = findingOf(facts.host);
  const foreign = facts.sockets.filter(
    (each) => each.local.ip === order.ip && each.inode !== 0 && !facts.tree.has(each.inode),
  );
  return foreign.map((each) => {
    const holder = facts.own.get(each.inode);
    const socket = `${each.protocol} ${each.local.ip}:${each.local.port} (${each.state}, inode ${each.inode})`;
    return holder === undefined
      ? finding('blocker', 'address-used-elsewhere', {
          what: `${order.ip} is also used by a socket outside the tree: ${socket}.`,
          why: 'That socket would lose its address in the middle of a connection.',
          remedy: `Find it with \`ss -tunap src ${order.ip}\`; close it, or give the tree an address of its own.`,
        })
      : finding('blocker', 'address-carries-phaul', {
          what: `phaul itself speaks from ${order.ip}: ${socket}.`,
          why: 'The fence would cut the connection that carries the migration.',
          remedy: 'Let the agents listen on and dial from another address of this host.',
        });
  });
}

/** Makes findings of one host that no single descriptor is to blame for. */
export function findingOf(host: string) {
  return (
    weight: Finding['weight'],
    code: string,
    words: { readonly what: string; readonly why: string; readonly remedy: string },
    holder: { readonly pid: number; readonly fd: number } | null = null,
  ): Finding => ({ code, weight, host, ...words, pid: holder?.pid ?? null, fd: holder?.fd ?? null });
}
