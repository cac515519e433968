/**
 * Isolated hosts on one machine (DESIGN 6): each with network, pid, mount, uts, ipc and cgroup namespaces of its own,
 * joined by a bridge that lives in a network namespace too. Nothing is added to the machine's own network, and nothing
 * has a name there; what the kernel cannot remove by itself (cgroup folders, a temporary folder) carries the run's id.
 *
 *     await using lab = await Lab.create();
 *     const a = await lab.addHost('a');
 *     const b = await lab.addHost('b');
 *     await lab.configureAgents();
 *     await using agent = await LabAgent.start(a);
 *     const client = await lab.addClient();
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { PhaulError } from '../failure/phaul-error.js';
import { HostNamespaces } from './host-namespaces.js';
import { configureAgents } from './lab-agent.js';
import { createCgroup } from './lab-cgroup.js';
import { LabFolder, removeDeadLabs } from './lab-folder.js';
import { LabHost } from './lab-host.js';

const execute = promisify(execFile);

/** Names that a lab knows before its hosts exist, so that /etc/hosts can be complete from the start. */
const reservedNames = ['a', 'b', 'c', 'd', 'client', 'client2'] as const;
export type HostName = (typeof reservedNames)[number];

export interface HostOptions {
  /** Folders that are empty and this host's own, e.g. `/srv`. */
  readonly privateFolders?: readonly string[];
}

export class Lab implements AsyncDisposable {
  /** `name`: lower-case letters, digits and dashes. In the name of everything that the lab makes. */
  readonly id: string;
  readonly folder: string;
  readonly hasIpv6 = existsSync('/proc/sys/net/ipv6');
  readonly #folder: LabFolder;
  readonly #switch: ChildProcess;
  readonly #hosts = new Map<string, LabHost>();
  /** Pairs that are cut, and the tables that were made for it. */
  readonly #cuts = new Set<string>();
  #ending: Promise<void> | null = null;

  private constructor(folder: LabFolder, bridge: ChildProcess) {
    this.id = folder.id;
    this.folder = folder.path;
    this.#folder = folder;
    this.#switch = bridge;
  }

