/** The command line as a program, against an agent that listens in this test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { OperatorDuties, Tell } from '../../src/agent/duties.js';
import { PhaulError, type SerializedFailure } from '../../src/failure/phaul-error.js';
import type { Report } from '../../src/migration/report.js';
import { packageRoot } from '../../src/native/addon.js';
import { agent, config, duties, Folder } from './control-support.js';

const program = join(packageRoot, 'dist', 'src', 'cli', 'main.js');
const missing = existsSync(program) ? null : 'phaul is not built';

interface Run {
  readonly child: ChildProcess;
  readonly output: { stdout: string; stderr: string };
  readonly ended: Promise<number | null>;
}

function phaul(folder: Folder, ...args: string[]): Run {
  const env = { ...process.env, PHAUL_RUN_DIR: join(folder.path, 'run-a'), PHAUL_STATE_DIR: folder.path };
  const child = spawn(process.execPath, [program, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (bytes: Buffer) => {
    output.stdout += bytes.toString();
  });
  child.stderr.on('data', (bytes: Buffer) => {
    output.stderr += bytes.toString();
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  return { child, output, ended };
}

const report: Report = {
  id: 'm1',
  outcome: 'moved',
  source: 'a',
  destination: 'b',
  pid: 77,
  phases: [{ phase: 'checking', ms: 12.3 }],
  frozenMs: 45.6,
  bytes: 2 ** 20,
  images: 20,
  replayedPackets: 3,
  findings: [],
  remarks: ['one thing'],
  timeline: { source: [], destination: [] },
  imagesFolder: null,
};

/** A migration that tells `started` and then what the test lets it. */
function slowMigration() {
  let tellMore: Tell = () => undefined;
  let end: () => void = () => undefined;
  const cancelled: string[] = [];
  const operator: Partial<OperatorDuties> = {
    migrate: async (order, destination, tell) => {
      tellMore = tell;
      tell({ kind: 'started', id: order.id, source: 'a', destination });
      await new Promise<void>((resolve) => {
        end = resolve;
      });
    },
    cancel: async (id) => void cancelled.push(id),
  };
  return { operator, cancelled, tell: (...events: Parameters<Tell>) => tellMore(...events), end: () => end() };
}

describe('phaul', () => {
  it('migrate prints phases and the report, and ends with 0', async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const slow = slowMigration();
    await using _agent = await agent(config(folder.path, { name: 'a' }), duties('a', slow));
    const run = phaul(folder, 'migrate', '77', 'b');
    await expect.poll(() => run.output.stderr, { timeout: 10_000 }).toContain('a -> b');
    slow.tell({ kind: 'phase', phase: 'checking', at: 1000 });
    slow.tell({ kind: 'phase', phase: 'moved', at: 1250 });
    slow.tell({ kind: 'done', report });
    slow.end();
    expect(await run.ended).toBe(0);
    expect(run.output.stderr).toContain('0.250 s  moved');
    expect(run.output.stdout).toContain('pid 77 runs on b now');
    expect(run.output.stdout).toContain('frozen for   45.6 ms');
    expect(run.output.stdout).toContain('1.0 MiB in 20 images');
  });

  it('migrate --json prints nothing but JSON lines on stdout, whatever happens', async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const failure: SerializedFailure = new PhaulError(
      { code: 'criu-dump-failed', what: 'no', remedy: 'log' },
      { phase: 'freezing', host: 'a', fate: { kind: 'running-on', host: 'a' } },
    ).toJSON();
    const operator: Partial<OperatorDuties> = {
      migrate: async (order, destination, tell) => {
        if (order.pid === 1) throw new PhaulError({ code: 'already-moving', what: 'busy', remedy: 'wait' });
        tell({ kind: 'started', id: order.id, source: 'a', destination });
        tell({ kind: 'failed', failure });
      },
    };
    await using _agent = await agent(config(folder.path, { name: 'a' }), duties('a', { operator }));
    for (const pid of ['77', '1']) {
      const run = phaul(folder, 'migrate', pid, 'b', '--json');
      expect(await run.ended).toBe(1);
      const lines = run.output.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { kind: string });
      expect(lines.at(-1)?.kind).toBe('failed');
    }
  });

  it('danger 8: Ctrl-C asks to cancel and waits; a second one leaves; a killed CLI changes nothing', async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const slow = slowMigration();
    await using _agent = await agent(config(folder.path, { name: 'a' }), duties('a', slow));
    const run = phaul(folder, 'migrate', '77', 'b', '--id', 'm5');
    await expect.poll(() => run.output.stderr, { timeout: 10_000 }).toContain('m5: a -> b');
    run.child.kill('SIGINT');
    await expect.poll(() => slow.cancelled, { timeout: 5000 }).toEqual(['m5']);
    expect(run.child.exitCode).toBeNull();
    run.child.kill('SIGINT');
    expect(await run.ended).toBe(130);
    expect(run.output.stderr).toContain('phaul status m5 --watch');
    slow.end();

    const killed = phaul(folder, 'migrate', '77', 'b', '--id', 'm6');
    await expect.poll(() => killed.output.stderr, { timeout: 10_000 }).toContain('m6: a -> b');
    killed.child.kill('SIGKILL');
    await killed.ended;
    slow.tell({ kind: 'phase', phase: 'moved', at: 1 });
    expect(slow.cancelled).toEqual(['m5']);
    slow.end();
  });

  it('an agent that dies while it is watched leaves the outcome undecided: 5', async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const slow = slowMigration();
    const run = await (async () => {
      await using _agent = await agent(config(folder.path, { name: 'a' }), duties('a', slow));
      const started = phaul(folder, 'migrate', '77', 'b', '--id', 'm5');
      await expect.poll(() => started.output.stderr, { timeout: 10_000 }).toContain('m5: a -> b');
      return started;
    })();
    expect(await run.ended).toBe(5);
    expect(run.output.stderr).toContain('phaul recover m5');
    slow.end();
  });

  it('asks, prints and ends with the documented codes', async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const operator: Partial<OperatorDuties> = {
      status: async (id) =>
        id === 'nope'
          ? []
          : [{ id: 'm1', role: 'source', peer: 'b', pid: 7, phase: 'moved', since: 0, open: false, note: '' }],
      recover: async () => [{ id: 'm1', did: 'the source does not answer', settled: false }],
      leftovers: async (clean) => [
        { kind: 'nft-table', what: 'inet phaul-m1', migration: 'm1', cleaned: clean, note: '' },
      ],
    };
    await using _agent = await agent(config(folder.path, { name: 'a' }), duties('a', { operator }));
    const expected: [number, string, string[]][] = [
      [0, 'm1  source', ['status']],
      [1, '', ['status', 'nope']],
      [2, '', ['status', '--watch']],
      [2, '', ['migrate', 'x', 'b']],
      [2, '', ['frobnicate']],
      [5, 'does not answer', ['recover', 'm1']],
      [0, 'there', ['leftovers']],
      [0, 'removed', ['leftovers', '--clean']],
      [0, 'asked to stop', ['cancel', 'm1']],
      [0, 'Exit codes:', ['--help']],
      [0, '', ['agent', '--daemon']],
      [3, '', ['status', '--agent', '127.0.0.1:1']],
      [6, '', ['status', '--agent', `unix:${folder.path}/nobody`]],
    ];
    for (const [code, text, args] of expected) {
      const run = phaul(folder, ...args);
      expect([args, await run.ended, run.output.stderr]).toEqual([args, code, expect.anything()]);
      expect(run.output.stdout).toContain(text);
    }
  }, 30_000);
});
