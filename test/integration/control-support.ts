/** What the tests of the control plane share: folders, certificates, duties that answer, an agent that listens. */
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { type AgentConfig, parseConfig, type TlsFiles } from '../../src/agent/config.js';
import {
  type IssuedCertificates,
  issueCertificates,
  parseCertifiedHost,
} from '../../src/agent/control/certificates.js';
import type { FrontDoorLimits, PageEntrance } from '../../src/agent/control/front-door.js';
import { RunLock } from '../../src/agent/control/run-folder.js';
import { AgentServer } from '../../src/agent/control/server.js';
import type { AgentDuties } from '../../src/agent/duties.js';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { defaultOrder, type MigrationOrder } from '../../src/migration/order.js';
import type { LandingRequest } from '../../src/migration/ports.js';

export const silent = pino({ level: 'silent' });

export class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'phaul-control-'));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export function certificates(folder: string, ...hosts: string[]): Promise<IssuedCertificates> {
  return issueCertificates(folder, hosts.map(parseCertifiedHost), 'alice');
}

export interface ConfigWishes {
  readonly name: string;
  readonly certificates?: string;
  /** File name without `.pem`; default the host's own. */
  readonly certificate?: string;
  readonly listen?: string;
  readonly peers?: unknown;
  readonly operators?: string[];
}

export function config(folder: string, wishes: ConfigWishes): AgentConfig {
  const { certificates: from, certificate = wishes.name } = wishes;
  const tls =
    from === undefined
      ? null
      : {
          ca: join(from, 'ca.pem'),
          certificate: join(from, `${certificate}.pem`),
          key: join(from, `${certificate}.key`),
        };
  const text = JSON.stringify({
    hostName: wishes.name,
    listen: wishes.listen ?? null,
    tls,
    peers: wishes.peers ?? [],
    operators: wishes.operators ?? [],
    stateDirectory: join(folder, 'state'),
  });
  return parseConfig(text, 'test', { PHAUL_RUN_DIR: join(folder, `run-${wishes.name}`) });
}

export function tlsOf(ofConfig: AgentConfig): TlsFiles {
  if (ofConfig.tls === null) throw new Error('this configuration has no certificates');
  return ofConfig.tls;
}

export class Pages implements PageEntrance {
  readonly preface = Buffer.from('PHAULPG1');
  readonly admitted: Socket[] = [];

  admit(connection: Socket): void {
    this.admitted.push(connection);
    connection.on('data', (bytes) => connection.write(bytes));
  }
}

/** Duties that remember their calls. What a test needs otherwise it overrides. */
export function duties(
  hostName: string,
  own: { peer?: Partial<AgentDuties['peer']>; operator?: Partial<AgentDuties['operator']> } = {},
) {
  const calls: string[] = [];
  const note = <T>(name: string, answer: T): T => {
    calls.push(name);
    return answer;
  };
  const never = (): never => {
    throw new PhaulError({ code: 'unknown-migration', what: 'there is no such migration', remedy: 'phaul status' });
  };
  const whole: AgentDuties = {
    peer: {
      facts: async () =>
        note('facts', { hostName, bootId: 'b', kernel: 'k', pageSize: 4096, engineVersion: '4.2.1', cpuInfo: null }),
      check: async () => note('check', []),
      prepare: async () => note('prepare', { pageToken: Buffer.alloc(32, 7) }),
      ownerOf: async () => null,
      arm: async () => note('arm', undefined),
      restoreAndHold: async () => note('restoreAndHold', { restoreMs: 12.5 }),
      keepImages: async () => note('keepImages', '/images'),
      takeOver: async (_id, { packets }) =>
        note('takeOver', {
          pid: 42,
          timeline: [{ step: 'unfenced', at: 1.5 }],
          replayedPackets: packets.length,
          remarks: ['r'],
          imagesFolder: null,
        }),
      abort: async () => note('abort', undefined),
      heartbeat: () => true,
      wordAsDestination: async () => note('wordAsDestination', 'ready' as const),
      wordAsSource: async () => note('wordAsSource', 'undecided' as const),
      ...own.peer,
    },
    operator: {
      migrate: never,
      watch: never,
      status: async () => note('status', []),
      cancel: async () => note('cancel', undefined),
      recover: async () => note('recover', []),
      leftovers: async () => note('leftovers', []),
      engine: async () => note('engine', { path: '/usr/sbin/criu', version: '4.2.1', why: 'installed' }),
      ...own.operator,
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
  return { ...whole, calls };
}

export async function agent(
  ofConfig: AgentConfig,
  ofDuties: AgentDuties,
  pages: PageEntrance = new Pages(),
  limits?: FrontDoorLimits,
): Promise<AsyncDisposable & { readonly socketPath: string; readonly tcpPort: number | null }> {
  const lock = RunLock.take(ofConfig.runDirectory);
  try {
    const server = await AgentServer.open(ofConfig, lock, ofDuties, pages, silent, limits);
    return {
      socketPath: server.socketPath,
      tcpPort: server.tcpPort,
      [Symbol.asyncDispose]: async () => {
        await server[Symbol.asyncDispose]();
        lock[Symbol.dispose]();
      },
    };
  } catch (thrown) {
    lock[Symbol.dispose]();
    throw thrown;
  }
}

export function order(id: string, changes: Partial<MigrationOrder> = {}): MigrationOrder {
  return { ...defaultOrder, id, pid: 1234, ...changes };
}

export function landingRequest(id: string, changes: Partial<MigrationOrder> = {}): LandingRequest {
  return {
    order: order(id, changes),
    sourceHost: 'a',
    tree: {
      bootId: '00000000-0000-0000-0000-000000000000',
      pidNamespace: 4026531836,
      tasks: [{ pid: 1234, startTime: 5 }],
    },
    memoryBytes: 2 ** 33,
    tcpEstablished: true,
    treeFacts: '{}',
  };
}

/** The code of the PhaulError that `work` ends with; anything else is thrown on. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (thrown) {
    if (thrown instanceof PhaulError) return thrown.code;
    throw thrown;
  }
  return 'no failure';
}
