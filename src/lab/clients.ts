/**
 * Clients that measure a move from their side: the program `client` of test/targets in a host of its own, against the
 * program `server` there. Times are taken in C, beside the socket; see test/targets/README.md for the protocol.
 */

import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { PhaulError } from '../failure/phaul-error.js';
import { packageRoot } from '../native/addon.js';
import type { HostProcess } from './host-process.js';
import type { LabHost } from './lab-host.js';

export interface ClientOrder {
  readonly address: string;
  readonly port: number;
  readonly connections: number;
  /** `closed`: next request after the reply. `open`: a request each `thinkMs`, whatever comes back (dangers.md 39). */
  readonly mode: 'closed' | 'open';
  /** ms; pause of a closed loop, period of an open one. */
  readonly thinkMs: number;
  /** One more client that keeps connecting anew. */
  readonly connectLoop: boolean;
  /** At the end the server verifies all of its memory. */
  readonly verifyAtEnd: boolean;
}

export const twentyClosedLoops: Omit<ClientOrder, 'address' | 'port'> = {
  connections: 20,
  mode: 'closed',
  thinkMs: 0,
  connectLoop: true,
  verifyAtEnd: true,
};

const connectedLine = z.object({ event: z.literal('connected'), ports: z.array(z.number()) });

const summaryLine = z.object({
  event: z.literal('summary'),
  connections: z.number(),
  lost: z.number(),
  errors: z.number(),
  corrupt: z.number(),
  requests: z.number(),
  silence_ms: z.array(z.number()),
  silence_ms_p50: z.number(),
  silence_ms_max: z.number(),
  latency_ms_p50: z.number(),
  latency_ms_max: z.number(),
  hosts: z.record(z.string(), z.number()),
  new_connections: z.object({ ok: z.number(), failed: z.number(), max_ms: z.number() }),
  ports: z.array(z.number()),
  bad_pages: z.number().nullable(),
  first_error: z.string().nullable(),
});

/** What the clients have seen since `mark()`; times in ms. */
export interface ClientReport {
  readonly connections: number;
  /** Requests without a reply, broken connections, wrong replies. */
  readonly lost: number;
  readonly errors: number;
  readonly corrupt: number;
  readonly requests: number;
  /** Local ports at the start, and those of the connections that live at the end. */
  readonly portsBefore: readonly number[];
  readonly portsAfter: readonly number[];
  /** Longest time between two replies: of each connection, their median, the worst. */
  readonly longestSilenceMs: { readonly each: readonly number[]; readonly p50: number; readonly max: number };
  /** Longest time from a request to its reply: median over the connections, the worst. */
  readonly longestReplyMs: { readonly p50: number; readonly max: number };
  /** Replies by the name of the host that gave them. */
  readonly hostAnswers: ReadonlyMap<string, number>;
  readonly newConnections: { readonly ok: number; readonly failed: number; readonly maxMs: number };
  /** What the server found in its own memory; null if not asked or not answered. */
  readonly badPages: number | null;
  readonly firstError: string | null;
}

/** True when not a request, a connection or a page was harmed. */
export function isUnharmed(report: ClientReport): boolean {
  const kept = report.portsAfter.length === report.connections && samePorts(report.portsBefore, report.portsAfter);
  const fine = report.lost === 0 && report.errors === 0 && report.corrupt === 0 && (report.badPages ?? 0) === 0;
  return kept && fine && report.newConnections.failed === 0;
}

/** Running clients. Disposed: killed. */
export class LabClients implements AsyncDisposable {
  readonly #process: HostProcess;
  readonly #lines: AsyncIterator<string>;
  #ports: readonly number[] = [];

