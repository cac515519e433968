/**
 * What the destination gives a copy instead of the pipes and terminals that stay on the source (`--stdio`), and the files
 * that the operator names (`--inherit-fd`). Opened before the freeze, inherited by CRIU, handed out by its key for each.
 */
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { errnoOf, messageOf, PhaulError } from '../../failure/phaul-error.js';
import { TaskHandle } from '../../host/pidfd.js';
import { identitiesOf } from '../../host/tasks.js';
import type { MigrationOrder, StdioChoice } from '../../migration/order.js';
import { addon, packageRoot } from '../../native/addon.js';
import type { StdioEnd } from '../../preflight/stdio.js';
import { parseInheritFd } from './stdio-inherit.js';

const { O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;

interface OpenedEnd {
  /** CRIU's name for what is replaced. */
  readonly key: string;
  readonly fd: number;
}

export class StdioEnds implements Disposable {
  readonly #opened: OpenedEnd[] = [];
  readonly #ends: readonly StdioEnd[];
  readonly #choice: StdioChoice;
  #created: string | null = null;

  private constructor(order: MigrationOrder, ends: readonly StdioEnd[]) {
    this.#choice = order.stdio;
    this.#ends = ends;
  }

  /** Throws `stdio-file-wrong`, `inherit-fd-wrong`. `cgroup`: where a terminal's keeper lives; null: beside the agent. */
  static async open(order: MigrationOrder, ends: readonly StdioEnd[], cgroup: string | null): Promise<StdioEnds> {
    const opened = new StdioEnds(order, ends);
    try {
      for (const end of ends) opened.#opened.push({ key: end.key, fd: await opened.#open(end, cgroup) });
      for (const word of order.engine.inheritFd) {
        const { path, key } = parseInheritFd(word);
        opened.#opened.push({ key, fd: openNamed(path) });
      }
      return opened;
    } catch (thrown) {
      opened.discard();
      throw thrown;
    }
  }

  /** In the order of `keys`. */
  get fds(): readonly number[] {
    return this.#opened.map(({ fd }) => fd);
  }

  get keys(): readonly string[] {
    return this.#opened.map(({ key }) => key);
  }

  /**
   * When the copy is complete and held: CRIU has opened a file in place of a pipe with the pipe's flags, so at its
   * beginning; from here on whatever is written goes to its end.
   */
  appendAlways(): void {
    if (this.#choice.kind !== 'file') return;
    for (const { kind, writers } of this.#ends) {
      for (const { pid, fd } of kind === 'pipe' ? writers : []) appendTo(pid, fd);
    }
  }

  /** Before the line: closes everything, and removes the file if it was not there before. */
  discard(): void {
    this[Symbol.dispose]();
    if (this.#created !== null) rmSync(this.#created, { force: true });
    this.#created = null;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#opened.splice(0)) closeSync(fd);
  }

  async #open(end: StdioEnd, cgroup: string | null): Promise<number> {
    const path = this.#choice.kind === 'file' ? this.#choice.path : '/dev/null';
    const written = end.writers.length > 0;
    if (written && this.#choice.kind === 'file') this.#makeFile(path);
    if (end.kind === 'terminal') return await openTerminal(path, cgroup);
    if (!written) return openSync('/dev/null', O_RDWR);
    return openSync(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK);
  }

  /** A file or a device; a FIFO would only begin with a reader. */
  #makeFile(path: string): void {
    try {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat === undefined) {
        closeSync(openSync(path, O_WRONLY | O_CREAT | O_NOCTTY, 0o600));
        this.#created = path;
      } else if (!stat.isFile() && !stat.isCharacterDevice()) {
        throw new Error('it is no file');
      }
    } catch (cause) {
      throw new PhaulError({
        code: 'stdio-file-wrong',
        what: `the output of the process cannot go to ${path} on this host: ${messageOf(cause)}`,
        remedy: 'name a file in a folder that exists on the destination: --stdio file:PATH',
        cause,
      });
    }
  }
}

function openNamed(path: string): number {
  for (const flags of [O_RDWR, O_RDONLY]) {
    try {
      return openSync(path, flags | O_NOCTTY | O_NONBLOCK);
    } catch (cause) {
      const readOnly = ['EACCES', 'EISDIR', 'EROFS', 'ETXTBSY'].includes(errnoOf(cause) ?? '');
      if (flags === O_RDWR && readOnly) continue;
      throw new PhaulError({
        code: 'inherit-fd-wrong',
        what: `${path} cannot be opened on this host for --inherit-fd: ${messageOf(cause)}`,
        remedy: 'name a path that exists on the destination',
        cause,
      });
    }
  }
  throw new Error('unreachable');
}

/** The slave of a terminal whose keeper appends what is written there to `path`, and ends with the last user. */
async function openTerminal(path: string, cgroup: string | null): Promise<number> {
  const enter = 'if [ -n "$1" ]; then echo 0 > "$1/cgroup.procs" || exit 125; fi; shift; exec "$@"';
  const argv = ['-c', enter, 'sh', cgroup ?? '', join(packageRoot, 'build', 'phaul-terminal'), '--output', path];
  const keeper = spawn('/bin/sh', argv, { detached: true, stdio: ['pipe', 'pipe', 'ignore'], cwd: '/' });
  keeper.unref();
  const failed = new Promise<never>((_, reject) => keeper.once('error', reject));
  try {
    const lines = createInterface({ input: keeper.stdout })[Symbol.asyncIterator]();
    const line = await Promise.race([lines.next(), failed]);
    if (line.done === true) throw new Error('it ended at once');
    return openSync(line.value, O_RDWR | O_NOCTTY);
  } catch (cause) {
    throw new PhaulError({
      code: 'no-terminal',
      what: `no terminal could be made for the process: ${messageOf(cause)}`,
      remedy: 'see whether /dev/ptmx works on the destination, and whether phaul is built there',
      cause,
    });
  } finally {
    // The end of its input tells the keeper that the terminal is open here; its output is not needed any more.
    keeper.stdin.end();
    keeper.stdout.destroy();
  }
}

function appendTo(pid: number, fd: number): void {
  const [task] = identitiesOf([pid]);
  using handle = task === undefined ? null : TaskHandle.open(task);
  if (handle === null) return;
  try {
    const copy = handle.descriptor(fd);
    try {
      addon().appendAlways(copy);
    } finally {
      closeSync(copy);
    }
  } catch (thrown) {
    // Closed by the program between the checks and the freeze.
    if (errnoOf(thrown) !== 'EBADF') throw thrown;
  }
}
