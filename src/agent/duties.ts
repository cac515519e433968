/**
 * What an agent does for its callers, as interfaces: the frame (rpc-handlers.ts) authenticates, authorises and parses,
 * then calls these. Everything that arrives here has its type already; nothing here trusts a name as a path unparsed.
 */
import type { MigrationOrder } from '../migration/order.js';
import type { CaughtPackets, DeliveredImage, Finding, LandingRequest, Ready, Running } from '../migration/ports.js';
import type { DestinationWord, SourceWord } from '../migration/recovery.js';
import type { MigrationEvent } from '../migration/report.js';
import type { Caller } from './control/caller.js';
import type { SshCredentials } from './control/ssh-login.js';

/** Facts of a host that the other one needs before any check. */
export interface HostFacts {
  readonly hostName: string;
  readonly bootId: string;
  /** `uname -r`. */
  readonly kernel: string;
  /** Bytes. */
  readonly pageSize: number;
  /** `4.2.1`; null: no engine. */
  readonly engineVersion: string | null;
  /** CRIU's cpuinfo.img of that host; null: not known. */
  readonly cpuInfo: Uint8Array | null;
}

export interface Reservation {
  /** 32 random bytes: opens the page connections of this migration and nothing else (dangers.md 17). */
  readonly pageToken: Uint8Array;
}

/**
 * The destination's side of a migration, called by the agent of the source. The frame has made sure that the caller is
 * an allowed peer, that it may move every address of the request, and that it is the one that has prepared this id
 * (`ownerOf` for landings from before a restart). `signal` ends when the caller has hung up or given up.
 */
export interface PeerDuties {
  facts(): Promise<HostFacts>;
  check(request: LandingRequest, caller: Caller, signal: AbortSignal): Promise<readonly Finding[]>;
  prepare(request: LandingRequest, caller: Caller, signal: AbortSignal): Promise<Reservation>;
  /** `callerKey` of who has prepared this migration here, from memory or journal; null: this host knows nothing of it. */
  ownerOf(id: string): Promise<string | null>;
  arm(id: string, signal: AbortSignal): Promise<void>;
  restoreAndHold(id: string, delivered: readonly DeliveredImage[], signal: AbortSignal): Promise<Ready>;
  /** Folder of the verified images. */
  keepImages(id: string, delivered: readonly DeliveredImage[], signal: AbortSignal): Promise<string>;
  /** COMMIT: idempotent; goes on when the caller hangs up, so there is no signal. */
  takeOver(id: string, packets: CaughtPackets): Promise<Running>;
  /** Idempotent; an unknown id is no error. Refused behind COMMIT. */
  abort(id: string): Promise<void>;
  /** Notes that the source was heard just now. False: no landing of this id is held. */
  heartbeat(id: string): boolean;
  /** What this host's journal says as the destination of a migration. Never `unreachable`. */
  wordAsDestination(id: string, caller: Caller): Promise<DestinationWord>;
  /** What this host's journal says as the source of a migration. Never `unreachable`. */
  wordAsSource(id: string, caller: Caller): Promise<SourceWord>;
}

export interface MigrationStatus {
  readonly id: string;
  readonly role: 'source' | 'destination';
  /** The other host. */
  readonly peer: string;
  readonly pid: number;
  /** Phase of the story, or what the journal says. */
  readonly phase: string;
  /** ms since the epoch: when it was opened. */
  readonly since: number;
  /** False: closed, nothing of it is left to do. */
  readonly open: boolean;
  readonly note: string;
}

export interface Recovery {
  readonly id: string;
  /** One sentence: what was done, or why not. */
  readonly did: string;
  /** True when nothing of it is open any more. */
  readonly settled: boolean;
}

export interface Leftover {
  /** `nft-table`, `address`, `cgroup`, `images`, `stopped-process`, `link-remap`, `namespace`, ... */
  readonly kind: string;
  readonly what: string;
  /** Migration that left it; null when unknown. */
  readonly migration: string | null;
  readonly cleaned: boolean;
  /** Why it stays, or how to remove it. */
  readonly note: string;
}

export interface EngineFacts {
  readonly path: string;
  readonly version: string;
  readonly why: string;
}

export type Tell = (event: MigrationEvent) => void;

/** What an operator may ask of this host. The agent owns a migration; whoever asked for it only watches (dangers.md 8). */
export interface OperatorDuties {
  /**
   * Runs a migration from this host to `destination` (`host[:port]` or `[user@]host` for ssh, see dial.ts) to its end.
   * The first event is `started`, the last `done` or `failed`; after `started` it does not throw. It goes on when the
   * caller hangs up. `ssh`: whose keys reach a destination by ssh; null: the agent's own. Throws when it cannot begin (id in use, tree already on its way).
   */
  migrate(order: MigrationOrder, destination: string, tell: Tell, ssh: SshCredentials | null): Promise<void>;
  /** Tells everything so far and then what follows, until the end or until `signal`. Throws `unknown-migration`. */
  watch(id: string, tell: Tell, signal: AbortSignal): Promise<void>;
  /** Newest first; one element for a known id. */
  status(id: string | null): Promise<readonly MigrationStatus[]>;
  /** Asks to cancel; honoured until the line, refused behind it. */
  cancel(id: string): Promise<void>;
  /** null: all that are open and that no living agent owns. */
  recover(id: string | null, sourceIsDead: boolean): Promise<readonly Recovery[]>;
  leftovers(clean: boolean): Promise<readonly Leftover[]>;
  engine(): Promise<EngineFacts>;
}

export interface AgentDuties extends AsyncDisposable {
  readonly peer: PeerDuties;
  readonly operator: OperatorDuties;
}
