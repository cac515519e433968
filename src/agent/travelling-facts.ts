/** What the source tells the destination about the tree, for the destination's checks: JSON, parsed there to this type. */
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';
import { networkSysctlsSchema } from '../network/sysctls.js';

const endpoint = z.object({ ip: z.string().max(64), port: z.number().int().min(0).max(65535) });

const connection = z.object({
  pid: z.number().int(),
  fd: z.number().int(),
  protocol: z.enum(['tcp', 'udp', 'icmp']),
  local: endpoint,
  remote: endpoint,
  state: z.string().max(32),
  ipv6: z.boolean(),
});

export const travellingFacts = z.object({
  network: z.object({
    connections: z.array(connection),
    /** Local ports of TCP connections inside the tree. */
    loopbackPorts: z.array(z.number().int().min(1).max(65535)),
    sysctls: networkSysctlsSchema,
  }),
  engineVersion: z.string().max(32),
  /** Facts of src/preflight, parsed there. */
  tree: z.string(),
});

export type TravellingFacts = z.infer<typeof travellingFacts>;

export function parseTravellingFacts(json: string): TravellingFacts {
  try {
    return travellingFacts.parse(JSON.parse(json));
  } catch (cause) {
    throw new PhaulError({
      code: 'bad-tree-facts',
      what: 'the facts of the tree that the source has sent cannot be read',
      remedy: 'both hosts need the same version of phaul',
      cause,
    });
  }
}
