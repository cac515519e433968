/**
 * The conversation with one CRIU: requests, notifications, responses, one packet each.
 *
 *     we                         criu swrk
 *     FEATURE_CHECK keep_open ->            primes: probes the kernel, writes /run/criu.kdat
 *                             <- features
 *     DUMP notify             ->
 *                             <- NOTIFY pre-dump, query-ext-files, post-dump, ...   CRIU waits at each
 *     NOTIFY success          ->
 *                             <- DUMP success            and CRIU leaves
 *
 * One request at a time. VERSION, FEATURE_CHECK, CPUINFO_* and the page-server requests keep the conversation open
 * (`keep_open`), PRE_DUMP too; any other request is its last. Hanging up makes a dumping CRIU roll back and a restoring
 * one kill what it has built up to `post-restore`; from `pre-resume` on CRIU ignores a refusal, and the tasks run (criu.md 8).
 */
import { PhaulError } from '../failure/phaul-error.js';
import type { TimedStep } from '../migration/ports.js';
import { Conversation } from './conversation.js';
import { type EngineExit, type EnginePlan, EngineProcess, inheritedFd, type TerminalKeeper } from './engine-process.js';
import type { NotifyHandler } from './notifications.js';
import {
  type CheckOptions,
  type DumpOptions,
  optionFields,
  type PageServerOptions,
  type RestoreOptions,
  type SelfDumpOptions,
} from './options.js';
import { type OptionFields, type RequestFields, RequestType, type ResponseFields } from './rpc-codec.js';

export interface SessionPlan extends EnginePlan {
  /** Folder where CRIU's log will lie, for the cause in errors; null: errors carry no log. */
  readonly logFolder: string | null;
}

/** Memory features, asked for by FEATURE_CHECK. */
export interface EngineFeatures {
  readonly memTrack: boolean;
  readonly lazyPages: boolean;
  readonly pidfdStore: boolean;
}

/** How long a CRIU that was hung up on may take to roll back and leave, ms. It leaves within 100 ms in all our runs. */
const leaveMs = 15_000;

const dumping: ReadonlySet<number> = new Set([RequestType.DUMP, RequestType.PRE_DUMP, RequestType.SINGLE_PRE_DUMP]);

export class EngineSession implements AsyncDisposable {
  readonly #process: EngineProcess;
  readonly #plan: SessionPlan;
  readonly #conversation: Conversation;
  #mayHoldTree = false;

  private constructor(process: EngineProcess, plan: SessionPlan) {
    this.#process = process;
    this.#plan = plan;
    this.#conversation = new Conversation(process, plan.logFolder);
  }

  /** Starts CRIU. Its first answer shows whether it works: ask `version`, or `featureCheck`, which also primes it. */
  static start(plan: SessionPlan): EngineSession {
    return new EngineSession(EngineProcess.start(plan), plan);
  }

  /** The same with CRIU outside the caller's tree, as `selfDump` needs it. */
  static async startApart(plan: SessionPlan): Promise<EngineSession> {
    return new EngineSession(await EngineProcess.startApart(plan), plan);
  }

  /** The same on a terminal of its own, for a restore with `shellJob`; see `EngineProcess`. */
  static async startOnTerminal(plan: SessionPlan, keeper: TerminalKeeper): Promise<EngineSession> {
    return new EngineSession(await EngineProcess.startOnTerminal(plan, keeper), plan);
  }

  /** CRIU's pid in the caller's pid namespace. */
  get pid(): number {
    return this.#process.pid;
  }

  get exited(): Promise<EngineExit> {
    return this.#process.exited;
  }

  /** True when CRIU's last request ended with an answer of its own, good or bad; false when it vanished instead. */
  get answered(): boolean {
    return this.#conversation.answered;
  }

  /** Arrival and answer of each request and notification. */
  get timeline(): readonly TimedStep[] {
    return this.#conversation.timeline;
  }

