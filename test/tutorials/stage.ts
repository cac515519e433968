/**
 * Where a tutorial's script runs: hosts a, b and client of a lab, with what the script expects in /srv, and a terminal
 * whose output is kept with its times.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Lab } from '../../src/lab/hosts.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import type { Cast, Frame } from './cast.js';
import { type Tutorial, tutorialFolder } from './catalog.js';
import { startSshd } from './sshd.js';

const columns = 100;
const rows = 30;
const limitMs = 120_000;
/** Away from the pids of what runs on both hosts by itself (dangers.md 40). */
const firstPid = 4000;

export interface Performance {
  readonly exitCode: number | null;
  readonly cast: Cast;
  /** Of this machine; none may be in a recording. */
  readonly privatePaths: readonly string[];
}

/** Runs a tutorial from its first line to its last. `show` gets the output as it comes. */
export async function perform(tutorial: Tutorial, show: (text: string) => void = () => {}): Promise<Performance> {
  await using lab = await Lab.create({ name: 'tutorial' });
  const stage = new Stage(lab, tutorial);
  await stage.furnish();
  const ended = new AbortController();
  const script = new Script(join(tutorialFolder, `${tutorial.name}.sh`), lab.folder, show);
  try {
    const exitCode = await Promise.race([script.exitCode, stage.serveRequests(ended.signal)]);
    const cast = { title: tutorial.title, columns, rows, frames: script.frames };
    return { exitCode, cast, privatePaths: [lab.folder, lab.id, tutorialFolder] };
  } finally {
    ended.abort();
    script.kill();
    await script.exitCode;
  }
}

class Stage {
  readonly #lab: Lab;
  readonly #tutorial: Tutorial;
  /** Of b's network card, which a reboot does not change. */
  #hardwareAddress = '';

  constructor(lab: Lab, tutorial: Tutorial) {
    this.#lab = lab;
    this.#tutorial = tutorial;
  }

  async furnish(): Promise<void> {
    const [a, b] = [await this.#addHost('a'), await this.#addHost('b')];
    await this.#addHost('client');
    await a.check(['sh', '-c', `echo ${firstPid - 1} > /proc/sys/kernel/ns_last_pid`]);
    if (this.#tutorial.agents === 'ready') {
      await this.#lab.configureAgents();
      for (const host of [a, b]) await host.check(host.phaulArgv(['agent', '--daemon']));
    }
    if (this.#tutorial.agents === 'ssh') await startSshd({ from: a, to: b });
  }

  /** Power switches, for the function `stage` of stage.sh. Ends by failing only. */
  async serveRequests(signal: AbortSignal): Promise<never> {
    const path = join(this.#lab.folder, 'request');
    for (;;) {
      await sleep(20, undefined, { signal });
      if (!existsSync(path)) continue;
      await this.#obey(readFileSync(path, 'utf8'));
      rmSync(path);
    }
  }

  async #obey(request: string): Promise<void> {
    const [verb, name] = request.split(' ');
    if (verb === 'power-off' && name === 'b') await this.#pullThePlug();
    else if (verb === 'power-on' && name === 'b') await this.#boot();
    else throw new Error(`a script asks for ${request}`);
  }

  async #pullThePlug(): Promise<void> {
    const b = this.#lab.hosts.find((each) => each.name === 'b');
    if (b === undefined) throw new Error('b is off already');
    this.#hardwareAddress = (await b.check(['cat', `/sys/class/net/${b.device}/address`])).trim();
    await this.#lab.powerOff(b);
  }

  async #boot(): Promise<void> {
    const b = await this.#addHost('b');
    await b.check(['ip', 'link', 'set', 'dev', b.device, 'address', this.#hardwareAddress]);
  }

  async #addHost(name: 'a' | 'b' | 'client'): Promise<LabHost> {
    const host = await this.#lab.addHost(name, { privateFolders: ['/srv'] });
    const srv = host.outside('/srv');
    mkdirSync(join(srv, 'bin'));
    mkdirSync(join(srv, 'root', '.ssh'), { recursive: true, mode: 0o700 });
    for (const program of ['counter.py', 'client.py']) copyFileSync(join(tutorialFolder, program), join(srv, program));
    const environment = this.#environment(host);
    executable(join(srv, 'bin', 'ask'), ask);
    const settings = Object.entries(environment).map(([key, value]) => `export ${key}=${quoted(value)}`);
    executable(
      join(srv, 'bin', 'phaul'),
      ['#!/bin/sh', ...settings, `exec ${host.phaulArgv([]).map(quoted).join(' ')} "$@"`].join('\n'),
    );
    const inside = ['env', '-i', ...Object.entries(environment).map(([key, value]) => `${key}=${value}`), 'sh', '-c'];
    const enter = [
      '#!/bin/bash',
      closeInherited,
      'cd /',
      `exec ${host.entering(inside).map(quoted).join(' ')} "$1"`,
    ].join('\n');
    executable(join(this.#lab.folder, `enter-${name}`), enter);
    return host;
  }

  #environment(host: LabHost): Record<string, string> {
    const { PHAUL_CRIU, PHAUL_CRIU_PREFIX } = process.env;
    return {
      ...host.environment,
      ...(this.#tutorial.agents === 'none' ? { PHAUL_CONFIG: '/srv/phaul/agent.json' } : {}),
      ...(PHAUL_CRIU === undefined ? {} : { PHAUL_CRIU }),
      ...(PHAUL_CRIU_PREFIX === undefined ? {} : { PHAUL_CRIU_PREFIX }),
      PATH: '/srv/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/srv/root',
      TERM: 'xterm-256color',
      LANG: 'C.UTF-8',
    };
  }
}

/** What this program was started with must not be in a process that is to move. bash, since dash cannot close descriptors above 9. */
const closeInherited = 'cd /proc/self/fd; for fd in *; do if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done';

/** bash for its /dev/tcp. */
const ask = `#!/bin/bash
# ask ADDRESS PORT: one question to counter.py.
exec 3<>"/dev/tcp/$1/$2" && echo next >&3 && head -n 1 <&3
`;

/** A script in a terminal of its own, by script(1). */
class Script {
  readonly frames: Frame[] = [];
  readonly exitCode: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(path: string, stageFolder: string, show: (text: string) => void) {
    // Its stdin stays open: the end of it would be typed there as Ctrl-D.
    const command = `stty cols ${columns} rows ${rows}; exec bash ${quoted(path)}`;
    const child = spawn('script', ['-qefc', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, STAGE: stageFolder, TERM: 'xterm-256color' },
      timeout: limitMs,
    });
    const began = performance.now();
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.frames.push({ seconds: (performance.now() - began) / 1000, text });
      show(text);
    });
    this.#child = child;
    this.exitCode = once(child, 'close').then(([code]) => code as number | null);
  }

  /** The end of script(1) hangs up the terminal, and with it the script. */
  kill(): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGTERM');
  }
}

function executable(path: string, text: string): void {
  writeFileSync(path, `${text}\n`);
  chmodSync(path, 0o755);
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
