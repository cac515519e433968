/**
 * The janitor of a migration: a process of its own that outlives the agent and, when the agent dies, does what the journal
 * and the tasks say (DESIGN 2). It learns of the agent's death by the end of a pipe, whatever killed it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PhaulError } from '../../failure/phaul-error.js';
import { packageRoot } from '../../native/addon.js';

/** What the agent says when nothing is left to do; anything else at the end of the pipe means that it has died. */
export const farewell = 'settled';
const startMs = 10_000;
const leaveMs = 5000;

export class JanitorLink implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
    // A janitor that has died cannot hear anything, and need not; without a listener EPIPE would end the agent.
    child.stdin?.on('error', () => undefined);
  }

  /**
   * Starts the janitor and waits until it watches. `cgroup` is one outside the agent's, or the janitor dies with the
   * agent's unit (dangers.md 10); null without a writable cgroup v2.
   */
  static async start(id: string, folder: string, cgroup: string | null): Promise<JanitorLink> {
    const log = openSync(join(folder, 'janitor.log'), 'a', 0o600);
    try {
      const main = join(packageRoot, 'dist', 'src', 'cli', 'main.js');
      const child = spawn(process.execPath, [main, 'janitor', id], {
        // Own session: the terminal's Ctrl-C is not for it.
        detached: true,
        stdio: ['pipe', 'pipe', log],
        cwd: '/',
      });
      const started = await Promise.race([
        once(child.stdout as NonNullable<typeof child.stdout>, 'data').then(() => true),
        once(child, 'exit').then(() => false),
        new Promise<boolean>((resolve) => setTimeout(() => resolve(false), startMs).unref()),
      ]);
      if (!started || child.pid === undefined) {
        child.kill('SIGKILL');
        throw new PhaulError({
          code: 'no-janitor',
          what: 'the janitor process did not start',
          remedy: `see ${join(folder, 'janitor.log')}`,
        });
      }
      if (cgroup !== null) writeFileSync(join(cgroup, 'cgroup.procs'), String(child.pid));
      child.unref();
      return new JanitorLink(child);
    } finally {
      closeSync(log);
    }
  }

  /** The agent gives up: the janitor does what it would do at the agent's death. */
  takeOver(): void {
    this.#child.stdin?.destroy();
  }

  /** The migration is settled here: the janitor leaves without doing anything. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const left = once(this.#child, 'exit');
    this.#child.stdin?.end(farewell);
    // It has nothing left to do: one that does not hear (stopped, out of memory) must not hold the end of the migration.
    const patience = setTimeout(() => this.#child.kill('SIGKILL'), leaveMs);
    await left;
    clearTimeout(patience);
  }
}