  /** Number, in CRIU's process, of the i-th inherited descriptor. */
  inheritedFd(index: number): number {
    return inheritedFd(this.#plan, index);
  }

  async version(): Promise<{ major: number; minor: number; sublevel: number }> {
    const { version } = await this.#ask({ type: RequestType.VERSION, keep_open: true });
    if (!version) throw garbled('VERSION without a version');
    return { major: version.major, minor: version.minor, sublevel: version.sublevel ?? 0 };
  }

  /** Probes the kernel (and so warms `/run/criu.kdat`); only features that are asked for are reported. */
  async featureCheck(): Promise<EngineFeatures> {
    const asked = { mem_track: true, lazy_pages: true, pidfd_store: true };
    const { features } = await this.#ask({ type: RequestType.FEATURE_CHECK, keep_open: true, features: asked });
    return {
      memTrack: features?.mem_track ?? false,
      lazyPages: features?.lazy_pages ?? false,
      pidfdStore: features?.pidfd_store ?? false,
    };
  }

  /** `criu check`: throws when the kernel lacks something. It is no proof that a dump works. The last request of a session. */
  async check(options: CheckOptions): Promise<void> {
    await this.#ask({ type: RequestType.CHECK, opts: optionFields(options) }, options);
  }

  /** Writes `cpuinfo.img` into the images directory; CRIU does so only with `cpuCap`. */
  async cpuinfoDump(options: CheckOptions & { cpuCap: number }): Promise<void> {
    await this.#ask({ type: RequestType.CPUINFO_DUMP, opts: optionFields(options), keep_open: true }, options);
  }

  /** Compares this CPU with `cpuinfo.img`; throws `cpu-incompatible` where it cannot run what was dumped there. */
  async cpuinfoCheck(options: CheckOptions & { cpuCap: number }): Promise<void> {
    await this.#ask({ type: RequestType.CPUINFO_CHECK, opts: optionFields(options), keep_open: true }, options);
  }

  /**
   * Sends the memory, the tree runs on; the next request must be PRE_DUMP or DUMP.
   * Never without `featureCheck().memTrack`: CRIU would abort after it has infected the task (criu.md 0.5).
   */
  async preDump(features: EngineFeatures, options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    requireMemTrack(features);
    requirePid(options);
    await this.#converse({ type: RequestType.PRE_DUMP, opts: notified(options) }, options, onNotify);
  }

  /** A pre-dump that ends the session. */
  async singlePreDump(features: EngineFeatures, options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    requireMemTrack(features);
    requirePid(options);
    await this.#converse({ type: RequestType.SINGLE_PRE_DUMP, opts: notified(options) }, options, onNotify);
  }

  /** Dumps a tree, which is dead (or as `leaveRunning` says) when this returns and goes on when it throws. The last request of a session. */
  async dump(options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    requirePid(options);
    await this.#converse({ type: RequestType.DUMP, opts: notified(options) }, options, onNotify);
  }

  /**
   * Dumps the calling process itself; the session must have been started apart. Resolves with `restored: false` in the
   * process that goes on after the dump (`leaveRunning`), and with `restored: true` in the one restored from the images:
   * CRIU puts that second answer into the socket it restores. There is no handler: who is frozen cannot answer.
   */
  async selfDump(options: SelfDumpOptions): Promise<{ restored: boolean }> {
    if ('pid' in options || 'notify' in options) throw new TypeError('a self-dump has no pid and no notifications');
    const { dump } = await this.#ask({ type: RequestType.DUMP, opts: optionFields(options) }, options);
    return { restored: dump?.restored ?? false };
  }

  /** Restores a tree; returns the root's pid in CRIU's pid namespace. The last request of a session. */
  async restore(options: RestoreOptions, onNotify: NotifyHandler): Promise<{ pid: number }> {
    const request = { type: RequestType.RESTORE, opts: notified(options) };
    const { restore } = await this.#converse(request, options, onNotify);
    if (!restore) throw garbled('RESTORE without a pid');
    return { pid: restore.pid };
  }

  /** A page server that serves once, as a child of CRIU; port 0 lets the kernel choose. Its end is told by `waitPid`. */
  async pageServerChild(options: PageServerOptions): Promise<{ pid: number; port: number }> {
    const request = { type: RequestType.PAGE_SERVER_CHLD, opts: optionFields(options), keep_open: true };
    const { ps } = await this.#ask(request, options);
    if (!ps?.pid) throw garbled('PAGE_SERVER_CHLD without a pid');
    return { pid: ps.pid, port: ps.port ?? 0 };
  }

  /** A daemon page server. The pid that CRIU 4.1-4.3 report for it is 0, so none is returned: prefer `pageServerChild`. */
  async pageServer(options: PageServerOptions): Promise<{ port: number }> {
    const request = { type: RequestType.PAGE_SERVER, opts: optionFields(options), keep_open: true };
    const { ps } = await this.#ask(request, options);
    return { port: ps?.port ?? 0 };
  }

  /** Waits for a page-server child; returns its wait status (waitpid(2)). The last request of a session. */
  async waitPid(pid: number): Promise<number> {
    const { status } = await this.#ask({ type: RequestType.WAIT_PID, pid });
    return status ?? 0;
  }

  /** Hangs up: CRIU rolls a dump back, kills a half-restored tree, or just leaves. Await `exited` for the end of that. */
  closeSocket(): void {
    this.#conversation.close();
  }

  /**
   * Hangs up and waits for CRIU to leave. One that does not leave is killed, unless it was asked to dump: then its death
   * would leave sockets in repair mode, and `engine-stuck` is thrown instead.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.closeSocket();
    if (await this.#left()) return;
    if (!this.#mayHoldTree) {
      this.#process.kill();
      await this.exited;
      return;
    }
    throw new PhaulError({
      code: 'engine-stuck',
      what: `CRIU (pid ${this.pid}) has not left ${leaveMs / 1000} s after it was told to`,
      remedy: `look at /proc/${this.pid}/stack; do not kill it while it holds a process: its sockets would stay in repair mode`,
    });
  }

  async #left(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), leaveMs);
    });
    try {
      return await Promise.race([this.exited.then(() => true), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #ask(request: RequestFields, options: { logFile?: string } = {}): Promise<ResponseFields> {
    // Notifications come only where `notify` was asked for; these requests do not.
    return await this.#converse(request, options, () => ({ success: true }));
  }

  async #converse(
    request: RequestFields,
    options: { logFile?: string },
    onNotify: NotifyHandler,
  ): Promise<ResponseFields> {
    this.#mayHoldTree ||= dumping.has(request.type);
    return await this.#conversation.converse(request, options.logFile ?? null, onNotify);
  }
}

/** Fields of a request that has a handler. */
function notified(options: DumpOptions | RestoreOptions): OptionFields {
  return optionFields({ notify: true, ...options });
}

/** CRIU takes a request without a pid for a wish of the caller to be dumped itself. */
function requirePid({ pid }: DumpOptions): void {
  if (!Number.isSafeInteger(pid) || pid <= 0) throw new RangeError(`${pid} is no pid to dump`);
}

function requireMemTrack(features: EngineFeatures): void {
  if (features.memTrack) return;
  throw new PhaulError({
    code: 'no-memory-tracking',
    what: 'this kernel cannot track memory for CRIU (no soft-dirty)',
    remedy: 'use another tracker, or stop-and-copy',
  });
}

function garbled(what: string): PhaulError {
  return new PhaulError({
    code: 'engine-garbled',
    what: `CRIU has answered ${what}`,
    remedy: 'check the engine with `phaul engine`',
  });
}
