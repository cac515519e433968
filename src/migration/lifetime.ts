/**
 * One object for everything that can end a migration from outside: the operator's cancel, the deadline of the
 * running part, the lost heartbeat. It is passed to every long operation; `signal.reason` is always a PhaulError.
 */
import type { PhaulError } from '../failure/phaul-error.js';

export class Lifetime implements Disposable {
  readonly #controller = new AbortController();
  readonly #timers = new Map<string, NodeJS.Timeout>();

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the migration with this reason; the first reason wins. */
  end(reason: PhaulError): void {
    if (!this.signal.aborted) this.#controller.abort(reason);
  }

  /** Starts or replaces a named deadline, ms from now. */
  setDeadline(name: string, ms: number, reason: () => PhaulError): void {
    this.clearDeadline(name);
    this.#timers.set(
      name,
      setTimeout(() => this.end(reason()), ms),
    );
  }

  clearDeadline(name: string): void {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  throwIfEnded(): void {
    this.signal.throwIfAborted();
  }

  /** `work`, or the reason of the end if that comes first. The work itself must watch `signal` to stop. */
  async race<T>(work: Promise<T>): Promise<T> {
    // When the end comes first nobody waits for it any more: its failure would be an unhandled one, and end the agent.
    work.catch(() => undefined);
    this.throwIfEnded();
    let onAbort: (() => void) | undefined;
    const ended = new Promise<never>((_, reject) => {
      onAbort = () => reject(this.signal.reason as Error);
      this.signal.addEventListener('abort', onAbort, { once: true });
    });
    try {
      return await Promise.race([work, ended]);
    } finally {
      if (onAbort) this.signal.removeEventListener('abort', onAbort);
    }
  }

  [Symbol.dispose](): void {
    for (const name of [...this.#timers.keys()]) this.clearDeadline(name);
  }
}
