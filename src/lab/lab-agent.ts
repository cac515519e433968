/** The agent of a lab host: its configuration with certificates, its process, its log. */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { issueCertificates } from '../agent/control/certificates.js';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';
import type { HostProcess } from './host-process.js';
import type { LabHost } from './lab-host.js';

/** One port for control and pages, as everywhere. */
const agentPort = 7437;

export interface AgentOrder {
  /** Folder of the lab in which the authority keeps its files. */
  readonly certificates: string;
  readonly hosts: readonly LabHost[];
  /** Addresses that each host may send to each other, `IP/len`. */
  readonly mayMove: readonly string[];
}

/** Issues a certificate to each host and writes its configuration: every other host may send here. */
export async function configureAgents(order: AgentOrder): Promise<void> {
  const named = order.hosts.map((host) => ({
    name: host.name,
    alternatives: host.ip6 === null ? [host.ip4] : [host.ip4, host.ip6],
  }));
  const issued = await issueCertificates(order.certificates, named, 'lab');
  for (const host of order.hosts) {
    const own = issued.hosts.find((files) => files.name === host.name);
    if (own === undefined) throw new Error(`no certificate for ${host.name}`);
    const config = {
      hostName: host.name,
      listen: `${host.ip4}:${agentPort}`,
      tls: { ca: issued.ca, certificate: own.certificate, key: own.key },
      peers: order.hosts
        .filter((other) => other !== host)
        .map((other) => ({ name: other.name, mayMove: order.mayMove })),
      operators: ['lab'],
    };
    writeFileSync(host.configFile, JSON.stringify(config, null, 2), { mode: 0o600 });
  }
}

/** A running agent. Disposed: SIGTERM, then SIGKILL after 5 s. */
export class LabAgent implements AsyncDisposable {
  readonly process: HostProcess;
  readonly #host: LabHost;

  private constructor(host: LabHost, running: HostProcess) {
    this.#host = host;
    this.process = running;
  }

  /** Starts `phaul agent` on the host and returns when it answers on its socket. */
  static async start(host: LabHost, env: Readonly<Record<string, string>> = {}): Promise<LabAgent> {
    const log = openSync(host.agentLog, 'a', 0o600);
    const argv = host.phaulArgv(['agent', '--config', host.configFile]);
    const running = host.spawn(argv, { stdio: ['ignore', log, log], env }, 'agent');
    closeSync(log);
    const agent = new LabAgent(host, running);
    for (let attempt = 0; attempt < 500; attempt++) {
      if (!running.running) break;
      if (await answers(host.outside('/run/phaul/agent.sock'))) return agent;
      await sleep(20);
    }
    await running[Symbol.asyncDispose]();
    throw new PhaulError({
      code: 'lab-agent-not-started',
      what: `the agent of lab host ${host.name} did not come up: ${agent.log().trim().split('\n').slice(-5).join(' | ')}`,
      remedy: 'see its log above',
    });
  }

  log(): string {
    return readFileSync(this.#host.agentLog, 'utf8');
  }

  /** Sends a signal and waits for the end. SIGKILL is a crash. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.process.kill(signal);
    await this.process.finished;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.kill('SIGTERM');
    await Promise.race([this.process.finished, sleep(5000, undefined, { ref: false })]);
    await this.process[Symbol.asyncDispose]();
  }
}

async function answers(socketPath: string): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const socket = connect({ path: socketPath });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      const errno = errnoOf(error);
      if (errno === 'ENOENT' || errno === 'ECONNREFUSED') resolve(false);
      else reject(error);
    });
  });
}
