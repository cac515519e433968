/** What the source tells the destination about the tree, for the destination's checks: JSON, parsed there to this type. */
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';
import { networkSysctlsSchema } from '../network/sysctls.js';
import type { StdioEnd } from '../preflight/stdio.js';

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

const stdioEnd = z.object({
  key: z.string().regex(/^(pipe:\[\d{1,20}\]|tty\[[0-9a-f]{1,16}:[0-9a-f]{1,16}\])$/),
  kind: z.enum(['pipe', 'terminal']),
  writers: z
    .array(z.object({ pid: z.number().int().positive(), fd: z.number().int().nonnegative() }))
    .max(100_000)
    .readonly(),
}) satisfies z.ZodType<StdioEnd>;

export const travellingFacts = z.object({
  network: z.object({
    connections: z.array(connection),
    /** Local ports of TCP connections inside the tree. */
    loopbackPorts: z.array(z.number().int().min(1).max(65535)),
    sysctls: networkSysctlsSchema,
  }),
  engineVersion: z.string().max(32),
  /** The source's cpuinfo.img in base64; null: not known. */
  cpuInfo: z.string().max(65_536).nullable().default(null),
  /** What `--stdio` rewires. */
  stdio: z.array(stdioEnd).max(1000).readonly().default([]),
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
