/**
 * The namespaces that make a host, and their pid 1. Nothing has a name on the machine: whoever holds pid 1's
 * `/proc/PID/ns` can enter, and all of it is gone when pid 1 is.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PhaulError } from '../failure/phaul-error.js';
import { packageRoot } from '../native/addon.js';

export interface NamespaceOrder {
  readonly hostName: string;
  /** Folder of the host's cgroup v2, or null. */
  readonly cgroup: string | null;
  /** File that becomes /etc/hosts there. */
  readonly hostsFile: string;
  /** Folders that are empty tmpfs of this host's own, e.g. `/srv`: separate file systems. */
  readonly privateFolders: readonly string[];
}

/** A pid 1 that only reaps, with its namespaces. Disposed: SIGKILL to pid 1, which takes every process inside with it. */
export class HostNamespaces implements AsyncDisposable {
  readonly #unshare: ChildProcess;
  /** Pid 1 as the machine counts. */
  readonly initPid: number;

  private constructor(unshare: ChildProcess, initPid: number) {
    this.#unshare = unshare;
    this.initPid = initPid;
  }

  static async create(order: NamespaceOrder): Promise<HostNamespaces> {
    const reaper = join(packageRoot, 'build', 'phaul-reaper');
    if (!existsSync(reaper)) {
      throw new PhaulError({
        code: 'lab-not-built',
        what: `pid 1 of a lab host, ${reaper}, has not been built`,
        remedy: 'build it: ./phaul setup (or npm run build:native)',
      });
    }
    // PDEATHSIG twice (prctl(2)): should this process be killed, unshare dies, and with it pid 1.
    const unshare = spawn(
      'sh',
      [
        '-c',
        intoCgroup,
        'sh',
        order.cgroup ?? '',
        ...['setpriv', '--pdeathsig', 'KILL', 'unshare', '--fork', '--kill-child=KILL', '--propagation', 'private'],
        ...['--mount', '--net', '--pid', '--uts', '--ipc', ...(order.cgroup === null ? [] : ['--cgroup'])],
        ...['sh', '-c', furnish, 'sh', order.hostName, order.hostsFile, order.cgroup ?? '', reaper],
        ...order.privateFolders,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' },
    );
    try {
      await readiness(unshare, order.hostName);
      return new HostNamespaces(unshare, childOf(unshare.pid ?? 0));
    } catch (error) {
      unshare.kill('SIGKILL');
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#unshare.exitCode !== null || this.#unshare.signalCode !== null) return;
    const gone = once(this.#unshare, 'exit');
    process.kill(this.initPid, 'SIGKILL');
    await gone;
  }
}

/** Moves itself into the cgroup (if any) and becomes the rest of its arguments. */
export const intoCgroup = 'if [ -n "$1" ]; then echo $$ > "$1/cgroup.procs" || exit 125; fi; shift; exec "$@"';

/**
 * Runs as pid 1 before it becomes the reaper: own /proc, /sys (of this network namespace, with cgroup v2 inside), /run and
 * a devpts of its own, else restoring a pty collides with the other host's (dangers.md 43).
 */
const furnish = `
set -e
name=$1 hosts=$2 cgroup=$3 reaper=$4; shift 4
mount -t proc proc /proc
umount -n -l /sys
mount -t sysfs sysfs /sys
if [ -n "$cgroup" ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
mount -t tmpfs -o mode=755 tmpfs /run
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
mount --bind "$hosts" /etc/hosts
for folder; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
echo "$name" > /proc/sys/kernel/hostname
# Without it an added IPv6 address is useless for a second (duplicate address detection).
if [ -e /proc/sys/net/ipv6 ]; then
  echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
  echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
fi
ip link set lo up
echo ready
exec "$reaper" >/dev/null 2>&1
`;

async function readiness(unshare: ChildProcess, hostName: string): Promise<void> {
  let said = '';
  unshare.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ready = new Promise<void>((resolve, reject) => {
    unshare.stdout?.once('data', () => resolve());
    unshare.once('error', reject);
    unshare.once('close', () => {
      reject(
        new PhaulError({
          code: 'lab-host-not-made',
          what: `the namespaces of lab host ${hostName} could not be made: ${said.trim() || 'no message'}`,
          remedy:
            'run as root on Linux with network, pid, mount, uts and ipc namespaces, and build first (./phaul setup)',
        }),
      );
    });
  });
  await ready;
  unshare.stdout?.destroy();
  unshare.stderr?.destroy();
}

/** First child of a process of ours that forks exactly once. */
export function childOf(pid: number): number {
  const child = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
  if (!Number.isInteger(child) || child === 0) {
    throw new PhaulError({
      code: 'lab-process-gone',
      what: `process ${pid} has no child`,
      remedy: 'it ended before it could be looked at: see its output',
    });
  }
  return child;
}

/** The child as soon as it exists; waits at most 5 s for it. */
export async function awaitChildOf(pid: number): Promise<number> {
  for (let attempt = 0; attempt < 500; attempt++) {
    try {
      return childOf(pid);
    } catch (error) {
      if (!(error instanceof PhaulError)) throw error;
      await sleep(10);
    }
  }
  return childOf(pid);
}
