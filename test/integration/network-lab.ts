/**
 * Three hosts on one wire, each a network namespace with a resident process; the bridge has a namespace of its own, so
 * nothing touches the machine's network. Base addresses: 10.9.0.<n>/24 and fd09::<n>/64 on `eth0`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../src/native/addon.js';

export const moving = { v4: '10.9.0.100', v6: 'fd09::100' };

/** Why these tests cannot run here, or null. */
export function whyNoLab(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  if (spawnSync('unshare', ['-n', 'nft', 'list', 'tables']).status !== 0) return 'no network namespace or no nft here';
  return existsSync('/dev/net/tun') ? null : 'no /dev/net/tun here';
}

export class LabHost {
  readonly namespace: string;
  readonly process: ChildProcess;
  readonly #answers: ((line: string) => void)[] = [];

  constructor(namespace: string) {
    this.namespace = namespace;
    const resident = join(packageRoot, 'dist', 'test', 'integration', 'network-resident.js');
    if (!existsSync(resident)) throw new Error('not built: npm run build:ts');
    this.process = spawn('ip', ['netns', 'exec', namespace, process.execPath, resident], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { stdout } = this.process;
    if (stdout !== null) createInterface({ input: stdout }).on('line', (line) => this.#answers.shift()?.(line));
    this.process.on('exit', () => {
      for (const answer of this.#answers.splice(0)) answer('{"error":"the resident has ended"}');
    });
  }

  /** Runs the body of an async function there (network-resident.ts says what is in its scope). One after the other. */
  async run<T = unknown>(body: string): Promise<T> {
    const line = await new Promise<string>((resolve) => {
      this.#answers.push(resolve);
      this.process.stdin?.write(`${JSON.stringify({ body })}\n`);
    });
    const { value, error } = JSON.parse(line) as { value: T; error?: string };
    if (error !== undefined) throw new Error(`${this.namespace}: ${error}`);
    return value;
  }

  /** Runs a command there; returns its output. */
  command(...argv: string[]): string {
    return command('ip', 'netns', 'exec', this.namespace, ...argv);
  }

  /** Link-layer address that this host has for a neighbour, or null. */
  neighbour(ip: string): string | null {
    const entries = JSON.parse(this.command('ip', '-j', 'neigh', 'show', 'to', ip, 'dev', 'eth0')) as {
      lladdr?: string;
    }[];
    return entries[0]?.lladdr ?? null;
  }

  mac(): string {
    const [link] = JSON.parse(this.command('ip', '-j', 'link', 'show', 'eth0')) as { address: string }[];
    return link?.address ?? '';
  }
}

export class NetworkLab implements AsyncDisposable {
  readonly a: LabHost;
  readonly b: LabHost;
  readonly client: LabHost;
  readonly #namespaces: readonly string[];

  constructor(label: string) {
    const prefix = `phnet-${process.pid}-${label}`;
    const wire = `${prefix}-wire`;
    const names = ['a', 'b', 'c'].map((each) => `${prefix}-${each}`);
    this.#namespaces = [wire, ...names];
    try {
      for (const namespace of this.#namespaces) {
        command('ip', 'netns', 'add', namespace);
        // Links must not wait a second for duplicate detection of their own addresses.
        command(
          'ip',
          'netns',
          'exec',
          namespace,
          'sh',
          '-c',
          'for f in all default; do echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad; done; ip link set lo up',
        );
      }
      command('ip', '-n', wire, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
      command('ip', '-n', wire, 'link', 'set', 'br0', 'up');
      for (const [index, name] of names.entries()) connect(wire, name, index + 1);
      const [a, b, client] = names.map((name) => new LabHost(name));
      if (a === undefined || b === undefined || client === undefined) throw new Error('three hosts');
      this.a = a;
      this.b = b;
      this.client = client;
    } catch (failure) {
      this.#delete();
      throw failure;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of [this.a, this.b, this.client]) {
      if (host.process.exitCode !== null || host.process.signalCode !== null) continue;
      const gone = new Promise((resolve) => host.process.once('exit', resolve));
      host.process.kill('SIGKILL');
      await gone;
    }
    this.#delete();
  }

  #delete(): void {
    // Some may never have been made.
    for (const namespace of this.#namespaces) spawnSync('ip', ['netns', 'del', namespace]);
  }
}

function connect(wire: string, name: string, number: number): void {
  command('ip', '-n', name, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', `port${number}`, 'netns', wire);
  command('ip', '-n', wire, 'link', 'set', `port${number}`, 'master', 'br0', 'up');
  command('ip', '-n', name, 'link', 'set', 'eth0', 'up');
  command('ip', '-n', name, 'addr', 'add', `10.9.0.${number}/24`, 'dev', 'eth0');
  command('ip', '-n', name, 'addr', 'add', `fd09::${number}/64`, 'dev', 'eth0', 'nodad');
}

function command(program: string, ...words: string[]): string {
  const done = spawnSync(program, words, { encoding: 'utf8', timeout: 20_000 });
  if (done.status !== 0) throw new Error(`${program} ${words.join(' ')}: ${done.stderr}`);
  return done.stdout;
}
