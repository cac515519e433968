/** This host as the source of a migration. */
import { type Engine, formatVersion } from '../../criu/engine.js';
import type { Lifetime } from '../../migration/lifetime.js';
import type { MigrationOrder } from '../../migration/order.js';
import type { Departure, Finding, LandingRequest, SourceHost, SourceVerdict } from '../../migration/ports.js';
import { checkAddressOnSource } from '../../network/address-checks.js';
import { checkConnectionsOnSource, connectionFacts } from '../../network/connection-checks.js';
import { isConnected, loopbackPortsInsideTree } from '../../network/connections.js';
import { listAddresses, listInterfaces } from '../../network/interfaces.js';
import { promotesSecondaries } from '../../network/moved-address.js';
import { readSockets, type SocketEntry, socketsOf, type TreeSockets } from '../../network/sockets.js';
import { readNetworkSysctls } from '../../network/sysctls.js';
import { comparedWhenFrozen } from '../../preflight/file-checks.js';
import { inspectTree, type OpenMigration, type TreeInspection } from '../../preflight/inspect-tree.js';
import type { EngineNeeds } from '../engine-options.js';
import type { TravellingFacts } from '../travelling-facts.js';
import { describeCpu, ignoresCpu } from './cpu-check.js';
import { LocalDeparture } from './departure.js';

export interface SourceParts {
  readonly hostName: string;
  readonly engine: Engine;
  readonly pageSize: number;
  /** How the operator named the destination. */
  readonly destination: string;
  /** Migrations of this host that have not ended: none of their tasks may be in this tree. */
  readonly open: readonly OpenMigration[];
}

export class LocalSource implements SourceHost, AsyncDisposable {
  readonly #parts: SourceParts;
  #inspection: TreeInspection | null = null;
  #needs: EngineNeeds = { fileLocks: false, linkRemap: false, ghostLimit: null, extUnixSk: false };

  constructor(parts: SourceParts) {
    this.#parts = parts;
  }

  get name(): string {
    return this.#parts.hostName;
  }

  async inspect(order: MigrationOrder, life: Lifetime): Promise<SourceVerdict> {
    const inspection = await inspectTree(order, this.name, life.signal, this.#parts.open);
    this.#inspection = inspection;
    const { tree } = inspection;
    this.#needs = inspection.needs;
    // Without a tree there are no sockets to look at; its blockers say why.
    const network =
      tree.tasks.length === 0
        ? null
        : await this.#inspectNetwork(
            order,
            tree.tasks.map((task) => task.pid),
            life,
          );
    const facts: TravellingFacts = {
      network: network?.facts ?? { connections: [], loopbackPorts: [], sysctls: await readNetworkSysctls() },
      engineVersion: formatVersion(this.#parts.engine.version),
      cpuInfo: tree.tasks.length === 0 ? null : await this.#cpuInfo(order),
      stdio: inspection.stdio,
      tree: inspection.facts,
    };
    const hasConnections = facts.network.connections.some((each) =>
      isConnected({ protocol: each.protocol, state: each.state as never }),
    );
    const request: LandingRequest = {
      order,
      sourceHost: this.name,
      tree,
      memoryBytes: inspection.memoryBytes,
      tcpEstablished: order.tcp === 'established' || (order.tcp === 'auto' && hasConnections),
      treeFacts: JSON.stringify(facts),
    };
    return { request, findings: [...inspection.findings, ...(network?.findings ?? [])] };
  }

  async prepare(request: LandingRequest, findings: readonly Finding[], life: Lifetime): Promise<Departure> {
    // The destination has looked at what the inspection left beside files.
    await this.#inspection?.[Symbol.asyncDispose]();
    return await LocalDeparture.prepare(
      {
        request,
        engine: this.#parts.engine,
        needs: this.#needs,
        destination: this.#parts.destination,
        pageSize: this.#parts.pageSize,
        hashWrittenFiles: findings.some((finding) => finding.code === comparedWhenFrozen),
      },
      life,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inspection?.[Symbol.asyncDispose]();
  }

  /** Asked for once an agent: a CPU does not change. */
  async #cpuInfo({ engine }: MigrationOrder): Promise<string | null> {
    return ignoresCpu(engine.cpuCap) ? null : await describeCpu(this.#parts.engine);
  }

  async #inspectNetwork(
    order: MigrationOrder,
    pids: readonly number[],
    life: Lifetime,
  ): Promise<{ facts: TravellingFacts['network']; findings: Finding[] }> {
    const [interfaces, own] = await Promise.all([listInterfaces(life.signal), socketsOf(['self'])]);
    const { sockets, tree } = await lastingSockets(order.pid, pids);
    const promoting = new Set<string>();
    for (const { name } of interfaces) if (await promotesSecondaries(name)) promoting.add(name);
    const hostIps = listAddresses(interfaces).map((address) => address.ip);
    const findings = [
      ...checkConnectionsOnSource({ host: this.name, sockets, tree, hostIps }),
      ...order.addresses.flatMap((address) =>
        checkAddressOnSource(address, { host: this.name, interfaces, sockets, tree, own, promoting }),
      ),
    ];
    return {
      facts: {
        connections: [...connectionFacts(sockets, tree)],
        loopbackPorts: [...loopbackPortsInsideTree(sockets, tree)],
        sysctls: await readNetworkSysctls(),
      },
      findings,
    };
  }
}

/**
 * The sockets that were there twice, with everybody in the tree who held one at either time: between two looks at /proc
 * a program accepts and closes connections, which then seem to be nobody's.
 */
async function lastingSockets(
  root: number,
  pids: readonly number[],
): Promise<{ sockets: SocketEntry[]; tree: TreeSockets }> {
  const first = await readSockets(root);
  const held = await socketsOf(pids);
  const second = new Set((await readSockets(root)).map((socket) => socket.inode));
  const tree = new Map([...held, ...(await socketsOf(pids))]);
  return { sockets: first.filter((socket) => second.has(socket.inode)), tree };
}
