/**
 * The source's dump: CRIU works up to `post-dump` and is held there, until it is told to let the tree go on or to let it die.
 *
 * A dumping CRIU is never signalled: SIGTERM or SIGKILL would leave the tree's sockets in repair mode (dangers.md 2).
 * It is answered, or its RPC socket is closed; both make it roll back cleanly.
 */
import type { DumpOptions } from '../criu/options.js';
import type { EngineSession } from '../criu/session.js';
import type { Lifetime } from '../migration/lifetime.js';
import { deferred } from './deferred.js';

export interface DumpMoments {
  /** `pre-dump`: the tree still runs. */
  beforeFreeze(): void;
  /** `query-ext-files`: every task is frozen, no socket is in repair mode yet. Synchronous: the fence must be up when CRIU goes on. */
  frozen(): void;
  /** `post-dump`: all images are written, the tree is CRIU's. The hold begins when this returns. */
  dumped(): Promise<void>;
}

/** How CRIU ended: by its own answer, or without one (killed, crashed), which may have left repair mode on. */
export type DumpEnd = 'answered' | 'without-an-answer';

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
    // Wherever CRIU is: at its next notification it finds the socket closed and rolls back.
    const answered = await Promise.race([
      this.#end,
      new Promise<null>((resolve) => setTimeout(() => resolve(null), 2000)),
    ]);
    if (answered !== null) return answered;
    this.#session.closeSocket();
    await this.#session.exited;
    return await this.#end;
  }
}
