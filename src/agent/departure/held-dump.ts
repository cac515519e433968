/**
 * The source's dump: CRIU works up to `post-dump` and is held there, until it is told to let the tree go on or to let it die.
 *
 * A dumping CRIU is never signalled: SIGTERM or SIGKILL would leave the tree's sockets in repair mode (dangers.md 2).
 * It is answered, or its RPC socket is closed; both make it roll back cleanly.
 */
import type { DumpOptions } from '../../criu/options.js';
import type { EngineSession } from '../../criu/session.js';
import type { Lifetime } from '../../migration/lifetime.js';
import { deferred } from '../deferred.js';

export interface DumpMoments {
  /** `pre-dump`: the tree still runs. */
  beforeFreeze(): void;
  /** `query-ext-files`: every task is frozen, no socket is in repair mode yet. Synchronous: the fence must be up when CRIU goes on. */
  frozen(): void;
  /** `post-dump`: all images are written, the tree is CRIU's. The hold begins when this returns. */
  dumped(): Promise<void>;
}

/**
 * How CRIU ended: by its own answer; without one (killed, crashed), which may have left repair mode on; or not at all,
 * although it was told to.
 */
export type DumpEnd = 'answered' | 'without-an-answer' | 'stuck';

/** An answer takes CRIU back within 100 ms. ms. */
const answerMs = 2000;
/** How long a CRIU that was hung up on may take to notice and to leave. ms. */
const leaveMs = 10_000;

export class HeldDump {
  readonly #session: EngineSession;
  readonly #held = deferred<void>();
  readonly #decision = deferred<boolean>();
  readonly #end: Promise<DumpEnd>;
  #ended = false;

  constructor(session: EngineSession, options: DumpOptions, moments: DumpMoments) {
    this.#session = session;
    // In the hold the conversation waits for us, and would not tell.
    void session.exited.then(() => {
      this.#ended = true;
    });
    const response = session.dump(options, async ({ script }) => {
      if (script === 'pre-dump') moments.beforeFreeze();
      if (script === 'query-ext-files') moments.frozen();
      if (script === 'post-dump') {
        try {
          await moments.dumped();
        } catch (failure) {
          this.#held.reject(failure);
          return { success: false };
        }
        this.#held.resolve();
        return { success: await this.#decision.promise };
      }
      return { success: true };
    });
    this.#end = response.then(
      () => 'answered' as const,
      (failure: unknown) => {
        this.#held.reject(failure);
        return session.answered ? ('answered' as const) : ('without-an-answer' as const);
      },
    );
  }

  /** CRIU has no hand on the tree any more: it was killed, or has crashed. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Resolves in the hold; rejects with what kept CRIU from getting there. */
  async held(life: Lifetime): Promise<void> {
    await life.race(this.#held.promise);
  }

  /** The tree's tasks are dead or dying: CRIU may end its dump as done. */
  async finish(): Promise<DumpEnd> {
    this.#decision.resolve(true);
    return await this.#end;
  }

  /** Before the line: CRIU takes its hands off the tree and puts its sockets back to work. */
  async rollBack(): Promise<DumpEnd> {
    this.#decision.resolve(false);
    const answered = await within(this.#end, answerMs);
    if (answered !== null) return answered;
    // Wherever CRIU is: at its next notification it finds the socket closed and rolls back.
    this.#session.closeSocket();
    return (await within(this.#end, leaveMs)) ?? 'stuck';
  }

  /** For a CRIU that is stuck, with the tree standing still by other means: its death leaves sockets in repair mode. */
  async kill(): Promise<void> {
    process.kill(this.#session.pid, 'SIGKILL');
    await this.#session.exited;
  }
}

/** Null when `work` takes longer. */
async function within<T>(work: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