  private constructor(running: HostProcess) {
    this.#process = running;
    const { stdout } = running.child;
    if (stdout === null) throw new Error('the clients have no stdout');
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** Returns when all connections stand and requests flow. */
  static async start(host: LabHost, order: ClientOrder): Promise<LabClients> {
    const argv = [
      join(packageRoot, 'build', 'targets', 'client'),
      '--address',
      order.address,
      '--port',
      `${order.port}`,
    ];
    argv.push('--connections', `${order.connections}`, '--mode', order.mode, '--think-ms', `${order.thinkMs}`);
    if (order.connectLoop) argv.push('--connect-loop');
    if (order.verifyAtEnd) argv.push('--verify-at-end');
    const clients = new LabClients(host.spawn(argv));
    try {
      clients.#ports = connectedLine.parse(await clients.#next()).ports;
      return clients;
    } catch (error) {
      await clients[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Silences count from here on. */
  async mark(): Promise<void> {
    await this.#process.kill('SIGUSR1');
    await this.#next();
  }

  /** Ends the clients; every request that is out is waited for. */
  async finish(): Promise<ClientReport> {
    await this.#process.kill('SIGTERM');
    const summary = summaryLine.parse(await this.#next());
    await this.#process.finished;
    return {
      connections: summary.connections,
      lost: summary.lost,
      errors: summary.errors,
      corrupt: summary.corrupt,
      requests: summary.requests,
      portsBefore: this.#ports,
      portsAfter: summary.ports,
      longestSilenceMs: { each: summary.silence_ms, p50: summary.silence_ms_p50, max: summary.silence_ms_max },
      longestReplyMs: { p50: summary.latency_ms_p50, max: summary.latency_ms_max },
      hostAnswers: new Map(Object.entries(summary.hosts)),
      newConnections: {
        ok: summary.new_connections.ok,
        failed: summary.new_connections.failed,
        maxMs: summary.new_connections.max_ms,
      },
      badPages: summary.bad_pages,
      firstError: summary.first_error,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }

  async #next(): Promise<unknown> {
    const line = await this.#lines.next();
    if (line.done !== true) return JSON.parse(line.value);
    const { stderr } = await this.#process.finished;
    throw new PhaulError({
      code: 'lab-clients-failed',
      what: `the clients ended early: ${stderr.trim() || 'no message'}`,
      remedy: 'is the server up, and its address on a host of the lab?',
    });
  }
}

export interface ServerOrder {
  readonly address: string;
  readonly port: number;
  /** Size of the memory that the server fills with pages it can verify, MiB. */
  readonly memoryMib: number;
  /** Pages that it writes anew, per second. */
  readonly dirtyRate: number;
  readonly pid: number;
}

/** Starts the self-verifying server on a host, its address (already there) given. Returns its pid when it listens. */
export async function startServer(host: LabHost, order: ServerOrder): Promise<number> {
  const program = join(packageRoot, 'build', 'targets', 'server');
  const control = `/run/server-${order.port}.ready`;
  const argv = [program, '--port', `${order.port}`, '--bind', order.address, '--mib', `${order.memoryMib}`];
  argv.push('--dirty-rate', `${order.dirtyRate}`, '--name-from-hostname', '--control', control);
  const pid = await host.startAtHighPid(argv, { pid: order.pid });
  await waitForReady(host, control, pid);
  return pid;
}

/** Waits until a target has written its ready line; 60 s at most. */
export async function waitForReady(host: LabHost, control: string, pid: number): Promise<void> {
  const script = `for i in $(seq 6000); do [ -s "$1" ] && exit 0; [ -e "/proc/$2" ] || exit 3; sleep 0.01; done; exit 4`;
  const { exitCode } = await host.run(['sh', '-c', script, 'sh', control, String(pid)]);
  if (exitCode === 0) return;
  throw new PhaulError({
    code: 'lab-target-not-ready',
    what: `a target on lab host ${host.name} ${exitCode === 3 ? 'ended before it was ready' : 'was not ready within 60 s'}`,
    remedy: 'run it by hand to see why',
  });
}

function samePorts(before: readonly number[], after: readonly number[]): boolean {
  const sorted = (ports: readonly number[]): string => [...ports].sort((one, other) => one - other).join();
  return sorted(before) === sorted(after);
}
