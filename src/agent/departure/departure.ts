/** Everything that the source sets up while the tree runs, so that the window only has to use it; and how it is undone. */
import { constants } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine } from '../../criu/engine.js';
import { EngineSession } from '../../criu/session.js';
import { PhaulError } from '../../failure/phaul-error.js';
import type { Hooks } from '../../hooks/hooks.js';
import { type CgroupOrigin, cgroupOf, LeafCgroup } from '../../host/cgroup.js';
import { MigrationLock } from '../../host/lock.js';
import { OwnedFd } from '../../host/owned-fd.js';
import { migrationFolder } from '../../host/state.js';
import { bootId, hasEnded, pidNamespace, readStat, treeOf } from '../../host/tasks.js';
import { lockTableRunId } from '../../images/inventory.js';
import { removeLinkRemaps } from '../../images/link-remaps.js';
import type { Lifetime } from '../../migration/lifetime.js';
import type { Departure, FrozenTree, ImageSink, LandingRequest } from '../../migration/ports.js';
import { addon } from '../../native/addon.js';
import { treeListeners, waitForAccepted, waitForOrphans } from '../../network/connections.js';
import { listInterfaces } from '../../network/interfaces.js';
import { type PlacedAddress, placeHere } from '../../network/moved-address.js';
import { Replayer } from '../../network/replayer.js';
import { readSockets, socketsOf, type TreeSockets } from '../../network/sockets.js';
import { SourceCatcher } from '../../network/source-catcher.js';
import { SourceFence } from '../../network/source-fence.js';
import { parseTreeFacts } from '../../preflight/tree-facts.js';
import { dumpOptions, type EngineNeeds } from '../engine-options.js';
import { type CgroupGround, cgroupGround, helpersOf } from '../helper-cgroup.js';
import { hooksOf } from '../hooks-of.js';
import { JanitorLink } from '../recovery/janitor-link.js';
import { JournalFile } from '../recovery/journal-file.js';
import { parseTravellingFacts } from '../travelling-facts.js';
import { UndoStack } from '../undo-stack.js';
import { DepartingTree, type FreezeGear } from './frozen-tree.js';

export interface DeparturePlan {
  readonly request: LandingRequest;
  readonly engine: Engine;
  readonly needs: EngineNeeds;
  /** How the operator named the destination, for whoever goes on after a crash. */
  readonly destination: string;
  readonly pageSize: number;
  /** The destination could not see that the files which the tree writes to are the same there. */
  readonly hashWrittenFiles: boolean;
}

/** Bytes in CRIU's page socket each way: what CRIU can run ahead of us. */
const pageSocketBytes = 4 << 20;
/** How long the program gets to accept what is on its way to its listeners, ms (dangers.md 13). */
const acceptMs = 100;

interface Primed {
  readonly session: EngineSession;
  readonly pageSocket: OwnedFd;
}

export class LocalDeparture implements Departure {
  readonly remarks: string[] = [];
  readonly #plan: DeparturePlan;
  readonly #undo = new UndoStack();
  /** Lock and journal: given back last. */
  readonly #ownership = new UndoStack();
  readonly #folder: string;
  readonly #dumpFolder: string;
  readonly #hooks: Hooks;
  #journal: JournalFile | null = null;
  #janitor: JanitorLink | null = null;
  #leaf: LeafCgroup | null = null;
  #fence: SourceFence | null = null;
  #catcher: SourceCatcher | null = null;
  #replayer: Replayer | null = null;
  #addresses: readonly PlacedAddress[] = [];
  #primed: Primed | null = null;
  #frozen: DepartingTree | null = null;

  private constructor(plan: DeparturePlan) {
    this.#plan = plan;
    this.#folder = migrationFolder(plan.request.order.id);
    this.#dumpFolder = join(this.#folder, 'dump');
    this.#hooks = hooksOf(plan.request, 'source', this.#dumpFolder);
  }

