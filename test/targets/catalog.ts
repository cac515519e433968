/** Which targets there are, and what a tree needs from its surroundings to be movable. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/native/addon.js';

export interface Target {
  readonly name: string;
  /** First sentence of the comment at the head of its source. */
  readonly purpose: string;
  readonly program: string;
  /** True: start it by `unshare -i`; CRIU takes System V IPC only along with its namespace. */
  readonly ownIpcNamespace: boolean;
  /** True: the engine loses what this one checks; it documents that, and says so when an engine does better. */
  readonly knownLimit: boolean;
}

/** Sources that are no targets: shared parts, and the client, which must stay behind. */
const noTargets = new Set(['common', 'client', 'client-connect']);
const needIpcNamespace = new Set(['sysv-ipc', 'all-in-one']);

/** Folder of the compiled targets. */
export const targetFolder = join(packageRoot, 'build', 'targets');

/** Every target, by name; read from the sources, so that a new one is found by itself. */
export function listTargets(): Target[] {
  const sources = join(packageRoot, 'test', 'targets');
  return readdirSync(sources)
    .filter((file) => file.endsWith('.c'))
    .map((file) => file.slice(0, -2))
    .filter((name) => !noTargets.has(name))
    .sort()
    .map((name) => ({
      name,
      purpose: purposeOf(readFileSync(join(sources, `${name}.c`), 'utf8')),
      program: join(targetFolder, name),
      ownIpcNamespace: needIpcNamespace.has(name),
      knownLimit: name.startsWith('limit-'),
    }));
}

function purposeOf(source: string): string {
  const comment = /Purpose: ([\s\S]*?)(?:\.\s|\.?\s*\*\/)/.exec(source)?.[1] ?? '';
  return comment.replace(/\s*\n \* ?/g, ' ').trim();
}
