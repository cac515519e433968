/** Undoing in reverse order: what was set up last goes first, and one failure does not keep the rest from going. */
import { messageOf, PhaulError } from '../failure/phaul-error.js';

interface Undo {
  readonly what: string;
  readonly undo: () => Promise<void> | void;
}

export class UndoStack implements AsyncDisposable {
  readonly #undos: Undo[] = [];

  /** Registers how to undo what was just set up; `what` names it in a failure. */
  defer(what: string, undo: () => Promise<void> | void): void {
    this.#undos.push({ what, undo });
  }

  /** Takes a resource over: it is disposed with the rest. */
  own<T extends AsyncDisposable | Disposable>(what: string, resource: T): T {
    this.defer(what, async () => {
      if (Symbol.asyncDispose in resource) await resource[Symbol.asyncDispose]();
      else resource[Symbol.dispose]();
    });
    return resource;
  }

  /** Lets go of some: they stay as they are. */
  release(what: readonly string[]): void {
    for (let index = this.#undos.length - 1; index >= 0; index--) {
      if (what.includes(this.#undos[index]?.what ?? '')) this.#undos.splice(index, 1);
    }
  }

  /** Undoes everything; idempotent. Throws once, at the end, naming all that could not be undone. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.disposeUntil(null);
  }

  /** The same, but stops before the newest entry of this name. */
  async disposeUntil(stop: string | null): Promise<void> {
    const failed: string[] = [];
    let first: unknown;
    while (this.#undos.length > 0 && this.#undos.at(-1)?.what !== stop) {
      const next = this.#undos.pop() as Undo;
      try {
        await next.undo();
      } catch (thrown) {
        first ??= thrown;
        failed.push(`${next.what}: ${messageOf(thrown)}`);
      }
    }
    if (failed.length === 0) return;
    if (first instanceof PhaulError && first.code === 'resume-failed') throw first;
    throw new PhaulError({
      code: 'left-behind',
      what: `could not be undone: ${failed.join('; ')}`,
      remedy: 'phaul leftovers shows what is left on this host, phaul leftovers --clean removes it',
      cause: first,
    });
  }
}
