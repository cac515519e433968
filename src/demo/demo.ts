/**
 * `./phaul demo`: a live TCP server with connected clients moves from one host to another. Real hosts but for the kernel
 * (src/lab), the real command, and clients that measure and verify everything from their side.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import { type ClientReport, LabClients, startServer, twentyClosedLoops } from '../lab/clients.js';
import { Lab } from '../lab/hosts.js';
import { LabAgent } from '../lab/lab-agent.js';
import type { LabHost } from '../lab/lab-host.js';
import type { MigrationEvent } from '../migration/report.js';
import { type DemoOptions, demoUsage, parseDemoOptions } from './demo-options.js';
import { type DemoFacts, ms, reportLines, violations } from './demo-report.js';
import { commandLine, leftoversOn, type MoveOrder, phaulMigrate } from './phaul-migrate.js';

const port = 7000;
const serverPid = 30_000;
/** Long enough for a few thousand replies before and after the move. */
const lookMs = 700;

/** Runs the demo; returns the exit code: 0 only if nothing at all was lost. Ctrl-C ends it and cleans up. */
export async function runDemo(args: readonly string[], print: (line: string) => void): Promise<number> {
  try {
    const options = parseDemoOptions(args);
    if (options.help) {
      print(demoUsage);
      return 0;
    }
    using interruption = new Interruption();
    await using lab = await Lab.create({ name: 'demo' });
    return await interruption.race(show(lab, options, print));
  } catch (thrown) {
    const failure = asFailure(thrown, { code: 'demo-failed', what: 'the demo failed', remedy: 'see the cause' });
    print(`\nfailed: ${failure.message} (${failure.code})\n  ${failure.remedy}`);
    if (failure.cause !== undefined) print(`  cause: ${failure.toJSON().causes.join('; ')}`);
    return failure.code === 'demo-usage' ? 2 : 1;
  }
}

async function show(lab: Lab, options: DemoOptions, print: (line: string) => void): Promise<number> {
  const began = performance.now();
  print(`Two hosts, a and b, and one for clients, isolated on this machine (${lab.id})`);
  const [a, b, client] = [await lab.addHost('a'), await lab.addHost('b'), await lab.addClient()];
  await lab.configureAgents();
  const agents = await Promise.all([LabAgent.start(a), LabAgent.start(b)]);
  try {
    const facts = await moveOnce(lab, { a, b, client }, options, print);
    print('');
    for (const line of reportLines(facts)) print(line);
    const wrong = violations(facts);
    for (const violation of wrong) print(`\nWRONG: ${violation}`);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    print(wrong.length === 0 ? `\nNothing was lost. Everything of the demo is removed again (${seconds} s).` : '');
    return wrong.length === 0 ? 0 : 1;
  } catch (error) {
    for (const agent of agents) print(`\nlog of an agent:\n${agent.log().trimEnd().split('\n').slice(-20).join('\n')}`);
    throw error;
  }
}

interface DemoHosts {
  readonly a: LabHost;
  readonly b: LabHost;
  readonly client: LabHost;
}

async function moveOnce(
  lab: Lab,
  hosts: DemoHosts,
  options: DemoOptions,
  print: (line: string) => void,
): Promise<DemoFacts> {
  const { a, b, client } = hosts;
  const { ip4 } = lab.serviceAddress();
  await lab.addAddress(a, ip4);
  const { memoryMib, connections } = options;
  const pid = await startServer(a, { address: ip4, port, memoryMib, dirtyRate: 500, pid: serverPid });
  print(`A server on host a, pid ${pid}, ${memoryMib} MiB of memory that it can verify, at ${ip4} port ${port}`);
  const order = { ...twentyClosedLoops, connections, address: ip4, port };
  const before = await observe(client, { ...order, verifyAtEnd: false }, async () => {});
  print(`${connections} clients with live connections ask without a pause, one more keeps connecting anew`);

  const move: MoveOrder = { pid, destination: 'b', addresses: [ip4] };
  const migrated: { report: DemoFacts['migration'] | null } = { report: null };
  const clients = await observe(client, order, async () => {
    print(`\na# phaul ${commandLine(move).join(' ')}`);
    migrated.report = await phaulMigrate(a, move, progress(print));
  });
  if (migrated.report === null) throw new Error('the migration has no report');
  return {
    migration: migrated.report,
    clients,
    quietMs: before.longestSilenceMs.p50,
    memoryMib,
    aliveOnSource: a.isAlive(pid),
    aliveOnDestination: b.isAlive(migrated.report.pid),
    leftovers: (await Promise.all([leftoversOn(a), leftoversOn(b)])).flat(),
    nameBefore: [...before.hostAnswers.keys()].join(' and '),
  };
}

/** What the clients see while `work` is done, and a moment before and after it. */
async function observe(
  host: LabHost,
  order: Parameters<typeof LabClients.start>[1],
  work: () => Promise<void>,
): Promise<ClientReport> {
  await using clients = await LabClients.start(host, order);
  await sleep(lookMs / 2);
  await clients.mark();
  await work();
  await sleep(lookMs);
  return await clients.finish();
}

/** One line for each phase that is over, and one for each finding and remark. */
function progress(print: (line: string) => void): (event: MigrationEvent) => void {
  let running: { phase: string; at: number } | null = null;
  return (event) => {
    if (event.kind === 'phase') {
      if (running !== null) print(`  ${running.phase.padEnd(16)} ${ms(event.at - running.at)}`);
      running = event;
    }
    if (event.kind === 'finding') print(`  ${event.finding.weight}: ${event.finding.what}`);
  };
}

/** Ctrl-C and SIGTERM as a failure, so that what was made is removed on the way out. */
class Interruption implements Disposable {
  readonly #come: Promise<never>;
  #stop: (signal: NodeJS.Signals) => void = () => {};

  constructor() {
    this.#come = new Promise((_, reject) => {
      this.#stop = (signal) => {
        reject(
          new PhaulError({
            code: 'demo-interrupted',
            what: `interrupted by ${signal}`,
            remedy: 'start it again at any time',
          }),
        );
      };
    });
    // It may come before anybody listens; `race` hears of it all the same.
    this.#come.catch(() => {});
    process.once('SIGINT', this.#stop);
    process.once('SIGTERM', this.#stop);
  }

  async race<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#come]);
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#stop);
    process.off('SIGTERM', this.#stop);
  }
}
