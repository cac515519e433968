/** Version of the program, and the protocol number that two of them can speak. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PhaulError } from '../../failure/phaul-error.js';
import { packageRoot } from '../../native/addon.js';

let known: string | null = null;

/** `version` of package.json. */
export function programVersion(): string {
  known ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version;
  return known;
}

/** Highest common protocol. Throws `protocol-mismatch` with both lists when there is none. */
export function commonProtocol(ours: readonly number[], theirs: readonly number[], host: string): number {
  const common = ours.filter((number) => number > 0 && theirs.includes(number));
  if (common.length > 0) return Math.max(...common);
  throw new PhaulError({
    code: 'protocol-mismatch',
    what: `no protocol in common: ${host} speaks ${ours.join(', ')}, the caller ${theirs.join(', ') || 'none'}`,
    remedy: 'install the same version of phaul on both hosts',
  });
}
