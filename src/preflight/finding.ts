/** How a check speaks: one sentence each for what it found, why that matters, and what to do. */
import type { Finding } from '../migration/ports.js';

export interface Words {
  readonly what: string;
  readonly why: string;
  readonly remedy: string;
}

/** The task and descriptor to blame; null where there is none. */
export interface Blamed {
  readonly pid: number | null;
  readonly fd: number | null;
}

const nobody: Blamed = { pid: null, fd: null };

export type Say = (weight: Finding['weight'], code: string, words: Words, blamed?: Blamed) => Finding;

/** Makes the findings of one host. */
export function findingsOf(host: string): Say {
  return (weight, code, words, blamed = nobody) => ({ code, weight, host, ...words, pid: blamed.pid, fd: blamed.fd });
}

/** A blocker, unless the operator has said `--force`: then a warning. */
export function unlessForced(force: boolean): Finding['weight'] {
  return force ? 'warning' : 'blocker';
}
