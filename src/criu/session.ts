/**
 * One `criu swrk` process and the conversation with it: requests, notifications, responses, one packet each.
 *
 * CRIU answers one request at a time. VERSION, FEATURE_CHECK, CPUINFO_* and the page-server requests keep the session
 * open; DUMP and RESTORE are its last word. The process runs in a session of its own so that the terminal's Ctrl-C never
 * reaches it: a signal to a dumping CRIU leaves the tree's sockets in repair mode (dangers.md 2).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { PhaulError } from '../failure/phaul-error.js';
import type { TimedStep } from '../migration/ports.js';
import { nowMs } from '../migration/report.js';
import { addon, type PacketSocket } from '../native/addon.js';
import { CriuError } from './criu-error.js';
import type { Engine } from './engine.js';
import { type DumpOptions, optionFields, type RestoreOptions, type SelfDumpOptions } from './options.js';
import { decodeResponse, encodeRequest, type RequestFields, RequestType, type ResponseFields } from './rpc-codec.js';

/** Moments at which CRIU stops and asks (criu(8), action scripts). */
export type NotifyScript =
  | 'pre-stream'
  | 'pre-dump'
  | 'post-dump'
  | 'pre-restore'
  | 'post-restore'
  | 'network-lock'
  | 'network-unlock'
  | 'setup-namespaces'
  | 'post-setup-namespaces'
  | 'pre-resume'
  | 'post-resume'
  | 'orphan-pts-master'
  | 'status-ready'
  | 'query-ext-files';

export interface CriuNotification {
  readonly script: NotifyScript;
  /** Root of the restored tree, where CRIU tells it. */
  readonly pid: number | null;
  /** Descriptors that came along (`orphan-pts-master`); now the handler's. */
  readonly fds: readonly number[];
}

export interface NotifyAnswer {
  readonly success: boolean;
  /** Only in `query-ext-files`: more external resources. */
  readonly external?: readonly string[];
}

export type NotifyHandler = (notification: CriuNotification) => NotifyAnswer | Promise<NotifyAnswer>;

export interface SessionPlan {
  readonly engine: Engine;
  /** cgroup v2 folder that CRIU enters before it starts; null: where the caller is. */
  readonly cgroup: string | null;
  /** Descriptors of the caller that CRIU inherits; `inheritedFd(i)` tells their numbers there. They stay the caller's. */
  readonly inherit: readonly number[];
  /** Folder where CRIU's log will lie, for the cause in errors; null: errors carry no log. */
  readonly logFolder: string | null;
}

/** Memory features, asked for by FEATURE_CHECK. */
export interface EngineFeatures {
  readonly memTrack: boolean;
  readonly lazyPages: boolean;
  readonly pidfdStore: boolean;
}

/** CRIU's socket is descriptor 3; what is inherited follows. */
const socketFd = 3;
/** Largest request or response: a request with thousands of externals stays far below. */
const packetBytes = 1 << 20;
/** How long a CRIU that was hung up on may take to roll back and leave, ms. It unfreezes and detaches within 100 ms in all our runs. */
const leaveMs = 15_000;

