/**
 * `npm run bench:migrate [-- --quick]`: the stall that 20 closed-loop clients of a small server see, split into its steps,
 * beside a plain script that does the same with the criu command line, in the same run on the same hosts.
 */
import { join } from 'node:path';
import { findEngine } from '../../src/criu/engine.js';
import { phaulMigrate } from '../../src/demo/phaul-migrate.js';
import { LabClients, startServer, twentyClosedLoops } from '../../src/lab/clients.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import type { Report } from '../../src/migration/report.js';
import { packageRoot } from '../../src/native/addon.js';
import { median, print, printSteps, table } from './table.js';

const quick = process.argv.includes('--quick');
const runs = quick ? 4 : 12;
const scriptRuns = quick ? 3 : 8;
const port = 7000;
const lookMs = 400;

interface Move {
  readonly stallMs: number;
  readonly worstMs: number;
  readonly report: Report | null;
}

const engine = await findEngine(null);

const small = await bench(4, runs);
const large = await bench(32, runs);
const script = await bench(32, scriptRuns, byScript);
const open = await bench(32, quick ? 2 : 6, byPhaul, { mode: 'open', thinkMs: 50 });
// An open loop mends a dropped packet by its next one; who thinks before it asks again would wait 200 ms (dangers.md 39).
const thinking = await bench(32, quick ? 2 : 6, byPhaul, { mode: 'closed', thinkMs: 50 });

print(`\nStall seen by 20 clients, ms (median of ${runs} moves to and fro)\n`);
table(
  ['', 'p50', 'max', 'moves'],
  [
    row('phaul, 4 MiB', small),
    row('phaul, 32 MiB', large),
    row('plain script, 32 MiB', script),
    row('phaul, 32 MiB, open loop (50 ms)', open),
    row('phaul, 32 MiB, 50 ms of think time', thinking),
  ],
);
print('\nWhere each millisecond goes (32 MiB, median over the moves, ms since the step before)\n');
printSteps(large.map((move) => move.report).filter((report) => report !== null));

const reports = large.flatMap((move) => (move.report === null ? [] : [{ move, report: move.report }]));
const orchestration = reports.map(({ move, report }) => move.stallMs - criuMs(report));
process.stdout.write(
  `${JSON.stringify({
    stall_ms_p50: p50(large),
    stall_4mib_ms_p50: p50(small),
    stall_ms_max: Math.max(...large.map((move) => move.worstMs)),
    script_stall_ms_p50: p50(script),
    open_loop_stall_ms_p50: p50(open),
    think_50ms_stall_ms_p50: p50(thinking),
    orchestration_ms_p50: Number(median(orchestration).toFixed(1)),
    moves: large.length,
  })}\n`,
);

/**
 * Moves a fresh server to and fro, on hosts of its own; every move under clients of its own. None of them keeps
 * connecting: the plain script cannot dump a server with a connection that is not accepted yet.
 */
async function bench(
  memoryMib: number,
  count: number,
  move: (from: LabHost, to: LabHost, pid: number, address: string) => Promise<Report | null> = byPhaul,
  mode: { mode: 'closed' | 'open'; thinkMs: number } = { mode: 'closed', thinkMs: 0 },
): Promise<Move[]> {
  await using lab = await Lab.create({ name: 'bench' });
  const [a, b, client] = [await lab.addHost('a'), await lab.addHost('b'), await lab.addClient()];
  await lab.configureAgents();
  await using _agentA = await LabAgent.start(a);
  await using _agentB = await LabAgent.start(b);
  const { ip4: address } = lab.serviceAddress();
  await lab.addAddress(a, address);
  const pid = await startServer(a, { address, port, memoryMib, dirtyRate: 500, pid: 30_000 });
  const moves: Move[] = [];
  let [from, to] = [a, b];
  for (let run = 0; run < count; run++) {
    await using clients = await LabClients.start(client, {
      ...twentyClosedLoops,
      ...mode,
      address,
      port,
      connectLoop: false,
      verifyAtEnd: true,
    });
    await new Promise((resolve) => setTimeout(resolve, lookMs));
    await clients.mark();
    const report = await move(from, to, pid, address);
    await new Promise((resolve) => setTimeout(resolve, lookMs));
    const seen = await clients.finish();
    if (seen.lost + seen.errors + seen.corrupt + (seen.badPages ?? 1) > 0)
      throw new Error(`a move did harm: ${JSON.stringify(seen)}`);
    moves.push({ stallMs: seen.longestSilenceMs.p50, worstMs: seen.longestSilenceMs.max, report });
    [from, to] = [to, from];
  }
  return moves;
}

async function byPhaul(from: LabHost, to: LabHost, pid: number, address: string): Promise<Report> {
  return await phaulMigrate(from, { pid, destination: to.name, addresses: [address] }, () => {});
}

async function byScript(from: LabHost, to: LabHost, pid: number, address: string): Promise<null> {
  const { runCommand } = await import('../../src/host/command.js');
  const script = join(packageRoot, 'test', 'bench', 'plain-script.sh');
  const words = [String(from.initPid), String(to.initPid), String(pid), address, engine.path, '/run/phaul-bench'];
  await runCommand(['sh', script, ...words], { input: null, timeoutMs: 60_000, signal: AbortSignal.timeout(60_000) });
  return null;
}

/** What the two criu processes needed themselves: freeze to `post-dump`, RESTORE to `post-restore`, and the way out of it. */
function criuMs(report: Report): number {
  const { source, destination } = report.timeline;
  return (
    span(source, 'freeze', 'dumped') +
    span(destination, 'verified', 'held') +
    span(destination, 'network open', 'running')
  );
}

function span(steps: Report['timeline']['source'], from: string, to: string): number {
  const at = (step: string) => steps.find((each) => each.step === step)?.at ?? Number.NaN;
  return at(to) - at(from);
}

function p50(moves: readonly Move[]): number {
  return Number(median(moves.map((move) => move.stallMs)).toFixed(1));
}

function row(name: string, moves: readonly Move[]): string[] {
  return [name, p50(moves).toFixed(1), Math.max(...moves.map((move) => move.worstMs)).toFixed(1), String(moves.length)];
}
