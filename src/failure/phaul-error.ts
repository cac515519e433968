/**
 * The one error type that crosses module and host borders.
 *
 * A module that fails knows *what* went wrong and the remedy; the migration adds *where* (phase, host)
 * and *what became of the process*. Callers match on `code`, never on the message.
 */

/** Where the process is after a failure, from the operator's point of view. */
export type ProcessFate =
  | { readonly kind: 'untouched' }
  | { readonly kind: 'running-on'; readonly host: string }
  | { readonly kind: 'frozen-on'; readonly host: string }
  | { readonly kind: 'undecided'; readonly ask: string }
  | { readonly kind: 'not-concerned' };

/** What a failing module must say: a stable code, the plain fact, and what to do next. */
export interface FailureFacts {
  /** Stable, kebab-case, e.g. `pid-not-found`. */
  readonly code: string;
  /** One sentence: what happened. */
  readonly what: string;
  /** One sentence: what to do next. */
  readonly remedy: string;
  readonly cause?: unknown;
}

/** Where a failure happened; added by whoever knows it. */
export interface FailurePlace {
  readonly phase: string;
  readonly host: string;
  readonly fate: ProcessFate;
}

export class PhaulError extends Error {
  readonly code: string;
  readonly remedy: string;
  readonly place: FailurePlace | null;

  constructor(facts: FailureFacts, place: FailurePlace | null = null) {
    super(facts.what, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.code = facts.code;
    this.remedy = facts.remedy;
    this.place = place;
  }

  /** The same failure with its place; a place that is already known is kept, its fate is updated. */
  at(place: FailurePlace): PhaulError {
    const known = this.place === null ? place : { ...this.place, fate: place.fate };
    return new PhaulError({ code: this.code, what: this.message, remedy: this.remedy, cause: this.cause }, known);
  }

  toJSON(): SerializedFailure {
    return {
      code: this.code,
      what: this.message,
      remedy: this.remedy,
      place: this.place,
      causes: causeChain(this.cause),
    };
  }

  static fromJSON(serialized: SerializedFailure): PhaulError {
    const cause = serialized.causes.length > 0 ? new Error(serialized.causes.join('; ')) : undefined;
    return new PhaulError(
      { code: serialized.code, what: serialized.what, remedy: serialized.remedy, cause },
      serialized.place,
    );
  }
}

/** A failure as it travels between hosts, into journals and to `--json`. */
export interface SerializedFailure {
  readonly code: string;
  readonly what: string;
  readonly remedy: string;
  readonly place: FailurePlace | null;
  readonly causes: readonly string[];
}

/** Turns anything thrown into a PhaulError; a PhaulError stays itself. */
export function asFailure(thrown: unknown, otherwise: FailureFacts): PhaulError {
  if (thrown instanceof PhaulError) return thrown;
  return new PhaulError({ ...otherwise, cause: thrown });
}

/** Message of anything thrown, for logs and causes. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** `errno` name (`ENOENT`) of a Node or addon error, or null. */
export function errnoOf(thrown: unknown): string | null {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return null;
  return typeof thrown.code === 'string' ? thrown.code : null;
}

function causeChain(cause: unknown): string[] {
  const chain: string[] = [];
  for (let next = cause; next !== undefined && next !== null && chain.length < 8; ) {
    chain.push(messageOf(next));
    next = next instanceof Error ? next.cause : undefined;
  }
  return chain;
}
