/**
 * One trial of a fault lab: agents, a server, clients and an address of its own; an agent that stops where it was told to,
 * and hands on every party.
 */
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Step } from '../../src/agent/breakpoint.js';
import { type ClientOrder, LabClients, startServer } from '../../src/lab/clients.js';
import type { HostProcess } from '../../src/lab/host-process.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { type JournalState, parseJournal, stateOf } from '../../src/migration/journal.js';
import type { MigrationEvent } from '../../src/migration/report.js';
import type { FaultLab } from './fault-lab.js';
import { eventually } from './fault-wait.js';

/** Where the lab's CRIU looks for a fault to suffer, inside each host. */
export const criuFaultFile = '/run/phaul/criu-fault';

export type Side = 'a' | 'b';

export interface TrialPlan {
  /** Where an agent stops, and which. */
  readonly stop: { readonly at: Side; readonly step: Step } | null;
  readonly clients?: Partial<ClientOrder>;
  /** CRIU's own fault, for every CRIU on that side until `endFault`. */
  readonly criuFault?: { readonly at: Side; readonly number: number };
  readonly flags?: readonly string[];
}

interface TrialFacts {
  readonly id: string;
  readonly address: string;
  readonly port: number;
  readonly pid: number;
}

/** One server with clients, on its way or not. Disposed: everything of it is killed, whatever state it is in. */
export class Trial implements AsyncDisposable {
  readonly id: string;
  readonly address: string;
  readonly port: number;
  readonly pid: number;
  readonly clients: LabClients;
  readonly events: MigrationEvent[] = [];
  readonly #faults: FaultLab;
  readonly #agents: Record<Side, LabAgent | null>;
  readonly #stop: TrialPlan['stop'];
  #command: HostProcess | null = null;

  private constructor(
    faults: FaultLab,
    facts: TrialFacts,
    plan: TrialPlan,
    agents: Record<Side, LabAgent | null>,
    clients: LabClients,
  ) {
    this.#faults = faults;
    this.id = facts.id;
    this.address = facts.address;
    this.port = facts.port;
    this.pid = facts.pid;
    this.#stop = plan.stop;
    this.#agents = agents;
    this.clients = clients;
  }

  static async begin(faults: FaultLab, facts: TrialFacts, plan: TrialPlan): Promise<Trial> {
    const { a, b } = faults;
    const env = (side: Side): Record<string, string> => ({
      ...faults.agentEnvironment,
      ...(plan.stop?.at === side ? { PHAUL_BREAKPOINT: plan.stop.step } : {}),
    });
    for (const host of [a, b]) rmSync(host.outside('/run/phaul/breakpoint'), { force: true });
    const [agentA, agentB] = await Promise.all([LabAgent.start(a, env('a')), LabAgent.start(b, env('b'))]);
    const agents = { a: agentA, b: agentB };
    try {
      return await Trial.#withServer(faults, facts, plan, agents);
    } catch (thrown) {
      // The next trial must find clean hosts.
      await leave(faults, facts, agents);
      throw thrown;
    }
  }

