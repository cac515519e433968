/** Against a real sshd, in a mount namespace of its own (own /run and /usr/local/bin), on a high port of 127.0.0.1. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { dial } from '../../src/agent/control/dial.js';
import { rpc } from '../../src/agent/control/rpc-service.js';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { packageRoot } from '../../src/native/addon.js';
import { agent, codeOf, config, duties, Folder, landingRequest } from './control-support.js';

const sshd = '/usr/sbin/sshd';
const program = join(packageRoot, 'dist', 'src', 'cli', 'main.js');
const missing =
  process.geteuid?.() !== 0
    ? 'sshd needs root'
    : !existsSync(sshd)
      ? 'openssh-server is not installed'
      : !existsSync(program)
        ? 'phaul is not built'
        : null;

class SshServer implements AsyncDisposable {
  readonly port = 40_000 + Math.floor(Math.random() * 20_000);
  readonly home: string;
  readonly #folder: string;
  readonly #child: ChildProcess;

  constructor(folder: string, shell: Readonly<Record<string, string>>) {
    this.#folder = folder;
    this.home = join(folder, 'home');
    mkdirSync(join(this.home, '.ssh'), { recursive: true, mode: 0o700 });
    mkdirSync(join(folder, 'bin'));
    for (const name of ['hostkey', 'otherkey', 'home/.ssh/id_ed25519']) {
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name)]);
    }
    const settings = [
      `Port ${this.port}`,
      'ListenAddress 127.0.0.1',
      `HostKey ${join(folder, 'hostkey')}`,
      `AuthorizedKeysFile ${join(folder, 'home/.ssh/id_ed25519.pub')}`,
      'PermitRootLogin yes',
      'PasswordAuthentication no',
      'UsePAM no',
      'StrictModes no',
      'PidFile none',
      `SetEnv PATH=${join(folder, 'bin')}:/usr/bin:/bin ${Object.entries(shell)
        .map(([name, value]) => `${name}=${value}`)
        .join(' ')}`,
    ];
    writeFileSync(join(folder, 'sshd_config'), `${settings.join('\n')}\n`);
    const mounts = 'mount -t tmpfs none /run && mkdir /run/sshd && mount -t tmpfs none /usr/local/bin';
    const script = `${mounts} && exec ${sshd} -D -e -f ${join(folder, 'sshd_config')}`;
    this.#child = spawn('unshare', ['-m', 'sh', '-c', script], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr?.resume();
  }

  async up(): Promise<void> {
    for (let attempt = 0; attempt < 250; attempt++) {
      const open = await new Promise<boolean>((resolve) => {
        const socket = connect(this.port, '127.0.0.1');
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
        socket.once('connect', () => socket.destroy());
      });
      if (open) return;
      await sleep(20);
    }
    throw new Error('sshd does not listen');
  }

  trust(key: 'hostkey' | 'otherkey' | null): void {
    const text =
      key === null ? '' : `[127.0.0.1]:${this.port} ${readFileSync(join(this.#folder, `${key}.pub`), 'utf8')}`;
    writeFileSync(join(this.home, '.ssh', 'known_hosts'), text);
  }

  install(): void {
    const path = join(this.#folder, 'bin', 'phaul');
    writeFileSync(path, `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`);
    chmodSync(path, 0o755);
  }

  get destination(): string {
    return `root@127.0.0.1:${this.port}`;
  }

  get credentials() {
    return { ssh: { home: this.home, agentSocket: null } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }
}

describe('ssh', () => {
  it('reaches the agent of a host that has phaul, with control and pages, and again after the connection was lost', {
    timeout: 60_000,
  }, async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const there = config(folder.path, { name: 'b' });
    const ours = config(folder.path, { name: 'a' });
    const work = duties('b');
    await using server = new SshServer(folder.path, { PHAUL_RUN_DIR: there.runDirectory });
    await server.up();
    server.trust('hostkey');
    server.install();
    await using _agent = await agent(there, work);
    await using link = await dial(server.destination, ours, server.credentials);
    expect(link.name).toBe('b');
    await link.rpc.call(rpc.prepare, { request: JSON.stringify(landingRequest('m1')) });
    expect(work.calls).toContain('prepare');

    const pages = await link.openPages();
    const sent = Buffer.concat([Buffer.from('PHAULPG1'), Buffer.alloc(8 * 1024 * 1024, 5)]);
    let received = 0;
    pages.on('data', (bytes: Buffer) => {
      received += bytes.length;
    });
    pages.write(sent);
    await expect.poll(() => received, { timeout: 20_000 }).toBe(sent.length);
    pages.destroy();

    // Every session of this sshd ends; the agent does not notice, and the next call comes through.
    const sessions = execFileSync('sh', [
      '-c',
      `ss -Htnp state established "( sport = :${server.port} )" | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u`,
    ]);
    const pids = sessions
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map(Number);
    expect(pids.length).toBeGreaterThan(0);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await expect
      .poll(() => codeOf(link.rpc.call(rpc.heartbeat, { id: 'm1' }, { timeoutMs: 5000 })), {
        timeout: 20_000,
        interval: 200,
      })
      .toBe('no failure');
  });

  it('refuses an unknown host key, another host key, and a host without phaul', { timeout: 60_000 }, async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const ours = config(folder.path, { name: 'a' });
    await using server = new SshServer(folder.path, {});
    await server.up();
    server.trust(null);
    expect(await codeOf(dial(server.destination, ours, server.credentials))).toBe('host-key-unknown');
    server.trust('otherkey');
    const mismatch = dial(server.destination, ours, server.credentials);
    expect(await codeOf(mismatch)).toBe('host-key-mismatch');
    await expect(mismatch).rejects.toMatchObject({
      remedy: expect.stringContaining(`ssh-keygen -R '[127.0.0.1]:${server.port}'`),
    });
    server.trust('hostkey');
    expect(await codeOf(dial(server.destination, ours, server.credentials))).toBe('not-installed');
    writeFileSync(join(server.home, '.ssh', 'id_ed25519'), readFileSync(join(folder.path, 'otherkey')));
    expect(await codeOf(dial(server.destination, ours, server.credentials))).toBe('ssh-login-refused');
    expect(await codeOf(dial('root@127.0.0.1:1', ours, server.credentials))).toBe('host-unreachable');
  });

  it('danger 6: starts an agent that outlives the connection', { timeout: 60_000 }, async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const ours = config(folder.path, { name: 'a' });
    const [run, state] = [join(folder.path, 'run'), join(folder.path, 'state')];
    await using server = new SshServer(folder.path, { PHAUL_RUN_DIR: run, PHAUL_STATE_DIR: state });
    await server.up();
    server.trust('hostkey');
    server.install();
    const link = await dial(server.destination, ours, server.credentials);
    const pid = Number(/"pid":(\d+)/.exec(readFileSync(join(state, 'agent.log'), 'utf8'))?.[1]);
    try {
      expect(link.facts.bootId).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
      await link[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      await using still = await dial(`unix:${run}/agent.sock`, ours);
      expect(still.name).toBe(link.name);
    } finally {
      process.kill(pid, 'SIGTERM');
    }
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 10_000 }).toBe(false);
  });

  it('says what the other host says when no agent can be started there', { timeout: 60_000 }, async (ctx) => {
    if (missing !== null) return ctx.skip(missing);
    using folder = new Folder();
    const ours = config(folder.path, { name: 'a' });
    const wrongConfig = join(folder.path, 'wrong.json');
    writeFileSync(wrongConfig, '{"listen": "everywhere"}');
    await using server = new SshServer(folder.path, {
      PHAUL_RUN_DIR: join(folder.path, 'run'),
      PHAUL_CONFIG: wrongConfig,
    });
    await server.up();
    server.trust('hostkey');
    server.install();
    const failure = await dial(server.destination, ours, server.credentials).catch((thrown: unknown) => thrown);
    expect(failure).toBeInstanceOf(PhaulError);
    expect(failure).toMatchObject({ code: 'agent-not-started', message: expect.stringContaining('listen needs tls') });
  });
});
