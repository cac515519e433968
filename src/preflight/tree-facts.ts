/**
 * What the source tells the destination about a tree: plain data, parsed there before anything is done with it
 * (dangers.md 15). Paths are looked at on the destination, never written to.
 */
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';

const pid = z.number().int().min(1).max(4_194_304);
/** As /proc shows them: processes whose group or session leader is in another pid namespace have a 0 there. */
const groupId = z.number().int().min(0).max(4_194_304);
const path = z
  .string()
  .max(4096)
  .refine((text) => text.startsWith('/') && !text.includes('\0'), 'must be an absolute path');
const count = z.number().nonnegative();
/** A 64-bit number (device, inode) in decimal. */
const bigNumber = z.string().regex(/^[0-9]{1,20}$/);

const task = z.object({
  pid,
  comm: z.string().max(64),
  processGroup: groupId,
  session: groupId,
  threads: z.array(pid).max(4_194_304),
});

/** How the tree uses a file; decides how it has to be proved the same. */
const use = z.enum(['exe', 'mapped', 'mapped-shared-writable', 'read', 'write', 'folder']);

const file = z.object({
  path,
  kind: z.enum(['file', 'folder', 'fifo', 'device']),
  uses: z.array(use).min(1),
  bytes: count,
  /** st_mode. */
  mode: z.number().int().nonnegative(),
  device: bigNumber,
  inode: bigNumber,
  /** Of a device: st_rdev. */
  deviceNumber: bigNumber,
  /** Build id of an ELF file, hex; null for others. */
  buildId: z
    .string()
    .regex(/^([0-9a-f]{2}){1,64}$/)
    .nullable(),
  /** XXH3-128 of a file that the tree only reads; null when it has a build id, is written to, or was too much to read. */
  hash: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .nullable(),
  /** One task and descriptor that needs it, for messages; fd null for mappings, exe and cwd. */
  pid,
  fd: z.number().int().nonnegative().nullable(),
});

const treeFacts = z.object({
  architecture: z.string().max(32),
  kernel: z.string().max(128),
  bootId: z.string().regex(/^[0-9a-f-]{36}$/),
  pidNamespace: z.number().int().positive(),
  tasks: z.array(task).max(100_000),
  memory: z.object({
    /** Sum of RSS, bytes. */
    resident: count,
    /** What the images will hold at most, bytes: private memory of each task, shared memory once. */
    private: count,
  }),
  files: z.array(file).max(100_000),
  /** Deleted files that travel in the images, and files with another name left that CRIU links again beside the old one. */
  ghosts: z.array(z.object({ path, bytes: count })).max(100_000),
  linkRemaps: z.array(path).max(100_000),
  locks: z
    .array(
      z.object({ pid, fd: z.number().int().nonnegative(), kind: z.enum(['POSIX', 'FLOCK', 'OFDLCK', 'LEASE']), path }),
    )
    .max(100_000),
  /** Unix sockets of the tree that are bound to a path: a restore unlinks it and binds it again (dangers.md 44). */
  unixPaths: z.array(z.object({ path, listening: z.boolean() })).max(100_000),
  /** Paths to which datagram sockets of the tree are connected, outside of it. */
  unixPeers: z.array(path).max(1000),
  /** Numbers of the ptys inside the tree. */
  terminals: z.array(z.number().int().nonnegative()).max(100_000),
  /** Nonces that the source has left (dangers.md 11). */
  nonces: z
    .array(
      z.object({
        folder: path,
        name: z.string().regex(/^\.phaul-nonce-[a-z0-9-]{1,32}$/),
        content: z.string().regex(/^[0-9a-f]{32}$/),
      }),
    )
    .max(1000),
});

export type TreeFacts = z.infer<typeof treeFacts>;
export type FileFact = z.infer<typeof file>;
export type FileUse = z.infer<typeof use>;
export type TaskFact = z.infer<typeof task>;

/** Throws `bad-tree-facts`. */
export function parseTreeFacts(json: string): TreeFacts {
  try {
    return treeFacts.parse(JSON.parse(json));
  } catch (cause) {
    throw new PhaulError({
      code: 'bad-tree-facts',
      what: 'The facts of the tree that the source has sent cannot be read.',
      remedy: 'Use the same version of phaul on both hosts.',
      cause,
    });
  }
}

/** True for a file that the tree can change: it must be the same file, or equal while the tree is frozen. */
export function isWritten(fact: FileFact): boolean {
  return fact.uses.includes('write') || fact.uses.includes('mapped-shared-writable');
}
