/** Settings of the network namespace on which restored sockets depend (dangers.md 17e). */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { errnoOf } from '../failure/phaul-error.js';
import type { Finding } from '../migration/ports.js';
import { findingOf } from './address-checks.js';

const names = [
  'net/ipv4/ping_group_range',
  'net/ipv4/ip_unprivileged_port_start',
  'net/ipv4/ip_nonlocal_bind',
  'net/core/somaxconn',
  'net/ipv6/bindv6only',
  'net/ipv6/conf/all/disable_ipv6',
  'net/netfilter/nf_conntrack_tcp_loose',
] as const;
type SysctlName = (typeof names)[number];

/** Values as the kernel prints them, white space folded; null where the kernel does not have it. */
export type NetworkSysctls = Readonly<Record<SysctlName, string | null>>;

/** For parsing what the peer says it has. */
export const networkSysctlsSchema: z.ZodType<NetworkSysctls> = z.record(z.enum(names), z.string().max(200).nullable());

/** What the tree uses. */
export interface SysctlNeeds {
  readonly pingSockets: boolean;
  readonly ipv6Sockets: boolean;
  readonly listeners: boolean;
  readonly tcpEstablished: boolean;
}

/** Reads them in the network namespace of this process. */
export async function readNetworkSysctls(): Promise<NetworkSysctls> {
  const values = await Promise.all(names.map(async (name) => [name, await readSysctl(name)] as const));
  return Object.fromEntries(values) as Record<SysctlName, string | null>;
}

/** Compares both hosts; `host` is the destination. */
export function compareSysctls(
  source: NetworkSysctls,
  destination: NetworkSysctls,
  needs: SysctlNeeds,
  host: string,
): readonly Finding[] {
  const finding = findingOf(host);
  const findings: Finding[] = [];
  const add = (weight: Finding['weight'], name: SysctlName, why: string) => {
    const [there, here] = [source[name] ?? 'absent', destination[name] ?? 'absent'];
    const dotted = name.replaceAll('/', '.');
    findings.push(
      finding(weight, 'sysctl-differs', {
        what: `${dotted} is "${there}" on the source and "${here}" on ${host}.`,
        why,
        remedy: `On ${host}: sysctl -w ${dotted}="${there}".`,
      }),
    );
  };
  const differs = (name: SysctlName) => source[name] !== destination[name];

  if (needs.pingSockets && differs('net/ipv4/ping_group_range')) {
    add(
      'blocker',
      'net/ipv4/ping_group_range',
      'The tree has ICMP sockets; outside this range of groups they cannot be restored.',
    );
  }
  if (needs.ipv6Sockets && differs('net/ipv6/conf/all/disable_ipv6')) {
    add(
      'blocker',
      'net/ipv6/conf/all/disable_ipv6',
      'The tree has IPv6 sockets; they cannot be bound where IPv6 is off.',
    );
  }
  if (needs.tcpEstablished && destination['net/netfilter/nf_conntrack_tcp_loose'] === '0') {
    findings.push(
      finding('warning', 'conntrack-not-loose', {
        what: `net.netfilter.nf_conntrack_tcp_loose is 0 on ${host}.`,
        why: 'A stateful firewall there takes the packets of connections that it has not seen begin for invalid; they hang.',
        remedy: `On ${host}: sysctl -w net.netfilter.nf_conntrack_tcp_loose=1 (the default).`,
      }),
    );
  }
  if (needs.listeners && Number(destination['net/core/somaxconn']) < Number(source['net/core/somaxconn'])) {
    add('warning', 'net/core/somaxconn', 'Queues of listening sockets are cut to this length.');
  }
  if (needs.listeners && differs('net/ipv4/ip_unprivileged_port_start')) {
    add(
      'warning',
      'net/ipv4/ip_unprivileged_port_start',
      'A program that opens its ports again may not be allowed to.',
    );
  }
  if (needs.ipv6Sockets && differs('net/ipv6/bindv6only')) {
    add(
      'warning',
      'net/ipv6/bindv6only',
      'Sockets that the program opens later take IPv4 on one host and not on the other.',
    );
  }
  if (source['net/ipv4/ip_nonlocal_bind'] === '1' && differs('net/ipv4/ip_nonlocal_bind')) {
    add('warning', 'net/ipv4/ip_nonlocal_bind', 'The program may bind addresses that the host does not have.');
  }
  return findings;
}

async function readSysctl(name: SysctlName): Promise<string | null> {
  try {
    return (await readFile(`/proc/sys/${name}`, 'utf8')).trim().replace(/\s+/g, ' ');
  } catch (failure) {
    // A part of the kernel that is not there or not loaded.
    if (errnoOf(failure) === 'ENOENT') return null;
    throw failure;
  }
}
