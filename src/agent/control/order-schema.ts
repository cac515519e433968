/**
 * The documents that travel as JSON between agents and from the operator, parsed to their types before anything is done
 * with them: every value of a peer that reaches nft, ip, argv or a path has passed here (dangers.md 15).
 */
import { z } from 'zod';
import { PhaulError } from '../../failure/phaul-error.js';
import { imageNamePattern } from '../../images/image-name.js';
import type { AddressOrder, MigrationOrder } from '../../migration/order.js';
import type { DeliveredImage, LandingRequest } from '../../migration/ports.js';
import { formatAddress, parseAddressOrder } from '../../network/address.js';

/** Names folders, cgroups and nft tables; the first character is no dash, so that no tool reads it as an option. */
export const migrationIdPattern = /^[a-z0-9][a-z0-9-]{0,31}$/;

const migrationId = z
  .string()
  .regex(migrationIdPattern, 'lower-case letters, digits and dashes, at most 32 characters');
const pid = z.number().int().min(1).max(4_194_304);
const withoutNul = z
  .string()
  .max(4096)
  .refine((text) => !text.includes('\0'), 'must not contain NUL');
const absolutePath = withoutNul.refine((text) => text.startsWith('/'), 'must be an absolute path');
const milliseconds = z
  .number()
  .int()
  .positive()
  .max(7 * 24 * 3600 * 1000);
/** An engine argument: one line, so that it stays one value in configuration files and logs. */
const engineValue = withoutNul.refine((text) => text !== '' && !text.includes('\n'), 'must be one non-empty line');

/** The same rules as for what an operator types: canonical, movable, and a device name that is one word. */
const address = z
  .object({
    family: z.union([z.literal(4), z.literal(6)]),
    ip: z.string().max(45),
    prefixLength: z.number().int().nullable(),
    device: z.string().max(15).nullable(),
  })
  .refine(isParsedAddress, 'is no address that can move') satisfies z.ZodType<AddressOrder>;

const engine = z.object({
  fileLocks: z.boolean(),
  linkRemap: z.boolean(),
  ghostLimit: z.number().int().nonnegative().nullable(),
  extUnixSk: z.boolean(),
  external: z.array(engineValue).max(256),
  inheritFd: z.array(engineValue).max(256),
  root: absolutePath.nullable(),
  manageCgroups: z.enum(['ignore', 'none', 'props', 'soft', 'full', 'strict', 'default']),
  cpuCap: z.number().int().nonnegative().max(0xffff_ffff).nullable(),
  lsmProfile: engineValue.nullable(),
  evasiveDevices: z.boolean(),
  forceIrmap: z.boolean(),
});

const order = z.object({
  id: migrationId,
  pid,
  tcp: z.enum(['auto', 'established', 'close']),
  addresses: z.array(address).max(64),
  shellJob: z.boolean(),
  stdio: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('keep') }),
    z.object({ kind: z.literal('null') }),
    z.object({ kind: z.literal('file'), path: absolutePath }),
  ]),
  leaveRunning: z.boolean(),
  startStopped: z.boolean(),
  dryRun: z.boolean(),
  keepImages: z.boolean(),
  durable: z.boolean(),
  filesAreSame: z.boolean(),
  force: z.boolean(),
  stopUnit: z.boolean(),
  maxFreezeMs: milliseconds.nullable(),
  timeoutMs: milliseconds.nullable(),
  hookFolders: z.array(absolutePath).max(16),
  engine,
}) satisfies z.ZodType<MigrationOrder>;

const landingRequest = z.object({
  order,
  sourceHost: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[A-Za-z0-9._-]+$/),
  tree: z.object({
    bootId: z.string().regex(/^[0-9a-f-]{36}$/),
    pidNamespace: z.number().int().positive(),
    tasks: z
      .array(z.object({ pid, startTime: z.number().int().nonnegative() }))
      .min(1)
      .max(4_194_304),
  }),
  memoryBytes: z.number().nonnegative(),
  tcpEstablished: z.boolean(),
  treeFacts: z.string(),
}) satisfies z.ZodType<LandingRequest>;

const delivered = z.array(
  z.object({
    name: z.string().max(255).regex(imageNamePattern),
    bytes: z.number().int().nonnegative(),
    hash: z.string().regex(/^[0-9a-f]{32}$/),
  }),
) satisfies z.ZodType<DeliveredImage[]>;

/** Throws `bad-message`. */
export function parseMigrationId(text: string): string {
  return parsed(migrationId, text, 'migration id');
}

/** Throws `bad-message` with the path of the first wrong value. */
export function parseOrder(json: string): MigrationOrder {
  return parsed(order, fromJson(json, 'migration order'), 'migration order');
}

/** Throws `bad-message` with the path of the first wrong value. */
export function parseLandingRequest(json: string): LandingRequest {
  return parsed(landingRequest, fromJson(json, 'landing request'), 'landing request');
}

/** Throws `bad-message`. */
export function parseDelivered(images: unknown): DeliveredImage[] {
  return parsed(delivered, images, 'list of images');
}

function isParsedAddress(value: AddressOrder): boolean {
  try {
    const parsed = parseAddressOrder(formatAddress(value));
    return parsed.family === value.family && parsed.ip === value.ip && parsed.device === value.device;
  } catch {
    // What the parser refuses is no address; zod tells where it stood.
    return false;
  }
}

function fromJson(json: string, what: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw badMessage(`the ${what} is not JSON`, cause);
  }
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue?.path.join('.') ?? '';
  throw badMessage(
    `the ${what} is wrong${path === '' ? '' : ` at ${path}`}: ${issue?.message ?? 'unknown'}`,
    result.error,
  );
}

function badMessage(what: string, cause: unknown): PhaulError {
  return new PhaulError({ code: 'bad-message', what, remedy: 'use the same version of phaul on both hosts', cause });
}
