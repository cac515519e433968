/** Two hosts and clients for the options of `phaul migrate`, and programs whose output says whether they went on. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Step } from '../../src/agent/breakpoint.js';
import { type ClientOrder, LabClients, startServer } from '../../src/lab/clients.js';
import type { Finished, HostProcess } from '../../src/lab/host-process.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import type { MigrationEvent, Report } from '../../src/migration/report.js';

/** Counts on both outputs, without a fork; waits on its own pipe. */
const ticker = `i=0
exec {own}<> <(:)
while :; do
  i=$((i + 1))
  echo "out $i"
  echo "err $i" >&2
  read -r -t 0.03 -u "$own"
done
`;

/** Starts the program $3 with pid $1 in a session of its own, its three descriptors pipes to programs that stay. */
const behindPipes = `
exec >"$2/log" 2>&1 </dev/null
cd /proc/self/fd
for fd in *; do if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done
cd "$2"
exec 10> >(exec cat >>"$2/outside-out") 11> >(exec cat >>"$2/outside-err") 12< <(exec sleep 1000)
echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
exec setsid -f bash "$2/ticker.sh" >&10 2>&11 <&12 10>&- 11>&- 12<&-
`;

export interface Moved extends Finished {
  readonly events: readonly MigrationEvent[];
  readonly report: Report | null;
}

