/** One isolated host of a lab: namespaces of its own, an address on the lab's bridge, and an agent when asked for. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import { packageRoot } from '../native/addon.js';
import { type HostNamespaces, intoCgroup } from './host-namespaces.js';
import { type Finished, HostProcess, mustSucceed } from './host-process.js';
import type { LabCgroup } from './lab-cgroup.js';

export interface HostFacts {
  readonly name: string;
  readonly ip4: string;
  /** Null on a machine without IPv6. */
  readonly ip6: string | null;
  /** Folder of this host below the lab's temporary folder, on the machine's own file system. */
  readonly folder: string;
}

export interface StartOrder {
  /** Pid to start at; danger 40: high, away from the pids of helpers. Default 30000. */
  readonly pid?: number;
  /** File for stdout and stderr; default /dev/null. */
  readonly output?: string;
  readonly folder?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdio?: SpawnOptions['stdio'];
  /** ms; the program is killed then. */
  readonly timeoutMs?: number;
}

export class LabHost implements AsyncDisposable {
  readonly name: string;
  readonly ip4: string;
  readonly ip6: string | null;
  readonly folder: string;
  /** The file system device of the host on the bridge. */
  readonly device = 'eth0';
  readonly #namespaces: HostNamespaces;
  readonly #cgroup: LabCgroup | null;

  constructor(facts: HostFacts, namespaces: HostNamespaces, cgroup: LabCgroup | null) {
    this.name = facts.name;
    this.ip4 = facts.ip4;
    this.ip6 = facts.ip6;
    this.folder = facts.folder;
    this.#namespaces = namespaces;
    this.#cgroup = cgroup;
    mkdirSync(this.stateFolder, { recursive: true, mode: 0o700 });
    if (!existsSync(this.configFile)) writeFileSync(this.configFile, JSON.stringify({ hostName: this.name }));
  }

  /** Journals and images of the host's agent; outlives the host's namespaces, as a disk outlives a reboot. */
  get stateFolder(): string {
    return join(this.folder, 'state');
  }

  /** Configuration of the agent: nothing but the host's name until the lab has configured its agents. */
  get configFile(): string {
    return join(this.folder, 'agent.json');
  }

  get agentLog(): string {
    return join(this.folder, 'agent.log');
  }

  get environment(): Readonly<Record<string, string>> {
    return { PHAUL_STATE_DIR: this.stateFolder, PHAUL_RUN_DIR: '/run/phaul', PHAUL_CONFIG: this.configFile };
  }

  /** Pid 1 of the host as the machine counts. */
  get initPid(): number {
    return this.#namespaces.initPid;
  }

  /** How the host sees `path`, seen from the machine (for /run, /proc and private folders). */
  outside(path: string): string {
    return join(`/proc/${this.initPid}/root`, path);
  }

  /** argv that enters the host and becomes `argv` there, in the cgroup `work` or `agent`. */
  entering(argv: readonly string[], cgroup: 'work' | 'agent' = 'work'): string[] {
    const enter = ['nsenter', '-t', String(this.initPid), '-m', '-n', '-p', '-u', '-i'];
    const folder = this.#cgroup === null ? '' : join(this.#cgroup.folder, cgroup);
    if (this.#cgroup !== null) enter.push('-C');
    return ['sh', '-c', intoCgroup, 'sh', folder, ...enter, '--', ...argv];
  }

  /** Starts a program in the host, as an operator's shell there would. */
  spawn(argv: readonly string[], options: RunOptions = {}, cgroup: 'work' | 'agent' = 'work'): HostProcess {
    const [program = '', ...rest] = this.entering(argv, cgroup);
    const child = spawn(program, rest, {
      cwd: '/',
      stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.environment, ...options.env },
    });
    const started = new HostProcess(child);
    if (options.timeoutMs !== undefined) void endAfter(started, options.timeoutMs);
    return started;
  }

