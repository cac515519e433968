/** Three hosts for migrations that must be refused: a runs a server with clients, b is a good destination, c a bad one of many kinds. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabClients, startServer } from '../../src/lab/clients.js';
import type { Finished } from '../../src/lab/host-process.js';
import { Lab } from '../../src/lab/hosts.js';
import { LabAgent } from '../../src/lab/lab-agent.js';
import type { LabHost } from '../../src/lab/lab-host.js';

export class BadInputLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly a: LabHost;
  readonly b: LabHost;
  readonly c: LabHost;
  /** The server's, on a. */
  readonly address: string;
  readonly pid: number;
  readonly clients: LabClients;
  readonly agentA: LabAgent;
  readonly #agentB: LabAgent;
  #agentC: LabAgent | null = null;

  private constructor(
    lab: Lab,
    hosts: { a: LabHost; b: LabHost; c: LabHost },
    agents: { a: LabAgent; b: LabAgent },
    server: { address: string; pid: number; clients: LabClients },
  ) {
    this.lab = lab;
    this.a = hosts.a;
    this.b = hosts.b;
    this.c = hosts.c;
    this.agentA = agents.a;
    this.#agentB = agents.b;
    this.address = server.address;
    this.pid = server.pid;
    this.clients = server.clients;
  }

  static async create(): Promise<BadInputLab> {
    const lab = await Lab.create({ name: 'bad' });
    try {
      const hosts = {
        a: await lab.addHost('a'),
        b: await lab.addHost('b'),
        c: await lab.addHost('c', { privateFolders: ['/srv'] }),
      };
      const client = await lab.addClient();
      await lab.configureAgents();
      const [a, b] = await Promise.all([LabAgent.start(hosts.a), LabAgent.start(hosts.b)]);
      const address = lab.serviceAddress(0).ip4;
      await lab.addAddress(hosts.a, address);
      const pid = await startServer(hosts.a, { address, port: 7000, memoryMib: 8, dirtyRate: 100, pid: 30_000 });
      const clients = await LabClients.start(client, {
        ...{ address, port: 7000, connections: 4, mode: 'closed', thinkMs: 5, connectLoop: true, verifyAtEnd: true },
      });
      return new BadInputLab(lab, hosts, { a, b }, { address, pid, clients });
    } catch (thrown) {
      await lab[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** The agent of c, anew: with another configuration, another environment. */
  async startC(
    how: { readonly config?: (before: AgentFile) => AgentFile; readonly env?: Record<string, string> } = {},
  ): Promise<void> {
    await this.stopC();
    const file = this.c.configFile;
    const before = readFileSync(file, 'utf8');
    if (how.config !== undefined) writeFileSync(file, JSON.stringify(how.config(JSON.parse(before) as AgentFile)));
    try {
      this.#agentC = await LabAgent.start(this.c, how.env ?? {});
    } finally {
      writeFileSync(file, before);
    }
  }

  async stopC(): Promise<void> {
    await this.#agentC?.[Symbol.asyncDispose]();
    this.#agentC = null;
  }

  async migrate(pid: number, destination: string, flags: readonly string[] = []): Promise<Finished> {
    return await this.a.phaul(['migrate', String(pid), destination, ...flags], { timeoutMs: 60_000 });
  }

  /** A folder of hooks, seen by every host, with one program in it. */
  hook(name: string, script: string): string {
    const folder = join(this.lab.folder, `hooks-${name}`);
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o700 });
    return folder;
  }

  /** Everything of a migration that is still on a host, in words; the server itself belongs to a. */
  async leftBehind(): Promise<string[]> {
    const found: string[] = [];
    for (const host of [this.a, this.b, this.c]) {
      const say = (what: string): void => void found.push(`${host.name}: ${what}`);
      const tables = await host.check(['nft', 'list', 'tables']);
      for (const table of tables.split('\n')) if (/ (phaul-|CRIU-)/.test(table)) say(table);
      if (/phaul\d/.test(await host.check(['ip', '-o', 'link', 'show']))) say('a TUN device');
      const addresses = await host.check(['ip', '-o', 'addr', 'show', 'dev', host.device]);
      if (host !== this.a && addresses.includes(` ${this.address}/`)) say('the address');
      for (const line of (await host.check(['ps', '-eo', 'stat=,args='])).split('\n')) {
        if (/^T|swrk|main\.js janitor/i.test(line) && !line.startsWith('Z')) say(line);
      }
      for (const state of [host.stateFolder, host.outside('/srv/state')]) {
        const migrations = join(state, 'migrations');
        for (const id of existsSync(migrations) ? readdirSync(migrations) : []) {
          for (const name of ['dump', 'images']) if (existsSync(join(migrations, id, name))) say(`${id}/${name}`);
        }
      }
      for (const folder of ['phaul', 'work']) {
        const path = host.outside(join('/sys/fs/cgroup', folder));
        for (const name of existsSync(path) ? readdirSync(path) : []) {
          if (name !== 'helpers' && /^(phaul-|bad-|m\d)/.test(name)) say(`cgroup ${folder}/${name}`);
        }
      }
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.clients[Symbol.asyncDispose]();
    await this.stopC();
    await this.#agentB[Symbol.asyncDispose]();
    await this.agentA[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
  }
}

/** The configuration file of an agent, as far as it is changed here. */
export interface AgentFile {
  readonly hostName: string;
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  readonly peers: readonly { readonly name: string; readonly mayMove: readonly string[] }[];
}