export class OptionsLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly a: LabHost;
  readonly b: LabHost;
  readonly client: LabHost;
  /** Seen by both hosts. */
  readonly folder: string;
  readonly #agents: { a: LabAgent; b: LabAgent };
  #serial = 0;

  private constructor(
    lab: Lab,
    hosts: { a: LabHost; b: LabHost; client: LabHost },
    agents: { a: LabAgent; b: LabAgent },
    folder: string,
  ) {
    this.lab = lab;
    this.a = hosts.a;
    this.b = hosts.b;
    this.client = hosts.client;
    this.#agents = agents;
    this.folder = folder;
  }

  static async create(): Promise<OptionsLab> {
    const lab = await Lab.create({ name: 'options' });
    try {
      const folder = mkdtempSync(join(tmpdir(), 'phaul-options-'));
      chmodSync(folder, 0o755);
      const hosts = { a: await lab.addHost('a'), b: await lab.addHost('b'), client: await lab.addClient() };
      await lab.configureAgents();
      const [a, b] = await Promise.all([LabAgent.start(hosts.a), LabAgent.start(hosts.b)]);
      return new OptionsLab(lab, hosts, { a, b }, folder);
    } catch (thrown) {
      await lab[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** `phaul migrate PID b --json FLAGS` on a, whatever its exit code. */
  async migrate(pid: number, flags: readonly string[] = []): Promise<Moved> {
    const finished = await this.a.phaul(['migrate', String(pid), 'b', '--json', ...flags], { timeoutMs: 60_000 });
    const events = finished.stdout
      .split('\n')
      .flatMap((line) => (line === '' ? [] : [JSON.parse(line) as MigrationEvent]));
    const last = events.at(-1);
    return { ...finished, events, report: last?.kind === 'done' ? last.report : null };
  }

  /** The same, which must succeed. */
  async move(pid: number, flags: readonly string[] = []): Promise<Report> {
    const { report, stderr, events } = await this.migrate(pid, flags);
    if (report === null) throw new Error(`not moved: ${stderr}\n${JSON.stringify(events.at(-1))}`);
    return report;
  }

  /** Starts a migration that the agent of b interrupts at `step`: it stops there until `goOn`. */
  async migrateUpTo(step: Step, pid: number, flags: readonly string[]): Promise<HostProcess> {
    const marker = this.b.outside('/run/phaul/breakpoint');
    rmSync(marker, { force: true });
    await this.goOn();
    await this.#agents.b[Symbol.asyncDispose]();
    this.#agents.b = await LabAgent.start(this.b, { PHAUL_BREAKPOINT: step });
    const command = this.a.spawn(this.a.phaulArgv(['migrate', String(pid), 'b', '--json', ...flags]));
    while (!existsSync(marker) && command.running) await new Promise((resolve) => setTimeout(resolve, 10));
    if (!command.running) throw new Error(`it ended before ${step}: ${(await command.finished).stderr}`);
    return command;
  }

  async goOn(): Promise<void> {
    // nsenter(1) stops itself with its program.
    this.#agents.b.process.child.kill('SIGCONT');
    await this.#agents.b.process.kill('SIGCONT');
  }

  async killAgentOfB(): Promise<void> {
    const killed = this.#agents.b.kill('SIGKILL');
    this.#agents.b.process.child.kill('SIGCONT');
    await killed;
  }

  async startAgentOfB(): Promise<void> {
    this.#agents.b = await LabAgent.start(this.b);
  }

  async server(clients: Partial<ClientOrder> = {}): Promise<Server> {
    this.#serial++;
    const address = this.lab.serviceAddress(this.#serial).ip4;
    const port = 7000 + this.#serial;
    await this.lab.addAddress(this.a, address);
    const pid = await startServer(this.a, {
      address,
      port,
      memoryMib: 8,
      dirtyRate: 100,
      pid: 30_000 + 100 * this.#serial,
    });
    const order = { connections: 4, mode: 'closed', thinkMs: 2, connectLoop: false, verifyAtEnd: true } as const;
    return new Server(
      this,
      { pid, address, port },
      await LabClients.start(this.client, { address, port, ...order, ...clients }),
    );
  }

  /** A program that counts into pipes or on a terminal that stay on a, or into files. */
  async ticker(where: 'pipes' | 'terminal' | 'files'): Promise<Ticker> {
    this.#serial++;
    const folder = join(this.folder, String(this.#serial));
    mkdirSync(folder, { mode: 0o755 });
    writeFileSync(join(folder, 'ticker.sh'), ticker);
    const pid = 30_000 + 100 * this.#serial;
    if (where === 'pipes') {
      await this.a.run(['bash', '-c', behindPipes, 'bash', String(pid), folder], { stdio: 'ignore' });
      return new Ticker(this, pid, null, folder);
    }
    if (where === 'files') {
      const order = { pid, folder, output: join(folder, 'first') };
      return new Ticker(this, await this.a.startAtHighPid(['bash', join(folder, 'ticker.sh')], order), null, folder);
    }
    const argv = ['script', '-qfc', `exec bash ${join(folder, 'ticker.sh')}`, join(folder, 'outside-out')];
    const shown = await this.a.startAtHighPid(argv, { pid, folder });
    const children = this.a.outside(`/proc/${shown}/task/${shown}/children`);
    while (readFileSync(children, 'utf8') === '') await new Promise((resolve) => setTimeout(resolve, 10));
    return new Ticker(this, Number(readFileSync(children, 'utf8').trim()), shown, folder);
  }

  /** Kills a process on both hosts. */
  async kill(pid: number): Promise<void> {
    for (const host of [this.a, this.b]) await host.run(['kill', '-9', String(pid)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goOn();
    for (const agent of [this.#agents.a, this.#agents.b]) await agent[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A server on a with clients. Disposed: killed, wherever it is. */
export class Server implements AsyncDisposable {
  readonly pid: number;
  readonly address: string;
  readonly port: number;
  readonly clients: LabClients;
  readonly #lab: OptionsLab;

  constructor(lab: OptionsLab, facts: { pid: number; address: string; port: number }, clients: LabClients) {
    this.#lab = lab;
    this.pid = facts.pid;
    this.address = facts.address;
    this.port = facts.port;
    this.clients = clients;
  }

  get move(): readonly string[] {
    return ['--move-address', this.address];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.clients[Symbol.asyncDispose]();
    await this.#lab.kill(this.pid);
  }
}

/** Disposed: killed, wherever it is. */
export class Ticker implements AsyncDisposable {
  readonly pid: number;
  readonly folder: string;
  readonly #lab: OptionsLab;
  readonly #shownBy: number | null;

  constructor(lab: OptionsLab, pid: number, shownBy: number | null, folder: string) {
    this.#lab = lab;
    this.pid = pid;
    this.#shownBy = shownBy;
    this.folder = folder;
  }

  /** Numbers that came after `word` in a file, in their order. */
  numbers(file: string, word: 'out' | 'err'): number[] {
    const path = file.startsWith('/') ? file : join(this.folder, file);
    if (!existsSync(path)) return [];
    return [...readFileSync(path, 'utf8').matchAll(new RegExp(`^${word} (\\d+)\\r?$`, 'gm'))].map((match) =>
      Number(match[1]),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab.kill(this.pid);
    if (this.#shownBy !== null) await this.#lab.a.run(['kill', '-9', String(this.#shownBy)]);
  }
}
