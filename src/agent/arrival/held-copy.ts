/**
 * The destination's copy: restored up to `post-restore` and held there, then let go or killed.
 *
 * `post-restore` is the last moment at which CRIU honours a refusal by killing the tasks; behind it, at `pre-resume`,
 * a refusal is ignored and they run (measured, CRIU 4.2). So the hold is there and nowhere else.
 */
import type { RestoreOptions } from '../../criu/options.js';
import type { EngineSession } from '../../criu/session.js';
import { PhaulError } from '../../failure/phaul-error.js';
import type { Lifetime } from '../../migration/lifetime.js';
import { deferred } from '../deferred.js';

/** What happens on the way out of the hold, in this order. */
export interface LettingGo {
  /** Synchronous, before CRIU is answered: the address must be open before the sockets leave repair mode. */
  openNetwork(): void;
  /** At `pre-resume`: sockets are live, tasks still stopped. */
  beforeResume(): void;
}

export class HeldCopy {
  readonly #session: EngineSession;
  readonly #held = deferred<void>();
  readonly #decision = deferred<boolean>();
  readonly #response: Promise<number>;
  #lettingGo: LettingGo | null = null;
  #failure: Error | null = null;

  constructor(session: EngineSession, options: RestoreOptions) {
    this.#session = session;
    this.#response = session
      .restore(options, async ({ script }) => {
        if (script === 'post-restore') {
          this.#held.resolve();
          return { success: await this.#decision.promise };
        }
        if (script === 'pre-resume') this.#lettingGo?.beforeResume();
        return { success: true };
      })
      .then((response) => response.pid);
    this.#response.catch((failure: unknown) => {
      this.#failure = failure instanceof Error ? failure : new Error(String(failure));
      this.#held.reject(failure);
    });
  }

  /** Resolves when the copy is complete and held; rejects with CRIU's failure. */
  async held(life: Lifetime): Promise<void> {
    await life.race(this.#held.promise);
  }

  /** The same, whatever may end the migration: for use behind the line. */
  get isHeld(): Promise<void> {
    return this.#held.promise;
  }

  /** False: CRIU was never told to let it go, so whatever is there of it does not run. */
  get wasLetGo(): boolean {
    return this.#lettingGo !== null;
  }

  /** Behind the line only. Returns the root's pid when the copy runs. */
  async letGo(how: LettingGo): Promise<number> {
    await this.#held.promise;
    // CRIU has died in the hold: nothing may be opened for a copy that never gets its sockets.
    if (this.#failure !== null) throw this.#failure;
    how.openNetwork();
    this.#lettingGo = how;
    this.#decision.resolve(true);
    return await this.#response;
  }

  /** Before the line only: CRIU kills the half-built tasks and is gone when this returns. */
  async kill(): Promise<void> {
    this.#decision.resolve(false);
    // Bounded: one that waits in the middle of its restore does not see that we have hung up, and is killed.
    await this.#session[Symbol.asyncDispose]();
    await this.#response.catch((failure: unknown) => {
      if (!(failure instanceof PhaulError)) throw failure;
    });
  }
}
