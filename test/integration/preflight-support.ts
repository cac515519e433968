/** Small perl programs in sessions of their own, for the tests of the host and of the checks. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { treeOf } from '../../src/host/tasks.js';
import { defaultOrder, type MigrationOrder } from '../../src/migration/order.js';
import type { Finding } from '../../src/migration/ports.js';
import { inspectTree, type TreeInspection } from '../../src/preflight/inspect-tree.js';
import { parseTreeFacts, type TreeFacts } from '../../src/preflight/tree-facts.js';

export class TestFolder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'phaul-preflight-'));

  in(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A perl program; `$READY` in its text is a file that it must create when it is set up. Disposed: its tree is killed and reaped. */
export class PerlProgram implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Pids that were in the tree at any look: also those whose parent has died. */
  readonly #seen = new Set<number>();

  private constructor(child: ChildProcess) {
    if (child.pid === undefined) throw new Error('the program could not be started');
    this.child = child;
    this.pid = child.pid;
  }

  static async start(
    folder: TestFolder,
    text: string,
    options: { stdio?: StdioOptions; detached?: boolean; prefix?: readonly string[] } = {},
  ): Promise<PerlProgram> {
    const ready = folder.in(`ready-${started++}`);
    // Descriptors that the caller of the tests has leaked would be found, rightly.
    const closing = `use POSIX (); POSIX::close($_) for 3 .. 1023; ${text}`;
    const [program = 'perl', ...words] = [...(options.prefix ?? []), '/usr/bin/perl', '-e', closing];
    const child = spawn(program, words, {
      detached: options.detached ?? true,
      stdio: options.stdio ?? 'ignore',
      cwd: '/',
      env: { PATH: process.env['PATH'] ?? '', READY: ready, DIR: folder.path },
    });
    const perl = new PerlProgram(child);
    await eventually(() => existsSync(ready) || child.exitCode !== null);
    if (!existsSync(ready)) throw new Error(`the program ended with ${child.exitCode}`);
    for (const pid of treeOf(perl.pid)) perl.#seen.add(pid);
    return perl;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = this.child.exitCode !== null || this.child.signalCode !== null;
    for (const pid of treeOf(this.pid)) this.#seen.add(pid);
    const exit = gone ? null : new Promise((resolve) => this.child.once('exit', resolve));
    for (const pid of this.#seen) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Ended by itself.
      }
    }
    await exit;
  }
}

let started = 0;

/** What a program says when it is set up, and how it then does nothing. */
export const ready = 'open(my $ready, ">", $ENV{READY}) or die; close $ready;';
export const idle = `${ready} sleep 1000 while 1;`;

export async function eventually(condition: () => boolean, ms = 5000): Promise<void> {
  for (const deadline = Date.now() + ms; !condition(); ) {
    if (Date.now() > deadline) throw new Error(`nothing happened within ${ms} ms`);
    await delay(5);
  }
}

export function orderFor(pid: number, changes: Partial<MigrationOrder> = {}): MigrationOrder {
  return { ...defaultOrder, id: 'm-test', pid, ...changes };
}

export async function inspect(pid: number, changes: Partial<MigrationOrder> = {}): Promise<TreeInspection> {
  return await inspectTree(orderFor(pid, changes), 'here', AbortSignal.timeout(20_000));
}

/** Codes of the blockers, each once. */
export function blockers(findings: readonly Finding[]): string[] {
  return [...new Set(findings.filter((finding) => finding.weight === 'blocker').map((finding) => finding.code))].sort();
}

/** The facts as they would come from a host with another kernel and other pids. */
export function asFromElsewhere(inspection: TreeInspection, changes: Partial<TreeFacts> = {}): TreeFacts {
  const facts = parseTreeFacts(inspection.facts);
  return { ...facts, bootId: '11111111-1111-4111-8111-111111111111', tasks: [], ...changes };
}
