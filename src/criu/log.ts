/**
 * What CRIU's log says, in plain words. `cr_errmsg` holds only the first error of a run, often a harmless one;
 * the cause is among the last errors of the log (measured, CRIU 4.2).
 */
import { open } from 'node:fs/promises';
import { errnoOf } from '../failure/phaul-error.js';
import { harmless, knownCauses, tellingWarnings } from './log-causes.js';

export interface CriuCause {
  /** Stable, kebab-case. */
  readonly code: string;
  readonly what: string;
  readonly remedy: string;
  /** The line of the log that tells it. */
  readonly line: string;
}

/** Last part of a log is enough: the cause stands near its end. Bytes. */
const tailBytes = 256 * 1024;

/** The last lines of a log; empty when there is none. */
export async function readLogTail(path: string): Promise<string[]> {
  try {
    await using file = await open(path, 'r');
    const { size } = await file.stat();
    const length = Math.min(size, tailBytes);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== '');
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return [];
    throw thrown;
  }
}

/** All errors of a log that are not harmless, without time stamps, oldest first. */
export function errorLines(lines: readonly string[]): string[] {
  return lines
    .filter((line) => /Error \(|BUG at|double free/.test(line) || matchesAny(line, tellingWarnings))
    .filter((line) => !matchesAny(line, harmless))
    .map((line) => line.replace(/^\(\d+\.\d+\)\s*(\d+: )?\s*/, '').trim());
}

/** The cause in a log, or null when it tells none. A line that no pattern knows is quoted as it is. */
export function causeIn(lines: readonly string[]): CriuCause | null {
  const verdict = lines.findLastIndex((line) => failed.test(line));
  const errors = errorLines(verdict < 0 ? lines : lines.slice(0, verdict)).filter((line) => !failed.test(line));
  // The table's order is by how much a line explains; `aborted` and the like explain least and stand last.
  for (const { pattern, code, what, remedy } of knownCauses) {
    const line = errors.findLast((candidate) => pattern.test(candidate));
    if (line !== undefined) return { code, what, remedy, line };
  }
  const last = errors.at(-1);
  return last === undefined ? null : { code: unknownCause, what: last, remedy: "see CRIU's log", line: last };
}

/** Code of a cause that no pattern knows. */
export const unknownCause = 'engine-failed';

// What comes after is the undoing.
const failed = /(Dumping|Restoring) FAILED/;

function matchesAny(line: string, patterns: readonly RegExp[]): boolean {
  return patterns.some((pattern) => pattern.test(line));
}
