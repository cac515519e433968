/**
 * What each host writes down about a migration, durably, so that after any crash the journal plus a look at the
 * tasks decide alone who owns the process (DESIGN 7, dangers.md 1, 3, 4, 5).
 *
 * One file per migration and host, JSON lines, fdatasync per record. A torn last line is ignored: its step did not happen.
 */
import { z } from 'zod';

const task = z.object({ pid: z.number().int().positive(), startTime: z.number().int().nonnegative() });

const address = z.object({
  family: z.union([z.literal(4), z.literal(6)]),
  ip: z.string(),
  prefixLength: z.number().int().nullable(),
  device: z.string().nullable(),
});

/** An address with its place on this host. */
const placed = z.object({
  family: z.union([z.literal(4), z.literal(6)]),
  ip: z.string(),
  prefixLength: z.number().int(),
  device: z.string(),
});

const stamp = { at: z.number() };

export const journalRecord = z.discriminatedUnion('record', [
  z.object({
    record: z.literal('opened'),
    ...stamp,
    id: z.string(),
    role: z.enum(['source', 'destination']),
    bootId: z.string(),
    pidNamespace: z.number(),
    tasks: z.array(task),
    rootPid: z.number().int(),
    /** How to reach the other host, as given to `phaul migrate` (source) or as the peer named itself (destination). */
    peer: z.string(),
    /** Destination: who may go on with it after a restart (the caller's key); null on the source. */
    owner: z.string().nullable(),
    addresses: z.array(address),
    /** The full landing request, for whoever goes on with it after a crash. */
    request: z.unknown(),
  }),
  /** Source: what has been set up and must go. Written before the first of these exists. */
  z.object({
    record: z.literal('prepared'),
    ...stamp,
    /** Leaf cgroup that holds the tree (source) or will hold the copy (destination); null without a writable cgroup v2. */
    cgroup: z.string().nullable(),
    /** Source: where each task came from. */
    origins: z.array(z.object({ pid: z.number().int(), cgroup: z.string() })),
    fence: z.string().nullable(),
    imagesFolder: z.string().nullable(),
    /** Destination: addresses that this migration has added, with their device. */
    addresses: z.array(placed),
  }),
  /** Source, in `post-dump`: the tasks that are frozen, and CRIU's own lock table if it made one. */
  z.object({
    record: z.literal('frozen'),
    ...stamp,
    tasks: z.array(task),
    lockTable: z.string().nullable(),
    criuPid: z.number().int(),
  }),
  /** Destination: the copy is complete and held, or can be made from images that are verified on its disk. */
  z.object({ record: z.literal('ready'), ...stamp }),
  /** Source: intent. Says only: look at the tasks. */
  z.object({ record: z.literal('committing'), ...stamp }),
  /** Source: all tasks have exited and the address is gone. */
  z.object({ record: z.literal('source-dead'), ...stamp }),
  /** Destination: COMMIT has come. Only this host may run the process. */
  z.object({ record: z.literal('committed'), ...stamp }),
  z.object({ record: z.literal('running'), ...stamp, pid: z.number().int().positive() }),
  z.object({
    record: z.literal('closed'),
    ...stamp,
    outcome: z.enum(['moved', 'undone', 'images-kept']),
    note: z.string(),
  }),
]);

export type JournalRecord = z.infer<typeof journalRecord>;
type WithoutStamp<R> = R extends unknown ? Omit<R, 'at'> : never;
/** A record before it is stamped with the time. */
export type JournalEntry = WithoutStamp<JournalRecord>;
export type OpenedRecord = Extract<JournalRecord, { record: 'opened' }>;
export type PreparedRecord = Extract<JournalRecord, { record: 'prepared' }>;
export type FrozenRecord = Extract<JournalRecord, { record: 'frozen' }>;

export interface Journal {
  /** Durable when it returns (fdatasync). */
  write(entry: JournalEntry): Promise<void>;
}

/** Parses the text of a journal. A last line without its newline is ignored; any other broken line is an error. */
export function parseJournal(text: string): JournalRecord[] {
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => journalRecord.parse(JSON.parse(line)));
}

/** What a list of records says in short. */
export interface JournalState {
  readonly opened: OpenedRecord;
  readonly prepared: PreparedRecord | null;
  readonly frozen: FrozenRecord | null;
  readonly ready: boolean;
  readonly committing: boolean;
  readonly sourceDead: boolean;
  readonly committed: boolean;
  readonly runningPid: number | null;
  readonly closed: { outcome: 'moved' | 'undone' | 'images-kept'; note: string } | null;
}

/** Null when the journal holds nothing yet: then nothing has happened. */
export function stateOf(records: readonly JournalRecord[]): JournalState | null {
  const last = <K extends JournalRecord['record']>(kind: K): Extract<JournalRecord, { record: K }> | null =>
    (records.findLast((record) => record.record === kind) as Extract<JournalRecord, { record: K }> | undefined) ?? null;
  const opened = last('opened');
  if (opened === null) return null;
  const closed = last('closed');
  return {
    opened,
    prepared: last('prepared'),
    frozen: last('frozen'),
    ready: last('ready') !== null,
    committing: last('committing') !== null,
    sourceDead: last('source-dead') !== null,
    committed: last('committed') !== null,
    runningPid: last('running')?.pid ?? null,
    closed: closed === null ? null : { outcome: closed.outcome, note: closed.note },
  };
}