  /** Runs a program to its end, whatever its exit code. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return await this.spawn(argv, options).finished;
  }

  /** Runs a program that must succeed; returns its stdout. */
  async check(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    return mustSucceed(argv, this.name, await this.run(argv, options)).stdout;
  }

  /** argv of the phaul command as it stands in this checkout. */
  phaulArgv(args: readonly string[]): string[] {
    return [process.execPath, join(packageRoot, 'dist', 'src', 'cli', 'main.js'), ...args];
  }

  /** Runs `phaul ARGS` on this host, whatever its exit code. */
  async phaul(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return await this.run(this.phaulArgv(args), options);
  }

  /**
   * Starts a daemon the way it must be to be moved: a session of its own, its parent the host's pid 1, no descriptor but
   * stdio, and those inside the host's mount namespace. Returns its pid in the host.
   */
  async startAtHighPid(argv: readonly string[], order: StartOrder = {}): Promise<number> {
    const wanted = order.pid ?? 30_000;
    const env = {
      PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/',
      LANG: 'C.UTF-8',
      ...order.env,
    };
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    // Another fork on the host can take the pid first: then once more, a little higher.
    for (let attempt = 0; attempt < 5; attempt++) {
      const pid = wanted + attempt;
      await this.check([
        ...['bash', '-c', startAt, 'bash', String(pid), order.output ?? '/dev/null', order.folder ?? '/'],
        ...['env', '-i', ...variables, ...argv],
      ]);
      if (await this.#runs(pid)) return pid;
    }
    throw new PhaulError({
      code: 'lab-program-not-started',
      what: `${argv.join(' ')} did not stay alive on lab host ${this.name}`,
      remedy: `run it there by hand; its output is in ${order.output ?? '/dev/null'}`,
    });
  }

  /** True while a process with this pid runs in the host and is not a zombie. */
  isAlive(pid: number): boolean {
    const stat = this.#procFile(pid, 'stat');
    return stat !== null && !/\) [ZX] /.test(stat);
  }

  /** Every process of the host but pid 1: pid in the host and command name. */
  async processes(): Promise<{ pid: number; name: string }[]> {
    const list = await this.check(['ps', '-eo', 'pid=,comm=']);
    return list
      .trim()
      .split('\n')
      .map((line) => ({ pid: Number.parseInt(line, 10), name: line.trim().split(/\s+/)[1] ?? '' }))
      .filter(({ pid, name }) => pid !== 1 && name !== 'ps');
  }

  /** Power off: every process dies at once. The state folder stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#namespaces[Symbol.asyncDispose]();
    await this.#cgroup?.[Symbol.asyncDispose]();
  }

  /** True when the pid exists and has become the program, i.e. is neither setsid nor env any more. */
  async #runs(pid: number): Promise<boolean> {
    for (let look = 0; look < 200; look++) {
      const name = this.#procFile(pid, 'comm')?.trim();
      if (name === undefined) return false;
      if (name !== 'setsid' && name !== 'env') return this.isAlive(pid);
      await sleep(10);
    }
    return false;
  }

  #procFile(pid: number, name: string): string | null {
    try {
      return readFileSync(this.outside(`/proc/${pid}/${name}`), 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return null;
      throw error;
    }
  }
}

/**
 * setsid -f forks once more, and the child gets the pid after ns_last_pid (pid_namespaces(7)).
 * bash, since dash cannot close descriptors above 9.
 */
const startAt = `
pid=$1 output=$2 folder=$3; shift 3
exec </dev/null >>"$output" 2>&1
cd /proc/self/fd
for fd in *; do if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done
cd "$folder" || exit 1
echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid || exit 1
exec setsid -f "$@"
`;

async function endAfter(started: HostProcess, ms: number): Promise<void> {
  const timer = new AbortController();
  started.finished.then(
    () => timer.abort(),
    () => timer.abort(),
  );
  try {
    await sleep(ms, undefined, { signal: timer.signal });
  } catch {
    return; // Aborted: it has ended by itself.
  }
  await started.kill('SIGKILL');
}
