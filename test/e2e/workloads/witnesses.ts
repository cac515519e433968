/** The three kinds of witnesses: clients of a real program, clients of the target server, a file that a program writes. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabClients } from '../../../src/lab/clients.js';
import type { HostProcess } from '../../../src/lab/host-process.js';
import type { LabHost } from '../../../src/lab/lab-host.js';
import { packageRoot } from '../../../src/native/addon.js';
import type { Place, Witness } from './workload.js';

const progressLimitMs = 30_000;

/** Longer than a client waits for an answer. */
const patienceMs = 40_000;

async function within(what: string, isTrue: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + progressLimitMs;
  while (!(await isTrue())) {
    if (performance.now() > end) throw new Error(`${what} within ${progressLimitMs / 1000} s`);
    await sleep(50);
  }
}

interface ClientLine {
  readonly event: string;
  readonly answers: number[];
  readonly wrong: string[];
}

/** client.ts in the client host. */
export class ClientWitness implements Witness {
  readonly #process: HostProcess;
  readonly #lines: AsyncIterator<string>;
  /** The violation that ended the clients early, if any. */
  #summary: ClientLine | null = null;

  private constructor(running: HostProcess) {
    if (running.child.stdout === null) throw new Error('the clients have no stdout');
    this.#process = running;
    this.#lines = createInterface({ input: running.child.stdout })[Symbol.asyncIterator]();
  }

  static async start(client: LabHost, kind: string, place: Place, connections: number): Promise<ClientWitness> {
    const program = join(packageRoot, 'dist', 'test', 'e2e', 'workloads', 'client.js');
    const words = [kind, place.address, String(place.port), String(connections)];
    const witness = new ClientWitness(client.spawn([process.execPath, program, ...words]));
    try {
      const line = await witness.#next();
      if (line.event !== 'connected') throw new Error(`the clients say ${JSON.stringify(line)}`);
      return witness;
    } catch (error) {
      await witness[Symbol.asyncDispose]();
      throw error;
    }
  }

  async progress(): Promise<void> {
    const total: number[] = [];
    await within('not every connection had an answer', async () => {
      await this.#process.kill('SIGUSR2');
      const line = await this.#next();
      if (line.event === 'summary') {
        this.#summary = line;
        throw new Error(`the clients have ended: ${line.wrong.join('; ')}`);
      }
      line.answers.forEach((answers, index) => {
        total[index] = (total[index] ?? 0) + answers;
      });
      return total.every((answers) => answers > 0);
    });
  }

  async finish(): Promise<string[]> {
    await this.#process.kill('SIGTERM');
    while (this.#summary === null) {
      const line = await this.#next();
      if (line.event === 'summary') this.#summary = line;
    }
    return this.#summary.wrong;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }

  async #next(): Promise<ClientLine> {
    const line = await Promise.race([this.#lines.next(), sleep(patienceMs, null, { ref: false })]);
    if (line === null) throw new Error(`the clients have said nothing for ${patienceMs / 1000} s`);
    if (line.done !== true) return JSON.parse(line.value) as ClientLine;
    const { stderr } = await this.#process.finished;
    throw new Error(`the clients have ended: ${stderr.trim() || 'no message'}`);
  }
}

/** The client of test/targets: it knows the server's memory, too. */
export class TargetWitness implements Witness {
  readonly #clients: LabClients;
  /** LabClients counts since its mark, and tells at the end: progress is asked of a second, short-lived set. */
  readonly #place: Place;
  readonly #host: LabHost;

  private constructor(clients: LabClients, place: Place, host: LabHost) {
    this.#clients = clients;
    this.#place = place;
    this.#host = host;
  }

  static async start(host: LabHost, place: Place, connections: number): Promise<TargetWitness> {
    const order = { address: place.address, port: place.port, connections, thinkMs: 5, mode: 'closed' as const };
    return new TargetWitness(
      await LabClients.start(host, { ...order, connectLoop: false, verifyAtEnd: true }),
      place,
      host,
    );
  }

  async progress(): Promise<void> {
    const order = { address: this.#place.address, port: this.#place.port, connections: 1, thinkMs: 5 };
    await using fresh = await LabClients.start(this.#host, {
      ...order,
      mode: 'closed',
      connectLoop: false,
      verifyAtEnd: true,
    });
    const report = await fresh.finish();
    if (report.lost + report.errors + report.corrupt > 0 || report.badPages !== 0) {
      throw new Error(`a new client saw: ${report.firstError}, bad pages: ${report.badPages}`);
    }
  }

  async finish(): Promise<string[]> {
    const report = await this.#clients.finish();
    const violations: string[] = [];
    for (const key of ['lost', 'errors', 'corrupt'] as const) {
      if (report[key] > 0) violations.push(`${key}: ${report[key]} (${report.firstError})`);
    }
    if (report.badPages !== 0) violations.push(`bad pages: ${report.badPages}`);
    if (report.portsAfter.length !== report.connections)
      violations.push(`connections left: ${report.portsAfter.length}`);
    return violations;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#clients[Symbol.asyncDispose]();
  }
}

/** A file in which each line has the next number. */
export class NumberedFileWitness implements Witness {
  readonly #file: string;
  #seen = 0;

  constructor(file: string) {
    this.#file = file;
  }

  async progress(): Promise<void> {
    const before = this.#seen;
    await within(`no new line in ${this.#file}`, async () => {
      this.#seen = this.#lines().length;
      return this.#seen >= before + 5;
    });
  }

  async finish(): Promise<string[]> {
    const lines = this.#lines();
    const at = lines.findIndex((line, index) => line !== `number ${index + 1}`);
    return at < 0 ? [] : [`line ${at + 1} is '${lines[at]}' of ${lines.length}`];
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #lines(): string[] {
    if (!existsSync(this.#file)) return [];
    const text = readFileSync(this.#file, 'utf8');
    // What stands behind the last line feed is a line under way.
    return text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .slice(0, -1);
  }
}
