/**
 * Names in the destination's file systems that a restore takes away, kept under a second name beside them: the path of a
 * unix socket, which the restore unlinks and binds again (dangers.md 44), and `link_remap.N`, which it unlinks, so that it
 * could not be repeated. With a shared file system these are the source's own, and it may have to go on with them.
 *
 * The second names are made from the migration's id, so that recovery finds them from its journal alone.
 */
import { linkSync, lstatSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoOf } from '../../failure/phaul-error.js';
import { linkRemapsIn } from '../../images/link-remaps.js';
import { parseTreeFacts } from '../../preflight/tree-facts.js';
import { parseTravellingFacts } from '../travelling-facts.js';

interface SetAsideRequest {
  readonly order: { readonly id: string };
  readonly treeFacts: string;
}

export class SetAside {
  readonly #id: string;
  readonly #sockets: readonly string[];
  readonly #imagesFolder: string;
  /** Sockets of which there was none before the restore: an abort removes the copy's. */
  readonly #absent = new Set<string>();

  constructor(request: SetAsideRequest, imagesFolder: string) {
    this.#id = request.order.id;
    this.#sockets = parseTreeFacts(parseTravellingFacts(request.treeFacts).tree).unixPaths.map(({ path }) => path);
    this.#imagesFolder = imagesFolder;
  }

  /** Before each restore. Keeps what the first attempt has found; gives a repeated one its names again. */
  take(): void {
    for (const path of this.#sockets) {
      if (exists(this.#spare(path)) || this.#absent.has(path)) continue;
      // Renamed, not linked: to a kernel below both hosts a socket whose own name was unlinked has none, whatever other
      // names lead to it, and the next dump would lose its path.
      if (isSocket(path)) renameSync(path, this.#spare(path));
      else this.#absent.add(path);
    }
    for (const path of linkRemapsIn(this.#imagesFolder)) {
      linkOnce(path, this.#spare(path));
      linkOnce(this.#spare(path), path);
    }
  }

  /** Before the line, when the copy is dead: the sockets get their paths back. Idempotent. */
  putBack(): void {
    for (const path of this.#sockets) {
      const spare = this.#spare(path);
      if (exists(spare)) {
        renameSync(spare, path);
      } else if (this.#absent.has(path) && isSocket(path)) {
        rmSync(path, { force: true });
      }
    }
    for (const path of linkRemapsIn(this.#imagesFolder)) rmSync(this.#spare(path), { force: true });
  }

  /** The copy runs: the second names go, and `link_remap.N` with them. Idempotent. */
  discard(): void {
    for (const path of this.#sockets) rmSync(this.#spare(path), { force: true });
    for (const path of linkRemapsIn(this.#imagesFolder)) {
      rmSync(this.#spare(path), { force: true });
      rmSync(path, { force: true });
    }
  }

  #spare(path: string): string {
    return join(dirname(path), setAsideName(this.#id, basename(path)));
  }
}

/** The second name of `path`, beside it. */
export function setAsideName(id: string, path: string): string {
  return `.phaul-${id}-${basename(path)}`;
}

/** Gives `from` a second name, unless it has it or there is no `from`. */
function linkOnce(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (thrown) {
    if (errnoOf(thrown) === 'EEXIST' || errnoOf(thrown) === 'ENOENT') return;
    throw thrown;
  }
}

function isSocket(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