export class EngineSession implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #socket: PacketSocket;
  readonly #logFolder: string | null;
  readonly #inherited: number;
  readonly exited: Promise<void>;
  readonly timeline: TimedStep[] = [];
  #waiting: { resolve(response: Packet): void; reject(failure: Error): void } | null = null;
  #gone: PhaulError | null = null;
  #answered = false;
  #logFile: string | null = null;

  private constructor(child: ChildProcess, socketFdHere: number, plan: SessionPlan) {
    this.#child = child;
    this.#logFolder = plan.logFolder;
    this.#inherited = plan.inherit.length;
    this.exited = new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    this.#socket = addon().packetSocket(socketFdHere, {
      packet: (bytes, fds) => this.#received(bytes, fds),
      end: () => this.#lost(undefined),
      error: (cause) => this.#lost(cause),
    });
    child.once('error', (cause) => this.#lost(cause));
  }

  /** Starts CRIU. Its first answer shows whether it works: ask `version` or `featureCheck`, which also warms its kernel probe. */
  static start(plan: SessionPlan): EngineSession {
    const { near, far } = addon().socketPair('seqpacket', packetBytes);
    try {
      const enter = 'if [ -n "$1" ]; then echo 0 > "$1/cgroup.procs" || exit 125; fi; shift; exec "$@"';
      const child = spawn(
        '/bin/sh',
        ['-c', enter, 'sh', plan.cgroup ?? '', plan.engine.path, 'swrk', String(socketFd)],
        {
          // Own session: see the file's head.
          detached: true,
          stdio: ['ignore', 'ignore', 'ignore', far, ...plan.inherit],
          env: engineEnvironment(plan.engine),
          cwd: '/',
        },
      );
      return new EngineSession(child, near, plan);
    } finally {
      // CRIU's end lives in CRIU alone, so that its death reads as the end of the conversation here.
      closeSync(far);
    }
  }

  /** CRIU's pid in the caller's pid namespace. */
  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** True when CRIU's last request ended with an answer of its own, good or bad; false when it vanished instead. */
  get answered(): boolean {
    return this.#answered;
  }

  /** Number, in CRIU's process, of the i-th inherited descriptor. */
  inheritedFd(index: number): number {
    if (index < 0 || index >= this.#inherited)
      throw new RangeError(`descriptor ${index} of ${this.#inherited} is not inherited`);
    return socketFd + 1 + index;
  }

  async version(): Promise<{ major: number; minor: number; sublevel: number }> {
    const { version } = await this.#ask({ type: RequestType.VERSION, keep_open: true });
    if (!version) throw this.#failure('version', 'engine-garbled', 'CRIU has answered VERSION without a version');
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

  /** `criu check`: what the kernel lacks. It is no proof that a dump works. */
  async check(options: RestoreOptions): Promise<void> {
    await this.#ask({ type: RequestType.CHECK, opts: optionFields(options) });
  }

  /** Writes `cpuinfo.img` into the images directory. */
  async cpuinfoDump(options: RestoreOptions): Promise<void> {
    await this.#ask({ type: RequestType.CPUINFO_DUMP, opts: optionFields(options), keep_open: true });
  }

  /** Compares this CPU with `cpuinfo.img`; throws CriuError `cpu-incompatible` where it cannot run what was dumped there. */
  async cpuinfoCheck(options: RestoreOptions): Promise<void> {
    await this.#ask({ type: RequestType.CPUINFO_CHECK, opts: optionFields(options), keep_open: true });
  }

  /**
   * Sends the memory, the tree runs on; the next request must be PRE_DUMP or DUMP.
   * Never without `featureCheck().memTrack`: CRIU would abort after it has infected the task (dangers.md, DESIGN 2).
   */
  async preDump(features: EngineFeatures, options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    this.#requireMemTrack(features);
    await this.#converse({ type: RequestType.PRE_DUMP, opts: optionFields(options) }, options, onNotify);
  }

  /** A pre-dump that ends the session. */
  async singlePreDump(features: EngineFeatures, options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    this.#requireMemTrack(features);
    await this.#converse({ type: RequestType.SINGLE_PRE_DUMP, opts: optionFields(options) }, options, onNotify);
  }

  /** Dumps a tree; the last request of a session. */
  async dump(options: DumpOptions, onNotify: NotifyHandler): Promise<void> {
    await this.#converse({ type: RequestType.DUMP, opts: optionFields(options) }, options, onNotify);
  }

  /**
   * Dumps the calling process itself. Resolves in the process that goes on after the dump (`restored: false`), and again,
   * from the images, in the restored one (`restored: true`).
   */
  async selfDump(options: SelfDumpOptions, onNotify: NotifyHandler): Promise<{ restored: boolean }> {
    const { dump } = await this.#converse({ type: RequestType.DUMP, opts: optionFields(options) }, options, onNotify);
    return { restored: dump?.restored ?? false };
  }

  /** Restores a tree; returns the root's pid in CRIU's pid namespace. The last request of a session. */
  async restore(options: RestoreOptions, onNotify: NotifyHandler): Promise<{ pid: number }> {
    const { restore } = await this.#converse(
      { type: RequestType.RESTORE, opts: optionFields(options) },
      options,
      onNotify,
    );
    if (!restore) throw this.#failure('restore', 'engine-garbled', 'CRIU has answered RESTORE without a pid');
    return { pid: restore.pid };
  }

  /** A page server that serves once, as a child of CRIU. Its end is told by `waitPid`. */
  async pageServerChild(options: RestoreOptions): Promise<{ pid: number; port: number }> {
    const { ps } = await this.#ask({
      type: RequestType.PAGE_SERVER_CHLD,
      opts: optionFields(options),
      keep_open: true,
    });
    return { pid: ps?.pid ?? 0, port: ps?.port ?? 0 };
  }

  /** A daemon page server. The pid that CRIU 4.1-4.3 report is 0, so none is returned: prefer `pageServerChild`. */
  async pageServer(options: RestoreOptions): Promise<{ port: number }> {
    const { ps } = await this.#ask({ type: RequestType.PAGE_SERVER, opts: optionFields(options), keep_open: true });
    return { port: ps?.port ?? 0 };
  }

  /** Waits for a page-server child; returns its wait status (waitpid(2)). */
  async waitPid(pid: number): Promise<number> {
    const { status } = await this.#ask({ type: RequestType.WAIT_PID, pid });
    return status ?? 0;
  }

  /** Hangs up: CRIU rolls a dump back, kills a half-restored tree, or just leaves. */
  closeSocket(): void {
    this.#socket.close();
    this.#lost(undefined);
  }

  /** Hangs up and waits for CRIU to leave. A CRIU that does not leave is reported, never killed: it may hold a tree. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.closeSocket();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), leaveMs);
    });
    const how = await Promise.race([this.exited, late]);
    clearTimeout(timer);
    if (how !== 'late') return;
    throw new PhaulError({
      code: 'engine-stuck',
      what: `CRIU (pid ${this.pid}) has not left ${leaveMs} ms after it was told to`,
      remedy:
        'look at it with `cat /proc/PID/stack`; do not kill it while it holds a process (its sockets would stay in repair mode)',
    });
  }

  #requireMemTrack(features: EngineFeatures): void {
    if (features.memTrack) return;
    throw new PhaulError({
      code: 'no-memory-tracking',
      what: 'this kernel cannot track memory for CRIU (no soft-dirty)',
      remedy: 'use another tracker, or stop-and-copy',
    });
  }

  async #ask(request: RequestFields): Promise<ResponseFields> {
    return await this.#converse(request, {}, () => ({ success: false }));
  }

  /** Sends a request and answers notifications until the response comes. */
  async #converse(
    request: RequestFields,
    options: { logFile?: string },
    onNotify: NotifyHandler,
  ): Promise<ResponseFields> {
    const name = RequestType[request.type].toLowerCase();
    if (this.#waiting) throw new Error(`CRIU is still busy: ${name} must wait for the last request`);
    this.#logFile = options.logFile ?? null;
    this.#answered = false;
    this.#mark(name);
    let next = await this.#exchange(request);
    while (next.response.type === RequestType.NOTIFY) {
      const script = (next.response.notify?.script ?? '') as NotifyScript;
      this.#mark(script);
      const pid = next.response.notify?.pid;
      let answer: NotifyAnswer;
      try {
        answer = await onNotify({ script, pid: pid ? pid : null, fds: next.fds });
      } catch (failure) {
        // The handler's failure is the story; CRIU is told no and its answer is awaited so that the tree is released.
        await this.#exchange({ type: RequestType.NOTIFY, notify_success: false }).catch(() => undefined);
        this.#answered = this.#gone === null;
        throw failure;
      }
      this.#mark(`${script} answered`);
      const opts = answer.external ? { opts: { images_dir_fd: -1, external: [...answer.external] } } : {};
      next = await this.#exchange({ type: RequestType.NOTIFY, notify_success: answer.success, ...opts });
    }
    this.#answered = true;
    this.#mark(`${name} done`);
    if (!next.response.success) throw await this.#refusal(name, next.response);
    return next.response;
  }

  #exchange(request: RequestFields): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#gone) {
        reject(this.#gone);
        return;
      }
      this.#waiting = { resolve, reject };
      try {
        this.#socket.send(encodeRequest(request));
      } catch (cause) {
        this.#waiting = null;
        reject(cause);
      }
    });
  }

  #received(bytes: Buffer, fds: number[]): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    try {
      waiting?.resolve({ response: decodeResponse(bytes), fds });
    } catch (failure) {
      waiting?.reject(failure as Error);
    }
  }

  #lost(cause: Error | undefined): void {
    this.#gone ??= this.#failure('conversation', 'engine-gone', 'CRIU has ended without an answer', cause);
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) return;
    const gone = this.#gone;
    // Its exit tells more than the closed socket: wait for the log to be complete.
    void this.exited.then(async () => waiting.reject(await CriuError.from(gone, this.#logPath(), null)));
  }

  async #refusal(name: string, response: ResponseFields): Promise<CriuError> {
    const failure = this.#failure(name, `${name}-failed`.replace('_', '-'), `CRIU could not ${name}`);
    return await CriuError.from(failure, this.#logPath(), response.cr_errno ?? null);
  }

  #failure(request: string, code: string, what: string, cause?: Error): PhaulError {
    return new PhaulError({ code, what, remedy: `see CRIU's log of the ${request}`, cause });
  }

  #logPath(): string | null {
    return this.#logFolder === null || this.#logFile === null ? null : join(this.#logFolder, this.#logFile);
  }

  #mark(step: string): void {
    this.timeline.push({ step, at: nowMs() });
  }
}

interface Packet {
  readonly response: ResponseFields;
  readonly fds: number[];
}

/** CRIU's children (nft, ip, tar) must load the system's libraries: only CRIU itself gets the preload, by its wrapper. */
function engineEnvironment(engine: Engine): NodeJS.ProcessEnv {
  const path = process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  if (engine.preload === null) return { PATH: path };
  return engine.wrapped
    ? { PATH: path, PHAUL_CRIU_PRELOAD: engine.preload }
    : { PATH: path, LD_PRELOAD: engine.preload };
}
