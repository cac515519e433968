/** Names that a migration may have left beside files of its tree, on file systems that both hosts may share. */
import { readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf } from '../../failure/phaul-error.js';
import type { OpenedRecord } from '../../migration/journal.js';
import { parseTreeFacts, type TreeFacts } from '../../preflight/tree-facts.js';
import { setAsideName } from '../arrival/set-aside.js';
import { parseLandingRequest } from '../control/order-schema.js';
import { parseTravellingFacts } from '../travelling-facts.js';

export interface LeftName {
  readonly kind: 'link-remap' | 'set-aside';
  readonly path: string;
  /** Of a settled migration only. */
  readonly remove: () => void;
}

export function namesOf(opened: OpenedRecord): LeftName[] {
  const facts = factsOf(opened);
  if (facts === null) return [];
  const sockets = facts.unixPaths.flatMap(({ path }): LeftName[] => {
    const spare = setAsideName(opened.id, path);
    if (!namesIn(dirname(path)).includes(spare)) return [];
    const aside = join(dirname(path), spare);
    // Where its path is free again, it is the socket's own; else the copy has it.
    const remove = (): void =>
      namesIn(dirname(path)).includes(path.slice(dirname(path).length + 1)) ? rmSync(aside) : renameSync(aside, path);
    return [{ kind: 'set-aside', path: aside, remove }];
  });
  const remaps = new Set(facts.linkRemaps.map((path) => dirname(path)));
  const links = [...remaps].flatMap((folder) =>
    namesIn(folder)
      .filter((name) => /^link_remap\.\d+$/.test(name) || name.startsWith(setAsideName(opened.id, 'link_remap.')))
      .map(
        (name): LeftName => ({
          kind: 'link-remap',
          path: join(folder, name),
          remove: () => rmSync(join(folder, name)),
        }),
      ),
  );
  return [...sockets, ...links];
}

/** Null for a journal without facts that can be read: one of another version. */
function factsOf(opened: OpenedRecord): TreeFacts | null {
  try {
    return parseTreeFacts(parseTravellingFacts(parseLandingRequest(JSON.stringify(opened.request)).treeFacts).tree);
  } catch {
    // Whatever it has left has to be found by other means.
    return null;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (thrown) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errnoOf(thrown) ?? '')) return [];
    throw thrown;
  }
}