  static async create(options: { readonly name?: string } = {}): Promise<Lab> {
    if (process.getuid?.() !== 0) {
      throw new PhaulError({
        code: 'lab-needs-root',
        what: 'isolated hosts can be made by root only',
        remedy: 'run it again as root (sudo)',
      });
    }
    await removeDeadLabs();
    const folder = LabFolder.create(options.name ?? 'lab');
    const bridge = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', 'sleep', 'infinity'], {
      stdio: 'ignore',
      cwd: '/',
    });
    const lab = new Lab(folder, bridge);
    try {
      await once(bridge, 'spawn');
      await lab.#namesOfHosts();
      await lab.#networkNamespace();
      await lab.#onSwitch([
        ...[
          'ip',
          'link',
          'add',
          'br0',
          'type',
          'bridge',
          'stp_state',
          '0',
          'forward_delay',
          '0',
          'mcast_snooping',
          '0',
        ],
      ]);
      await lab.#onSwitch(['ip', 'link', 'set', 'br0', 'up']);
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The path of /etc/hosts as all hosts of the lab see it. */
  get hostsFile(): string {
    return join(this.folder, 'hosts');
  }

  get hosts(): readonly LabHost[] {
    return [...this.#hosts.values()];
  }

  /** An address for a service that moves: `index` 0..40. Not yet on any device. */
  serviceAddress(index = 0): { readonly ip4: string; readonly ip6: string } {
    return { ip4: `10.77.0.${200 + index}`, ip6: `fd77::${200 + index}` };
  }

  async addHost(name: HostName, options: HostOptions = {}): Promise<LabHost> {
    if (this.#ending !== null) throw new Error(`lab ${this.id} has ended`);
    const number = reservedNames.indexOf(name) + 1;
    const folder = join(this.folder, name);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const cgroup = createCgroup(`${this.id}-${name}`);
    let namespaces: HostNamespaces | null = null;
    try {
      namespaces = await HostNamespaces.create({
        hostName: name,
        cgroup: cgroup?.folder ?? null,
        hostsFile: this.hostsFile,
        privateFolders: options.privateFolders ?? [],
      });
      const facts = { name, folder, ip4: ip4Of(number), ip6: this.hasIpv6 ? ip6Of(number) : null };
      const host = new LabHost(facts, namespaces, cgroup);
      const port = `port-${name}`;
      await this.#onSwitch([
        ...['ip', 'link', 'add', port, 'type', 'veth', 'peer', 'name', host.device, 'netns', String(host.initPid)],
      ]);
      await this.#onSwitch(['ip', 'link', 'set', port, 'master', 'br0', 'up']);
      await host.check(['ip', 'addr', 'add', `${host.ip4}/24`, 'dev', host.device]);
      if (host.ip6 !== null) await host.check(['ip', 'addr', 'add', `${host.ip6}/64`, 'dev', host.device, 'nodad']);
      await host.check(['ip', 'link', 'set', host.device, 'up']);
      if (this.#ending !== null) throw new Error(`lab ${this.id} has ended`);
      this.#hosts.set(name, host);
      return host;
    } catch (error) {
      await namespaces?.[Symbol.asyncDispose]();
      await cgroup?.[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A host for clients. It differs from others by what runs there only. */
  async addClient(name: 'client' | 'client2' = 'client'): Promise<LabHost> {
    return await this.addHost(name);
  }

  /** Certificates and configurations for the agents of all hosts so far: each takes processes and addresses of each. */
  async configureAgents(): Promise<void> {
    await configureAgents({
      certificates: join(this.folder, 'certificates'),
      hosts: this.hosts,
      mayMove: this.hasIpv6 ? ['10.77.0.192/26', 'fd77::200/119'] : ['10.77.0.192/26'],
    });
  }

  /** Powers one host off, as pulling its plug would: not a packet leaves it. Its state folder stays, `addHost` starts it again. */
  async powerOff(host: LabHost): Promise<void> {
    this.#hosts.delete(host.name);
    // First, or its kernel would end the connections of the processes that die.
    await this.#onSwitch(['ip', 'link', 'del', `port-${host.name}`]);
    await host[Symbol.asyncDispose]();
  }

  /** Puts an address on a host's device, at once usable. */
  async addAddress(host: LabHost, ip: string): Promise<void> {
    const six = ip.includes(':');
    await host.check(['ip', 'addr', 'add', `${ip}/${six ? 128 : 32}`, 'dev', host.device, ...(six ? ['nodad'] : [])]);
  }

  /**
   * Loses every packet between the own addresses of two hosts, both directions, as a broken cable would: dropped at the
   * switch (nft, danger 40), so that neither host sees an error. Addresses that move are not concerned.
   */
  async cut(one: LabHost, other: LabHost): Promise<void> {
    await this.#onSwitch(['nft', '-f', '-'], cutRules(one, other));
    this.#cuts.add(cutName(one, other));
  }

  async mend(one: LabHost, other: LabHost): Promise<void> {
    const name = cutName(one, other);
    if (!this.#cuts.delete(name)) return;
    await this.#onSwitch(['nft', 'delete', 'table', 'netdev', name]);
  }

  /** Limits what a host receives, megabit per second (tbf: netem is not everywhere). */
  async limit(host: LabHost, megabitPerSecond: number): Promise<void> {
    await this.#onSwitch([
      ...['tc', 'qdisc', 'replace', 'dev', `port-${host.name}`, 'root', 'tbf'],
      ...['rate', `${megabitPerSecond}mbit`, 'burst', '256kb', 'latency', '200ms'],
    ]);
  }

  /** May be called again, and while hosts are still being added: those are removed too. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending ??= this.#end();
    await this.#ending;
  }

  async #end(): Promise<void> {
    const ends = [...this.#hosts.values()].map((host) => host[Symbol.asyncDispose]());
    const failures = (await Promise.allSettled(ends)).flatMap((end) => (end.status === 'rejected' ? [end.reason] : []));
    this.#hosts.clear();
    if (this.#switch.exitCode === null && this.#switch.signalCode === null) {
      const gone = once(this.#switch, 'exit');
      this.#switch.kill('SIGKILL');
      await gone;
    }
    await this.#folder[Symbol.asyncDispose]();
    if (failures.length > 0) throw new AggregateError(failures, `lab ${this.id} could not be removed completely`);
  }

  async #onSwitch(argv: readonly string[], stdin = ''): Promise<void> {
    const running = execute('nsenter', ['-t', String(this.#switch.pid), '-n', ...argv]);
    // A command that ends without reading its input closes the pipe first; its exit code is what counts.
    running.child.stdin?.on('error', () => {});
    running.child.stdin?.end(stdin);
    await running;
  }

  async #namesOfHosts(): Promise<void> {
    const lines = ['127.0.0.1 localhost', '::1 localhost ip6-localhost'];
    reservedNames.forEach((name, index) => {
      lines.push(`${ip4Of(index + 1)} ${name}`);
    });
    writeFileSync(this.hostsFile, `${lines.join('\n')}\n`, { mode: 0o644 });
  }

  /** unshare(1) makes the namespace a moment after it is spawned. */
  async #networkNamespace(): Promise<void> {
    const ours = await readlink('/proc/self/ns/net');
    for (let look = 0; look < 500; look++) {
      if ((await readlink(`/proc/${this.#switch.pid}/ns/net`)) !== ours) return;
      await sleep(10);
    }
    throw new PhaulError({
      code: 'lab-no-network-namespace',
      what: 'a network namespace could not be made within 5 s',
      remedy: 'run as root, and in a container with the right to unshare(CLONE_NEWNET)',
    });
  }
}

const ip4Of = (number: number): string => `10.77.0.${number}`;
const ip6Of = (number: number): string => `fd77::${number}`;

function cutName(one: LabHost, other: LabHost): string {
  return `cut_${[one.name, other.name].sort().join('_')}`;
}

function cutRules(one: LabHost, other: LabHost): string {
  const chain = (at: LabHost, to: LabHost): string => `
    chain from_${at.name} {
      type filter hook ingress device "port-${at.name}" priority 0; policy accept;
      ip saddr ${at.ip4} ip daddr ${to.ip4} drop
      ${at.ip6 === null || to.ip6 === null ? '' : `ip6 saddr ${at.ip6} ip6 daddr ${to.ip6} drop`}
    }`;
  return `table netdev ${cutName(one, other)} {\n${chain(one, other)}\n${chain(other, one)}\n}\n`;
}
