/**
 * What a migration needs from the world, as interfaces. The parts of this host and their proxies over gRPC
 * implement the same ones, so that the story in `migrate.ts` does not know where its hosts are.
 */
import type { Lifetime } from './lifetime.js';
import type { MigrationOrder } from './order.js';

/** One result of the checks. A blocker refuses the migration; the rest is told. */
export interface Finding {
  /** Stable, kebab-case. */
  readonly code: string;
  readonly weight: 'blocker' | 'warning' | 'note';
  readonly host: string;
  readonly what: string;
  readonly why: string;
  readonly remedy: string;
  readonly pid: number | null;
  readonly fd: number | null;
}

/** A process that cannot be mistaken for another (dangers.md 5, 8). */
export interface TaskIdentity {
  readonly pid: number;
  /** Clock ticks since boot, field 22 of /proc/PID/stat. */
  readonly startTime: number;
}

export interface TreeIdentity {
  readonly bootId: string;
  /** Inode of the pid namespace in which the pids are counted. */
  readonly pidNamespace: number;
  /** Root first. */
  readonly tasks: readonly TaskIdentity[];
}

/** What the source has found out about the tree and asks the destination to check and to prepare for. */
export interface LandingRequest {
  readonly order: MigrationOrder;
  readonly sourceHost: string;
  readonly tree: TreeIdentity;
  /** Sum of RSS of the tree, bytes. */
  readonly memoryBytes: number;
  /** True when established connections travel. */
  readonly tcpEstablished: boolean;
  /** Opaque to the story: facts of the tree for the destination's checks, JSON, parsed there to its own type. */
  readonly treeFacts: string;
}

/** A file of the images folder as the source has sent it. */
export interface DeliveredImage {
  /** One of CRIU's image names (src/images/image-name.ts). */
  readonly name: string;
  readonly bytes: number;
  /** XXH3-128, 32 hex digits. */
  readonly hash: string;
}

/** IP packets caught on the source while the tree was frozen. */
export interface CaughtPackets {
  readonly packets: readonly Uint8Array[];
  readonly lost: number;
}

export interface Ready {
  /** ms that CRIU took from RESTORE to `post-restore`. */
  readonly restoreMs: number;
}

export interface Running {
  readonly pid: number;
  /** Steps of the destination with their times, ms since the epoch with fractions (same clock domain: the destination's). */
  readonly timeline: readonly TimedStep[];
  readonly replayedPackets: number;
  /** Things that went less than well, in words. */
  readonly remarks: readonly string[];
  /** Where the images stay (`--keep-images`), else null. */
  readonly imagesFolder: string | null;
}

export interface TimedStep {
  readonly step: string;
  /** ms since the epoch on the host that took the step. */
  readonly at: number;
}

/** The destination, before anything is prepared there. */
export interface DestinationHost {
  readonly name: string;
  /** Nothing is touched. */
  check(request: LandingRequest, life: Lifetime): Promise<readonly Finding[]>;
  /** Reserves pids, address and space, and opens the page connection. The owner of the landing must commit or dispose it. */
  prepare(request: LandingRequest, life: Lifetime): Promise<Landing>;
}

/**
 * A place on the destination where one tree can come down.
 * Disposed before `takeOver`: the half-built copy is killed, address and fence go, nothing is left. After it: a no-op.
 */
export interface Landing extends AsyncDisposable {
  /** Where the dump's memory and images go while the source is frozen. */
  readonly images: ImageSink;
  /** Engine primed, leaf cgroup made, fence up, address added behind it, TUN up. The tree still runs on the source. */
  arm(life: Lifetime): Promise<void>;
  /** Verifies every delivered image and restores up to `post-restore`. Returns when the copy is complete and held: READY. */
  restoreAndHold(delivered: readonly DeliveredImage[], life: Lifetime): Promise<Ready>;
  /** Verified images stay on the destination, nothing is restored (`--leave-running`). Returns their folder. */
  keepImages(delivered: readonly DeliveredImage[], life: Lifetime): Promise<string>;
  /** After the line only. Idempotent, repeated until it runs: the destination journals, opens the address and lets the copy go. */
  takeOver(packets: CaughtPackets): Promise<Running>;
}

/** Takes image files as streams of bytes; calls take effect in the order in which they are made, back-pressure is by the returned promises. */
export interface ImageSink {
  /** Sends bytes of one image; the buffer may be reused when the promise has resolved. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Ends one image; the receipt is what was sent. */
  end(name: string): Promise<DeliveredImage>;
  /** Resolves when the destination has acknowledged everything sent so far as stored. */
  flush(): Promise<void>;
  readonly bytesSent: number;
}

/** The source: this host. */
export interface SourceHost {
  readonly name: string;
  inspect(order: MigrationOrder, life: Lifetime): Promise<SourceVerdict>;
  /** Tree in its leaf cgroup, nft table with an empty set, catcher shut, janitor watching, engine primed. The tree runs. Disposed: all undone. `findings`: of both hosts' checks. */
  prepare(request: LandingRequest, findings: readonly Finding[], life: Lifetime): Promise<Departure>;
}

export interface SourceVerdict {
  readonly findings: readonly Finding[];
  readonly request: LandingRequest;
}

/** A tree that is ready to be frozen. Disposed before the line: fence, cgroup, janitor gone, tree untouched. */
export interface Departure extends AsyncDisposable {
  /** Dumps through `sink`; returns with the tree frozen, its images delivered, CRIU held in `post-dump`. */
  freeze(sink: ImageSink, life: Lifetime): Promise<FrozenTree>;
  /** Things that went less than well until now, or that the operator should know, in words. */
  readonly remarks: readonly string[];
}

/** A frozen tree. Disposed before the line: it resumes, TCP included, and caught packets are replayed. After it: only tidies up. */
export interface FrozenTree extends AsyncDisposable {
  readonly delivered: readonly DeliveredImage[];
  /** Journals the intent `committing` durably. It says only "look at the tasks"; abort is still possible. */
  intend(): Promise<void>;
  /** SIGKILL to every task of the frozen tree. When this returns, no task can ever run again. Throws only if nothing was killed. */
  kill(): void;
  /** After the kill: the packets caught since the freeze. */
  caughtPackets(): CaughtPackets;
  /** After COMMIT was sent: address off, CRIU answered, death awaited, fence lifted, `source-dead` journaled. */
  bury(): Promise<SourceEnd>;
  readonly timeline: readonly TimedStep[];
}

export interface SourceEnd {
  readonly timeline: readonly TimedStep[];
  readonly remarks: readonly string[];
}