  static async #withServer(
    faults: FaultLab,
    facts: TrialFacts,
    plan: TrialPlan,
    agents: Record<Side, LabAgent | null>,
  ): Promise<Trial> {
    const { a, client, lab } = faults;
    const { address, port } = facts;
    await lab.addAddress(a, address);
    // Its last owner may have been b.
    await client.check(['ip', 'neigh', 'flush', 'all']);
    const pid = await startServer(a, { address, port, memoryMib: 16, dirtyRate: 200, pid: facts.pid });
    const order: ClientOrder = {
      address,
      port,
      connections: 4,
      mode: 'closed',
      thinkMs: 2,
      connectLoop: false,
      verifyAtEnd: true,
      ...plan.clients,
    };
    const clients = await LabClients.start(client, order);
    if (plan.criuFault !== undefined) {
      const { at, number } = plan.criuFault;
      // Both engines are proved before the fault lies ready: the fault is for the migration.
      await a.check(a.phaulArgv(['migrate', String(pid), 'b', '--move-address', address, '--dry-run']));
      writeFileSync(faults.host(at).outside(criuFaultFile), String(number));
    }
    return new Trial(faults, { ...facts, pid }, plan, agents, clients);
  }

  agent(side: Side): LabAgent {
    const agent = this.#agents[side];
    if (agent === null) throw new Error(`the agent of ${side} is dead`);
    return agent;
  }

  /** `phaul migrate`. */
  get command(): HostProcess {
    if (this.#command === null) throw new Error('no migration was started');
    return this.#command;
  }

  /** Starts `phaul migrate` on a, and returns when the planned stop has been reached. */
  async migrate(flags: readonly string[] = []): Promise<HostProcess> {
    const { a } = this.#faults;
    const argv = [
      'migrate',
      String(this.pid),
      'b',
      '--move-address',
      this.address,
      '--id',
      this.id,
      '--json',
      ...flags,
    ];
    const command = a.spawn(a.phaulArgv(argv));
    this.#command = command;
    command.child.stdout?.on('data', (text: string) => {
      for (const line of text.split('\n'))
        if (line.startsWith('{')) this.events.push(JSON.parse(line) as MigrationEvent);
    });
    if (this.#stop !== null) await this.atStop();
    return command;
  }

  /** Waits until the agent has stopped at the planned step. */
  async atStop(): Promise<void> {
    const stop = this.#stop;
    if (stop === null) throw new Error('no stop was planned');
    const marker = this.#faults.host(stop.at).outside('/run/phaul/breakpoint');
    await eventually(`${stop.at} stops at ${stop.step}`, 20_000, async () => {
      if (existsSync(marker)) return true;
      if (this.#command !== null && !this.#command.running) {
        const { stderr } = await this.#command.finished;
        throw new Error(
          `the migration ended before ${stop.step}: ${stderr.trim()} ${JSON.stringify(this.events.at(-1))}`,
        );
      }
      return false;
    });
    // The marker is written a moment before SIGSTOP.
    const outer = await this.agent(stop.at).process.outerPid();
    await eventually('the agent is stopped', 2000, async () => / T /.test(readFileSync(`/proc/${outer}/stat`, 'utf8')));
  }

  /** Lets a stopped agent go on. */
  async goOn(side: Side | null = this.#stop?.at ?? null): Promise<void> {
    const agent = side === null ? null : this.#agents[side];
    if (agent !== null) await wake(agent);
  }

  async killAgent(side: Side): Promise<void> {
    const agent = this.agent(side);
    await agent.process.kill('SIGKILL');
    await wake(agent);
    await agent.process.finished;
    this.#agents[side] = null;
  }

  endFault(): void {
    for (const side of ['a', 'b'] as const) rmSync(this.#faults.host(side).outside(criuFaultFile), { force: true });
  }

  /** For an agent that was killed by other means. */
  async forgetAgent(side: Side): Promise<void> {
    const agent = this.agent(side);
    await wake(agent);
    await agent.process.finished;
    this.#agents[side] = null;
  }

  /** How many bytes the clients' connections have received within that time. */
  async bytesReceivedIn(ms: number): Promise<number> {
    const received = async (): Promise<number> =>
      [...(await this.#connections()).values()].reduce((sum, each) => sum + each.received, 0);
    const before = await received();
    await sleep(ms);
    return (await received()) - before;
  }

  /** How many of them stand. */
  async connectionsOfClients(): Promise<number> {
    return (await this.#connections()).size;
  }

  /** By local port. With a connect loop there is one more now and then. */
  async #connections(): Promise<Map<string, { received: number; silentMs: number }>> {
    const { client } = this.#faults;
    const list = await client.check(['ss', '-HtinO', 'state', 'established', 'dport', '=', `:${this.port}`]);
    const number = (line: string, key: string): number => Number(new RegExp(` ${key}:(\\d+)`).exec(line)?.[1] ?? 0);
    return new Map(
      list
        .split('\n')
        .filter((line) => line.trim() !== '')
        .map((line) => [
          /:(\d+)\s/.exec(line)?.[1] ?? '',
          { received: number(line, 'bytes_received'), silentMs: number(line, 'lastrcv') },
        ]),
    );
  }

  /** Starts again the agents that are dead, as systemd would. */
  async restartAgents(): Promise<void> {
    for (const side of ['a', 'b'] as const) {
      this.#agents[side] ??= await LabAgent.start(this.#faults.host(side), this.#faults.agentEnvironment);
    }
  }

  /** Pids on a host of the CRIUs at work. */
  async engines(side: Side): Promise<number[]> {
    const list = await this.#faults.host(side).check(['ps', '-eo', 'pid=,args=']);
    return list
      .split('\n')
      .filter(
        (line) => /criu.* swrk /.test(line) && Number.parseInt(line, 10) !== this.pid && !line.includes(' sh -c '),
      )
      .map((line) => Number.parseInt(line, 10));
  }

  async killEngine(side: Side): Promise<void> {
    const pids = await this.engines(side);
    if (pids.length === 0) throw new Error(`no CRIU is at work on ${side}`);
    await this.#faults.host(side).check(['kill', '-9', ...pids.map(String)]);
  }

  /** Lets the stopped agent go on, and kills a party `ms` later, by a shell that has been ready before. */
  async goOnAndKill(party: 'agent' | 'engine', side: Side, ms: number): Promise<void> {
    const pids = party === 'engine' ? await this.engines(side) : [await this.agent(side).process.pid()];
    const script = `echo ready; read word; sleep ${ms / 1000}; kill -9 ${pids.join(' ')}; true`;
    const killer = this.#faults.host(side).spawn(['sh', '-c', script], { stdio: ['pipe', 'pipe', 'pipe'] });
    if (killer.child.stdout === null || killer.child.stdin === null) throw new Error('the shell has no pipes');
    await once(killer.child.stdout, 'data');
    killer.child.stdin.end('now\n');
    await this.goOn();
    await killer.finished;
    if (party === 'agent') await this.forgetAgent(side);
  }

  journalFile(side: Side): string {
    return join(this.#faults.host(side).stateFolder, 'migrations', this.id, 'journal.jsonl');
  }

  journal(side: Side): JournalState | null {
    const path = this.journalFile(side);
    return existsSync(path) ? stateOf(parseJournal(readFileSync(path, 'utf8'))) : null;
  }

  /** Waits until both journals are closed (a host that has none has nothing to close). */
  async settled(ms = 45_000): Promise<void> {
    await eventually(
      'both journals are closed',
      ms,
      async () =>
        (['a', 'b'] as const).every(
          (side) => (this.journal(side)?.closed ?? null) !== null || this.journal(side) === null,
        ),
      () => JSON.stringify({ a: this.journal('a'), b: this.journal('b') }, omitRequest),
    );
  }

  /** Waits until the journal of that side says so. */
  async journalSays(side: Side, what: string, isSo: (state: JournalState) => boolean): Promise<void> {
    const holds = async (): Promise<boolean> => {
      const state = this.journal(side);
      return state !== null && isSo(state);
    };
    await eventually(`the journal of ${side} says: ${what}`, 20_000, holds);
  }

  /** Kills the janitor of this migration on that side; nobody is left then to act there. */
  async killJanitor(side: Side): Promise<void> {
    const list = await this.#faults.host(side).check(['ps', '-eo', 'pid=,args=']);
    const janitors = list.split('\n').filter((line) => line.trimEnd().endsWith(`janitor ${this.id}`));
    if (janitors.length === 0) throw new Error(`no janitor on ${side}`);
    await this.#faults.host(side).check(['kill', '-9', ...janitors.map((line) => String(Number.parseInt(line, 10)))]);
  }

  /** Start time of the process on that side in clock ticks: the same means that it is the very same copy. */
  startTime(side: Side): number {
    const stat = readFileSync(this.#faults.host(side).outside(`/proc/${this.pid}/stat`), 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  }

  /** `phaul recover` on both hosts. */
  async recover(): Promise<void> {
    for (const side of ['a', 'b'] as const) await this.#faults.host(side).phaul(['recover']);
  }

  isAliveOn(side: Side): boolean {
    return this.#faults.host(side).isAlive(this.pid);
  }

  /** Waits until so many clients have had answers since this call, the last one within half a second. */
  async clientsGoOn(connections = 4, ms = 40_000): Promise<void> {
    const before = await this.#connections();
    let now = before;
    await eventually(
      'every client is answered again',
      ms,
      async () => {
        now = await this.#connections();
        const answered = [...now].filter(([port, { received, silentMs }]) => {
          const then = before.get(port);
          return then !== undefined && received > then.received && silentMs < 500;
        });
        return answered.length >= connections;
      },
      () => JSON.stringify([...now]),
    );
  }

  logs(): string {
    const tail = (host: LabHost): string => readFileSync(host.agentLog, 'utf8').split('\n').slice(-12).join('\n');
    const janitor = (host: LabHost): string => {
      const path = join(host.stateFolder, 'migrations', this.id, 'janitor.log');
      return existsSync(path) ? readFileSync(path, 'utf8') : '';
    };
    const { a, b } = this.#faults;
    return [a, b]
      .map((host) => `agent ${host.name}:\n${tail(host)}\njanitor ${host.name}:\n${janitor(host)}`)
      .join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.clients[Symbol.asyncDispose]();
    await this.#command?.[Symbol.asyncDispose]();
    await leave(this.#faults, this, this.#agents);
  }
}

async function leave(faults: FaultLab, facts: TrialFacts, agents: Record<Side, LabAgent | null>): Promise<void> {
  for (const side of ['a', 'b'] as const) {
    const host = faults.host(side);
    const agent = agents[side];
    if (agent !== null) {
      await wake(agent);
      await agent[Symbol.asyncDispose]();
    }
    await host.run(['sh', '-c', cleanUp, 'sh', String(facts.pid), facts.address, facts.id, host.device]);
    rmSync(join(host.stateFolder, 'migrations', facts.id), { recursive: true, force: true });
  }
}

/** After a failed trial the next one must find a clean host; after a good one there is only the server to end. */
const cleanUp = `
pid=$1 address=$2 id=$3 device=$4
for pids in $(pgrep -f "main.js janitor $id\\$"); do kill -9 $pids; done
kill -9 $pid 2>/dev/null
for group in /sys/fs/cgroup/phaul/$id /sys/fs/cgroup/work/phaul-$id; do
  [ -d $group ] || continue
  echo 1 > $group/cgroup.kill; echo 0 > $group/cgroup.freeze
  for try in 1 2 3 4 5 6 7 8 9; do rmdir $group 2>/dev/null && break; sleep 0.1; done
done
for with in $(ip -o addr show dev $device | grep -o " $address/[0-9]*"); do ip addr del $with dev $device; done
for side in source destination; do for family in inet arp; do nft delete table $family phaul-$id-$side 2>/dev/null; done; done
rm -f /run/phaul/breakpoint ${criuFaultFile}
true
`;

/** nsenter(1) stops itself along with its child, and does not see that the child alone was told to go on. */
export async function wake(agent: LabAgent): Promise<void> {
  agent.process.child.kill('SIGCONT');
  await agent.process.kill('SIGCONT');
}

function omitRequest(key: string, value: unknown): unknown {
  return key === 'request' || key === 'tasks' ? undefined : value;
}