  /** The tree keeps running. When this throws, everything is undone. */
  static async prepare(plan: DeparturePlan, life: Lifetime): Promise<LocalDeparture> {
    const departure = new LocalDeparture(plan);
    try {
      await departure.#setUp(life);
      return departure;
    } catch (thrown) {
      await departure[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  async freeze(sink: ImageSink, life: Lifetime): Promise<FrozenTree> {
    await this.#hooks.run('freeze', life.signal);
    if (this.#plan.request.order.leaveRunning)
      this.remarks.push(`criu restore -d ${plainRestore(this.#plan.request)} -D IMAGES restores them`);
    const sentBefore = sink.bytesSent;
    for (let attempt = 1; ; attempt++) {
      await this.#holdNewConnections();
      try {
        this.#frozen = await DepartingTree.take(this.#gear(), sink, life);
        return this.#frozen;
      } catch (thrown) {
        const inFlight = thrown instanceof PhaulError && thrown.code === 'tcp-in-flight';
        // One connection that came in the last moment fails the dump; the second try finds it accepted (dangers.md 13).
        if (!inFlight || attempt > 1 || sink.bytesSent !== sentBefore) throw thrown;
        this.#catcher?.shut();
        this.#fence?.releaseNewConnections();
        await rm(this.#dumpFolder, { recursive: true, force: true });
        await this.#prime();
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const betweenLineAndGrave = this.#frozen !== null && !this.#frozen.livesHere && !this.#frozen.buried;
    if (betweenLineAndGrave) await this.#leaveToRecovery();
    else await this.#undo[Symbol.asyncDispose]();
  }

  /** Behind the line with a burial that did not end: fence, address and leaf are recovery's, which needs the lock. CRIU holds but the dead. */
  async #leaveToRecovery(): Promise<void> {
    this.#undo.release(['ownership', 'journal', 'janitor', 'leaf cgroup', 'fence']);
    try {
      await this.#undo[Symbol.asyncDispose]();
    } finally {
      await this.#ownership[Symbol.asyncDispose]().finally(() => this.#janitor?.takeOver());
    }
  }

  async #setUp(life: Lifetime): Promise<void> {
    const { request } = this.#plan;
    const { order, tree } = request;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const lock = await MigrationLock.tryTake(this.#folder);
    if (lock === null)
      throw new PhaulError({
        code: 'migration-busy',
        what: `another agent works on migration ${order.id}`,
        remedy: 'choose another id',
      });
    this.#ownership.own('lock', lock);
    this.#undo.own('ownership', this.#ownership);

    const interfaces = await listInterfaces(life.signal);
    this.#addresses = order.addresses.map((address) => placeHere(address, interfaces));
    const journal = await JournalFile.create(this.#folder);
    this.#journal = journal;
    this.#ownership.own('journal', journal);
    await journal.write({
      record: 'opened',
      id: order.id,
      role: 'source',
      bootId: bootId(),
      pidNamespace: pidNamespace('self'),
      tasks: [...tree.tasks],
      rootPid: order.pid,
      peer: this.#plan.destination,
      owner: null,
      addresses: [...order.addresses],
      request,
    });
    // Last to be undone before the journal closes: everything else is gone by then.
    this.#undo.defer('journal', () => this.#close());

    await this.#hooks.run('prepare', life.signal);
    const { ground, reason } = cgroupGround();
    if (ground === null)
      this.remarks.push(
        `no writable cgroup v2 (${reason}): a kill of CRIU while it holds the tree can cost connections`,
      );
    const origins = ground === null ? [] : this.#origins(ground);
    const parent = origins[0]?.cgroup ?? null;
    const leafName = `phaul-${order.id}`;
    const fenced = this.#isFenced();
    await journal.write({
      record: 'prepared',
      cgroup: parent === null ? null : join(parent, leafName),
      origins,
      fence: fenced ? order.id : null,
      imagesFolder: this.#dumpFolder,
      addresses: [...this.#addresses],
    });
    const janitor = await JanitorLink.start(order.id, this.#folder, ground === null ? null : helpersOf(ground));
    this.#janitor = this.#undo.own('janitor', janitor);

    if (parent !== null) await this.#moveIntoLeaf(parent, leafName, origins);
    if (fenced) await this.#setUpFence(interfaces, life);
    await this.#prime();
    life.throwIfEnded();
  }

  /** With moving addresses the fence is ours; without, CRIU locks each connection by itself (DESIGN 2). */
  #isFenced(): boolean {
    const { request } = this.#plan;
    const facts = parseTravellingFacts(request.treeFacts);
    return this.#addresses.length > 0 || (facts.network.loopbackPorts.length > 0 && !this.#criuLocks());
  }

  #criuLocks(): boolean {
    return this.#addresses.length === 0 && this.#plan.request.tcpEstablished;
  }

  #origins(ground: CgroupGround): CgroupOrigin[] {
    return treeOf(this.#plan.request.order.pid).flatMap((pid) => {
      const cgroup = cgroupOf(pid, ground.mount);
      return cgroup === null ? [] : [{ pid, cgroup }];
    });
  }

  /** A newborn of a task that was not yet moved is born outside: move until the leaf holds the whole tree. */
  async #moveIntoLeaf(parent: string, name: string, origins: readonly CgroupOrigin[]): Promise<void> {
    const { order } = this.#plan.request;
    const leaf = LeafCgroup.create(parent, name);
    this.#leaf = leaf;
    this.#undo.defer('leaf cgroup', async () => {
      leaf.thaw();
      leaf.moveBack(origins);
      await leaf.remove();
      await this.#removeAncestorsOfOurs(parent);
    });
    for (let round = 0; round < 50; round++) {
      const inside = new Set(leaf.members());
      // A zombie stays where it died, and cgroup.procs does not list it (cgroup-v2.rst).
      const living = treeOf(order.pid).filter((pid) => isLiving(pid));
      const outside = living.filter((pid) => !inside.has(pid));
      if (outside.length === 0) return;
      leaf.moveIn(outside);
    }
    throw new PhaulError({
      code: 'tree-too-restless',
      what: 'the tree gives birth faster than its tasks can be moved into a cgroup',
      remedy: 'try again when it is calmer',
    });
  }

  /** The leaf of an earlier arrival is empty now that its tree has left. */
  async #removeAncestorsOfOurs(parent: string): Promise<void> {
    const { ground } = cgroupGround();
    if (ground === null || !parent.startsWith(`${ground.home}/`) || parent === helpersOf(ground)) return;
    const cgroup = LeafCgroup.at(parent);
    if (!cgroup.populated) await cgroup.remove();
  }

  async #setUpFence(interfaces: Awaited<ReturnType<typeof listInterfaces>>, life: Lifetime): Promise<void> {
    const { order, treeFacts } = this.#plan.request;
    const { loopbackPorts } = parseTravellingFacts(treeFacts).network;
    this.#fence = this.#undo.own('fence', await SourceFence.install(order.id, loopbackPorts, life.signal));
    const places = this.#addresses.flatMap((address) => {
      const device = interfaces.find((each) => each.name === address.device);
      return device === undefined ? [] : [{ ip: address.ip, device }];
    });
    this.#catcher = this.#undo.own('packet catcher', SourceCatcher.prepare(places));
    this.#replayer = this.#undo.own('TUN', await Replayer.open(this.#addresses, life.signal));
  }

  /** Starts CRIU and lets it probe the kernel, with everything inherited that the dump will use. */
  async #prime(): Promise<void> {
    await mkdir(this.#dumpFolder, { mode: 0o700 });
    const images = await open(this.#dumpFolder, constants.O_RDONLY | constants.O_DIRECTORY);
    const pair = addon().socketPair('stream', pageSocketBytes);
    const far = new OwnedFd(pair.far);
    try {
      const { ground } = cgroupGround();
      const session = EngineSession.start({
        engine: this.#plan.engine,
        cgroup: ground === null ? null : helpersOf(ground),
        inherit: [images.fd, pair.far],
        logFolder: this.#dumpFolder,
      });
      this.#undo.own('criu', session);
      const pageSocket = this.#undo.own('page socket', new OwnedFd(pair.near));
      await session.featureCheck();
      this.#primed = { session, pageSocket };
    } finally {
      far[Symbol.dispose]();
      await images.close();
    }
  }

  async #holdNewConnections(): Promise<void> {
    if (this.#catcher === null || this.#fence === null) return;
    const { order } = this.#plan.request;
    const read = () => readSockets(order.pid);
    const tree: TreeSockets = await socketsOf(treeOf(order.pid));
    const listeners = treeListeners(await read(), tree);
    const ports = new Set(listeners.map((listener) => listener.port));
    const orphans = await waitForOrphans(
      read,
      ports,
      this.#addresses.map((address) => address.ip),
    );
    if (orphans.length > 0)
      this.remarks.push(`${orphans.length} closed connections still had data for their clients; it is lost`);
    // From here their SYNs are caught and come to the destination with the other packets.
    this.#catcher.open();
    this.#fence.holdNewConnections(listeners);
    await waitForAccepted(read, tree, acceptMs);
  }

  #gear(): FreezeGear {
    const { request, engine, needs, pageSize } = this.#plan;
    const primed = this.#primed;
    const journal = this.#journal;
    if (primed === null || journal === null) throw new Error('the departure is not set up');
    const { session } = primed;
    const facts = parseTravellingFacts(request.treeFacts);
    const criuLocks = this.#criuLocks();
    const travel = {
      imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`,
      tcpEstablished: request.tcpEstablished,
      networkLock: criuLocks ? ('nftables' as const) : ('skip' as const),
      // Pipes are dumped whoever is at their other end; a terminal only with its keeper, unless it is said to be external.
      external: facts.stdio.flatMap(({ key, kind }) => (kind === 'terminal' ? [key] : [])),
    };
    return {
      rootPid: request.order.pid,
      session,
      options: dumpOptions(request.order, travel, needs, session.inheritedFd(1)),
      dumpFolder: this.#dumpFolder,
      pageSocket: primed.pageSocket.give(),
      pageHeaderBytes: engine.pageServerHeaderBytes,
      pageSize,
      leaf: this.#leaf,
      fence: this.#fence,
      catcher: this.#catcher,
      replayer: this.#replayer,
      addresses: this.#addresses,
      closesConnections: request.order.tcp === 'close',
      journal,
      hooks: this.#hooks,
      filesToHash: this.#plan.hashWrittenFiles ? parseTreeFacts(facts.tree) : null,
      lockTableOf: criuLocks ? lockTableRunId : null,
    };
  }

  async #close(): Promise<void> {
    const outcome = this.#frozen?.buried ? 'moved' : 'undone';
    if (outcome === 'undone') removeLinkRemaps(this.#dumpFolder);
    this.remarks.push(...(await this.#hooks.report(outcome)));
    await this.#journal?.write({ record: 'closed', outcome, note: '' });
    if (!this.#plan.request.order.keepImages) await rm(this.#dumpFolder, { recursive: true, force: true });
  }
}

function isLiving(pid: number): boolean {
  const stat = readStat(pid);
  return stat !== null && !hasEnded(stat);
}

/** What plain `criu restore` must be told about a dump of ours (criu(8)). */
function plainRestore({ order, tcpEstablished }: LandingRequest): string {
  const words = ['--manage-cgroups=ignore', '--file-locks', '--link-remap', '--ext-unix-sk'];
  if (tcpEstablished) words.push('--tcp-established');
  if (order.tcp === 'close') words.push('--tcp-close');
  if (order.shellJob) words.push('--shell-job');
  return words.join(' ');
}
