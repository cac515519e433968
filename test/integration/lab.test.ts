import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Lab } from '../../src/lab/hosts.js';
import { cgroup2Mount } from '../../src/lab/lab-cgroup.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { packageRoot } from '../../src/native/addon.js';

const isRoot = process.getuid?.() === 0;

describe.skipIf(!isRoot)('lab of isolated hosts (needs root)', () => {
  const before = readdirSync('/sys/class/net').sort();
  let lab: Lab;
  let a: LabHost;
  let b: LabHost;
  let client: LabHost;

  beforeAll(async () => {
    lab = await Lab.create({ name: 'test' });
    a = await lab.addHost('a', { privateFolders: ['/srv'] });
    b = await lab.addHost('b');
    client = await lab.addClient();
  });

  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  it('adds nothing to the network of the machine', () => {
    expect(readdirSync('/sys/class/net').sort()).toEqual(before);
  });

  it('gives each host its own name, pids, /run, /srv and cgroup root', async () => {
    expect((await a.check(['uname', '-n'])).trim()).toBe('a');
    expect((await b.check(['uname', '-n'])).trim()).toBe('b');
    await a.check(['sh', '-c', 'echo here > /run/only-a; echo here > /srv/only-a']);
    expect((await b.run(['test', '-e', '/run/only-a'])).exitCode).toBe(1);
    expect(existsSync('/srv/only-a')).toBe(false);
    expect((await a.check(['cat', '/proc/1/comm'])).trim()).toBe('phaul-reaper');
    if (cgroup2Mount() !== null) {
      expect(await a.check(['grep', '^0::', '/proc/self/cgroup'])).toBe('0::/work\n');
      expect(await a.check(['cat', '/sys/fs/cgroup/work/cgroup.procs'])).not.toBe('');
    }
  });

  it('danger 43: each host has a devpts of its own', async () => {
    const open = 'exec 3<>/dev/ptmx; ls /dev/pts';
    expect(await a.check(['sh', '-c', open])).toBe('0\nptmx\n');
    expect(await b.check(['sh', '-c', open])).toBe('0\nptmx\n');
  });

  it('joins the hosts by IPv4 and IPv6, names included', async () => {
    expect(await reaches(client, 'a', a)).toBe(true);
    expect(await reaches(client, b.ip4, b)).toBe(true);
    if (a.ip6 !== null) expect(await reaches(b, a.ip6, a)).toBe(true);
  });

  it('danger 40: cuts two hosts from each other without either noticing, and mends', async () => {
    await lab.cut(a, b);
    expect(await reaches(b, a.ip4, a)).toBe(false);
    expect(await reaches(client, a.ip4, a)).toBe(true);
    if (a.ip6 !== null) expect(await a.check(['ip', '-6', 'addr', 'show', 'dev', 'eth0'])).toContain(a.ip6);
    await lab.mend(a, b);
    expect(await reaches(b, a.ip4, a)).toBe(true);
  });

  it('danger 40: starts programs at high pids, orphaned to a pid 1 that reaps', async () => {
    const pid = await a.startAtHighPid(['sleep', '1000'], { pid: 31_000 });
    expect(pid).toBeGreaterThanOrEqual(31_000);
    const status = readFileSync(a.outside(`/proc/${pid}/status`), 'utf8');
    expect(status).toMatch(/^PPid:\t1$/m);
    expect(readdirSync(a.outside(`/proc/${pid}/fd`)).sort()).toEqual(['0', '1', '2']);
    await a.check(['sh', '-c', `kill -KILL ${pid}`]);
    await expect.poll(() => existsSync(a.outside(`/proc/${pid}`)), { timeout: 2000 }).toBe(false);
  });

  it('ends a spawned program with its signal, and all of it when it is disposed', async () => {
    const sleeper = a.spawn(['sleep', '1000']);
    await sleeper.outerPid();
    await sleeper.kill('SIGTERM');
    expect((await sleeper.finished).signal).toBe('SIGTERM');
    expect((await a.run(['sleep', '1000'], { timeoutMs: 100 })).signal).toBe('SIGKILL');
  });
});

describe.skipIf(!isRoot)('end of a lab (needs root)', () => {
  it('leaves no process, cgroup or folder behind, whatever runs there', async () => {
    const lab = await Lab.create({ name: 'end' });
    const a = await lab.addHost('a');
    const init = a.initPid;
    await a.startAtHighPid(['sh', '-c', 'trap "" TERM; sleep 1000 & wait']);
    if (cgroup2Mount() !== null) {
      await a.check(['sh', '-c', 'mkdir -p /sys/fs/cgroup/x/y && echo $$ > /sys/fs/cgroup/x/y/cgroup.procs']);
    }
    await lab[Symbol.asyncDispose]();
    expect(existsSync(`/proc/${init}`)).toBe(false);
    expect(existsSync(lab.folder)).toBe(false);
    const mount = cgroup2Mount();
    if (mount !== null) expect(existsSync(join(mount, `${lab.id}-a`))).toBe(false);
  });
});

describe.skipIf(!isRoot)('crash of the program that made a lab (needs root)', () => {
  it('takes every process of every host with it, and leaves nothing to the next lab', async () => {
    const hosts = join(packageRoot, 'dist', 'src', 'lab', 'hosts.js');
    const program = `
      const { Lab } = await import(${JSON.stringify(hosts)});
      const lab = await Lab.create({ name: 'crash' });
      const a = await lab.addHost('a');
      await a.startAtHighPid(['sleep', '1000']);
      console.log(JSON.stringify({ init: a.initPid, folder: lab.folder, id: lab.id }));
      await new Promise(() => setInterval(() => {}, 1000));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const { init, folder, id } = JSON.parse(line.toString()) as { init: number; folder: string; id: string };
    child.kill('SIGKILL');
    await expect.poll(() => existsSync(`/proc/${init}`), { timeout: 5000 }).toBe(false);
    // The next lab removes what the kernel could not; one that lives is left alone.
    await using living = await Lab.create({ name: 'living' });
    await using _next = await Lab.create({ name: 'next' });
    expect(existsSync(folder)).toBe(false);
    const mount = cgroup2Mount();
    if (mount !== null) expect(existsSync(join(mount, `${id}-a`))).toBe(false);
    expect(existsSync(living.folder)).toBe(true);
  });
});

/** True when a TCP connection from one host to another's address is answered within 1.5 s. */
async function reaches(from: LabHost, address: string, to: LabHost): Promise<boolean> {
  const listen = "require('net').createServer((s) => s.end('hi')).listen(4000, '::')";
  const connect = `
    const { connect } = require('net');
    (function again() {
      const socket = connect(4000, ${JSON.stringify(address)});
      socket.on('data', () => process.exit(0));
      socket.on('error', () => setTimeout(again, 50));
    })();
    setTimeout(() => process.exit(1), 1500);`;
  await using _server = to.spawn([process.execPath, '-e', listen]);
  return (await from.run([process.execPath, '-e', connect])).exitCode === 0;
}
