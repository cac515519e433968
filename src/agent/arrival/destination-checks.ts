/** This host looks at a tree that wants to come; nothing is touched. */
import { canRestore, type Engine, formatVersion, parseVersion } from '../../criu/engine.js';
import { messageOf } from '../../failure/phaul-error.js';
import { stateDirectory } from '../../host/state.js';
import type { MigrationOrder } from '../../migration/order.js';
import type { Finding, LandingRequest } from '../../migration/ports.js';
import { checkAddressOnDestination } from '../../network/address-checks.js';
import { checkConnectionsOnDestination } from '../../network/connection-checks.js';
import type { TreeConnection } from '../../network/connections.js';
import { listAddresses, listInterfaces } from '../../network/interfaces.js';
import { compareSysctls, readNetworkSysctls } from '../../network/sysctls.js';
import { checkDestination } from '../../preflight/destination-checks.js';
import { parseTreeFacts } from '../../preflight/tree-facts.js';
import { checkCpu, ignoresCpu } from '../departure/cpu-check.js';
import { checkStdio } from '../departure/stdio-checks.js';
import { parseTravellingFacts, type TravellingFacts } from '../travelling-facts.js';

export interface LandingCheck {
  readonly hostName: string;
  readonly engine: () => Promise<Engine>;
  /** Id of a migration that is bringing one of these tasks or addresses already, or null. */
  readonly busy: string | null;
  readonly signal: AbortSignal;
}

export async function checkLanding(request: LandingRequest, check: LandingCheck): Promise<Finding[]> {
  const facts = parseTravellingFacts(request.treeFacts);
  const { hostName: host, signal } = check;
  const [interfaces, sysctls, tree, engine] = await Promise.all([
    listInterfaces(signal),
    readNetworkSysctls(),
    checkDestination(
      parseTreeFacts(facts.tree),
      request.order,
      { host, stateFolder: stateDirectory(), comparesFrozenFiles: true },
      signal,
    ),
    checkEngines(facts, request.order, check),
  ]);
  const connections = facts.network.connections as readonly TreeConnection[];
  const { order } = request;
  return [
    ...engine,
    ...checkBusy(check),
    ...checkStdio(order, host),
    ...order.addresses.flatMap((address) => checkAddressOnDestination(address, host, interfaces)),
    ...checkConnectionsOnDestination({
      host,
      connections,
      movedIps: order.addresses.map((address) => address.ip),
      hostIps: listAddresses(interfaces).map((address) => address.ip),
      keepEstablished: request.tcpEstablished,
    }),
    ...compareSysctls(facts.network.sysctls, sysctls, needsOf(connections, request), host),
    ...tree,
  ];
}

function needsOf(connections: readonly TreeConnection[], request: LandingRequest) {
  return {
    pingSockets: connections.some((each) => each.protocol === 'icmp'),
    ipv6Sockets: connections.some((each) => each.ipv6),
    listeners: connections.some((each) => each.state === 'listen'),
    tcpEstablished: request.tcpEstablished,
  };
}

/** The CPU is asked about only where there is an engine that can tell. */
async function checkEngines(facts: TravellingFacts, order: MigrationOrder, check: LandingCheck): Promise<Finding[]> {
  const findings = await checkEngine(facts.engineVersion, check);
  if (findings.length > 0 || facts.cpuInfo === null || ignoresCpu(order.engine.cpuCap)) return findings;
  return await checkCpu(facts.cpuInfo, await check.engine(), order.engine.cpuCap, check.hostName);
}

async function checkEngine(theirs: string, { hostName, engine }: LandingCheck): Promise<Finding[]> {
  const blocker = (code: string, what: string, why: string, remedy: string): Finding => ({
    code,
    weight: 'blocker',
    host: hostName,
    what,
    why,
    remedy,
    pid: null,
    fd: null,
  });
  let mine: Engine;
  try {
    mine = await engine();
  } catch (thrown) {
    return [
      blocker('no-engine', `${hostName} has no CRIU that works`, messageOf(thrown), `run ./phaul setup on ${hostName}`),
    ];
  }
  const version = parseVersion(theirs);
  if (version !== null && canRestore(mine.version, version)) return [];
  return [
    blocker(
      'engine-older',
      `${hostName} has CRIU ${formatVersion(mine.version)}, the source has ${theirs}`,
      'images can only be restored by the same or a newer CRIU, on the same side of 4.2',
      `install CRIU ${theirs} or newer on ${hostName}`,
    ),
  ];
}

function checkBusy({ busy, hostName }: LandingCheck): Finding[] {
  if (busy === null) return [];
  return [
    {
      code: 'target-busy',
      weight: 'blocker',
      host: hostName,
      what: `migration ${busy} brings the same pid or address to ${hostName}`,
      why: 'two migrations may not share a task, a pid or an address',
      remedy: `wait for it, or phaul cancel ${busy}`,
      pid: null,
      fd: null,
    },
  ];
}
