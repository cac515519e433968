/** A failure for people: what, where, what became of the process, what to do. */
import type { ProcessFate, SerializedFailure } from '../failure/phaul-error.js';
import { harmless } from './terminal.js';

export function describeFailure(failure: SerializedFailure): string {
  const lines = [`phaul: ${failure.what} (${failure.code})`];
  const [cause] = failure.causes;
  if (cause !== undefined && cause !== failure.what)
    lines.push(`  because: ${cause.trim().split('\n').join('\n           ')}`);
  if (failure.place !== null) {
    lines.push(`  phase:   ${failure.place.phase}, on ${failure.place.host}`);
    lines.push(`  process: ${describeFate(failure.place.fate)}`);
  }
  lines.push(`  remedy:  ${failure.remedy}`);
  return harmless(lines.join('\n'));
}

export function describeFate(fate: ProcessFate): string {
  switch (fate.kind) {
    case 'untouched':
      return 'was not touched';
    case 'running-on':
      return `runs on ${fate.host}`;
    case 'frozen-on':
      return `is frozen on ${fate.host}`;
    case 'undecided':
      return `not decided yet: ${fate.ask}`;
    case 'not-concerned':
      return 'not concerned';
  }
}
