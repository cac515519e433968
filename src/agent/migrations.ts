/** Everything that this agent does for its callers: the migrations that leave, those that come, and what is left of either. */
import { release } from 'node:os';
import type { Logger } from 'pino';
import { type Engine, findEngine, formatVersion } from '../criu/engine.js';
import { asFailure, type FailurePlace, messageOf, PhaulError } from '../failure/phaul-error.js';
import { knownMigrations, migrationFolder } from '../host/state.js';
import { bootId } from '../host/tasks.js';
import { stateOf } from '../migration/journal.js';
import { migrate } from '../migration/migrate.js';
import type { MigrationOrder } from '../migration/order.js';
import { beforeTheLine } from '../migration/phase.js';
import type { CaughtPackets, DeliveredImage, Finding, LandingRequest, Ready, Running } from '../migration/ports.js';
import type { DestinationWord, SourceWord } from '../migration/recovery.js';
import { PageDoor } from '../pages/door.js';
import type { OpenMigration } from '../preflight/inspect-tree.js';
import { checkLanding } from './arrival/destination-checks.js';
import { Incoming } from './arrival/incoming.js';
import type { AgentConfig } from './config.js';
import { askSource, dialOrNull } from './control/ask-peer.js';
import type { Caller } from './control/caller.js';
import { dial } from './control/dial.js';
import { RemoteDestination } from './control/remote-destination.js';
import { ownSshCredentials, type SshCredentials } from './control/ssh-login.js';
import { Outgoing } from './departure/outgoing.js';
import { LocalSource } from './departure/source.js';
import type {
  AgentDuties,
  EngineFacts,
  HostFacts,
  Leftover,
  MigrationStatus,
  OperatorDuties,
  PeerDuties,
  Recovery,
  Reservation,
  Tell,
} from './duties.js';
import { pageSizeOfHost } from './page-size.js';
import { readJournal } from './recovery/journal-file.js';
import { wordAsDestination, wordAsSource } from './recovery/journal-word.js';
import { findLeftovers } from './recovery/leftovers.js';
import { recoverMigration } from './recovery/recover.js';

/** Finished migrations that are remembered with all their events. */
const remembered = 50;
/** ms between two looks at what is open on this host. */
const roundMs = 5000;
/** Without a heartbeat (one a second) for so long a source is gone. ms. */
const silentMs = 30_000;
/** The same behind READY, when the process is frozen and its source is asked for its word. ms. */
const heldSilentMs = 10_000;

export class Migrations implements AgentDuties, PeerDuties, OperatorDuties {
  readonly peer: PeerDuties = this;
  readonly operator: OperatorDuties = this;
  readonly door = new PageDoor();
  readonly #config: AgentConfig;
  readonly #log: Logger;
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #incoming = new Map<string, Incoming>();
  /** Landings that are being prepared: they count already when the next one asks for the same pids or addresses. */
  readonly #arriving = new Set<LandingRequest>();
  readonly #running = new Set<Promise<void>>();
  /** Ids whose journal is closed: it does not change any more, and a look every few seconds need not read it again. */
  readonly #settled = new Set<string>();
  readonly #rounds: NodeJS.Timeout;

  constructor(config: AgentConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#rounds = setInterval(() => void this.#lookAround(), roundMs).unref();
  }

  // ---- operator ----

  async migrate(order: MigrationOrder, destination: string, tell: Tell, ssh: SshCredentials | null): Promise<void> {
    const known = (await readJournal(migrationFolder(order.id))).length > 0;
    // From the look to the entry nothing is awaited, or two orders for one tree could both pass.
    this.#refuseSecondOwner(order, known);
    const outgoing = new Outgoing(order, destination);
    this.#outgoing.set(order.id, outgoing);
    this.#settled.delete(order.id);
    const run = this.#run(outgoing, ssh).finally(() => this.#running.delete(run));
    this.#running.add(run);
    await outgoing.watch(tell, null);
    await run;
  }

  async watch(id: string, tell: Tell, signal: AbortSignal): Promise<void> {
    await this.#known(id).watch(tell, signal);
  }

  async status(id: string | null): Promise<readonly MigrationStatus[]> {
    const ids = id === null ? await knownMigrations() : [id];
    const all = new Set([...ids, ...(id === null ? [...this.#outgoing.keys(), ...this.#incoming.keys()] : [])]);
    const statuses = await Promise.all([...all].map((each) => this.#statusOf(each)));
    const found = statuses.filter((status) => status !== null);
    if (id !== null && found.length === 0) throw unknown(id);
    return found.sort((a, b) => b.since - a.since);
  }

  async cancel(id: string): Promise<void> {
    this.#known(id).cancel();
  }

  async recover(id: string | null, sourceIsDead: boolean): Promise<readonly Recovery[]> {
    const ids = id === null ? (await knownMigrations()).filter((each) => !this.#settled.has(each)) : [id];
    const recoveries: Recovery[] = [];
    for (const each of ids) {
      const incoming = this.#incoming.get(each);
      // The operator's word on a copy that this agent holds: it is let go as by COMMIT (dangers.md 3).
      if (sourceIsDead && incoming?.state === 'held') {
        const { pid } = await incoming.takeOver({ packets: [], lost: 0 });
        recoveries.push({ id: each, did: `the process runs here (pid ${pid})`, settled: true });
        continue;
      }
      const recovery = await recoverMigration(each, {
        sourceIsDead,
        config: this.#config,
        engine: () => this.#engine(),
      });
      if (recovery?.settled) this.#settled.add(each);
      // Those that are closed need no word unless they were asked for by name.
      if (recovery !== null && (id !== null || recovery.did !== '')) recoveries.push(recovery);
    }
    if (id !== null && recoveries.length === 0) throw unknown(id);
    return recoveries;
  }

  async leftovers(clean: boolean): Promise<readonly Leftover[]> {
    return await findLeftovers(clean);
  }

  async engine(): Promise<EngineFacts> {
    const engine = await this.#engine();
    return { path: engine.path, version: formatVersion(engine.version), why: engine.why };
  }

  // ---- peer ----

  async facts(): Promise<HostFacts> {
    const engine = await this.#engine().catch(() => null);
    return {
      hostName: this.#config.hostName,
      bootId: bootId(),
      kernel: release(),
      pageSize: await pageSizeOfHost(),
      engineVersion: engine === null ? null : formatVersion(engine.version),
      cpuInfo: null,
    };
  }

  async check(request: LandingRequest, _caller: Caller, signal: AbortSignal): Promise<readonly Finding[]> {
    return await checkLanding(request, {
      hostName: this.#config.hostName,
      engine: () => this.#engine(),
      busy: this.#busyWith(request),
      signal,
    });
  }

  async prepare(request: LandingRequest, caller: Caller, _signal: AbortSignal): Promise<Reservation> {
    const { id } = request.order;
    if (this.#incoming.has(id) || [...this.#arriving].some((each) => each.order.id === id))
      throw new PhaulError({
        code: 'migration-busy',
        what: `migration ${id} is here already`,
        remedy: 'choose another id',
      });
    const busy = this.#busyWith(request);
    if (busy !== null)
      throw new PhaulError({
        code: 'target-busy',
        what: `migration ${busy} brings the same pid or address here`,
        remedy: `wait for it, or phaul cancel ${busy} on its source`,
      });
    this.#arriving.add(request);
    this.#settled.delete(id);
    let token: Uint8Array;
    try {
      const parts = { engine: await this.#engine(), door: this.door };
      const prepared = await Incoming.prepare(request, caller, parts);
      this.#incoming.set(id, prepared.incoming);
      token = prepared.token;
    } finally {
      this.#arriving.delete(request);
    }
    this.#forgetOld(this.#incoming, (each) => each.state === 'undone' || each.state === 'running');
    return { pageToken: token };
  }

  async ownerOf(id: string): Promise<string | null> {
    const incoming = this.#incoming.get(id);
    if (incoming) return incoming.owner;
    const state = stateOf(await readJournal(migrationFolder(id)));
    return state?.opened.role === 'destination' ? state.opened.owner : null;
  }

  async arm(id: string, _signal: AbortSignal): Promise<void> {
    await this.#landing(id).arm();
  }

  async restoreAndHold(id: string, delivered: readonly DeliveredImage[], _signal: AbortSignal): Promise<Ready> {
    return await this.#landing(id).restoreAndHold(delivered);
  }

  async keepImages(id: string, delivered: readonly DeliveredImage[], _signal: AbortSignal): Promise<string> {
    return await this.#landing(id).keepImages(delivered);
  }

  async takeOver(id: string, packets: CaughtPackets): Promise<Running> {
    const incoming = this.#incoming.get(id);
    if (incoming && incoming.state !== 'left-to-recovery') return await incoming.takeOver(packets);
    // This agent was restarted between READY and COMMIT, or could not restore: the images are its second chance (dangers.md 4).
    const { resumeLanding } = await import('./recovery/recover-destination.js');
    return await resumeLanding(id, { packets, engine: await this.#engine() });
  }

  async abort(id: string): Promise<void> {
    const incoming = this.#incoming.get(id);
    if (incoming) {
      await incoming.abort();
      return;
    }
    const { undoLanding } = await import('./recovery/recover-destination.js');
    await undoLanding(id);
  }

  heartbeat(id: string): boolean {
    const incoming = this.#incoming.get(id);
    if (incoming === undefined || incoming.state === 'undone') return false;
    incoming.lastHeard = Date.now();
    return true;
  }

  async wordAsDestination(id: string, _caller: Caller): Promise<DestinationWord> {
    return await wordAsDestination(id);
  }

  async wordAsSource(id: string, _caller: Caller): Promise<SourceWord> {
    const outgoing = this.#outgoing.get(id);
    // As long as this agent works on it, what its tasks look like decides nothing.
    if (outgoing && !outgoing.over && beforeTheLine.has(outgoing.phase)) return 'undecided';
    return await wordAsSource(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#rounds);
    for (const outgoing of this.#outgoing.values()) {
      outgoing.life.end(
        new PhaulError({
          code: 'agent-stopped',
          what: 'the agent was stopped',
          remedy: 'the process goes on at the source; start the agent again',
        }),
      );
    }
    await Promise.allSettled([...this.#running]);
    await Promise.allSettled([...this.#incoming.values()].map((incoming) => incoming[Symbol.asyncDispose]()));
  }

  async #run(outgoing: Outgoing, ssh: SshCredentials | null): Promise<void> {
    const { order, life, tell } = outgoing;
    try {
      const engine = await this.#engine();
      await using link = await dial(outgoing.destination, this.#config, {
        signal: life.signal,
        ssh: ssh ?? ownSshCredentials(),
      });
      const destination = new RemoteDestination(link);
      const pageSize = await pageSizeOfHost();
      refuseOtherPageSize(pageSize, link.facts);
      await using source = new LocalSource({
        hostName: this.#config.hostName,
        engine,
        pageSize,
        destination: outgoing.destination,
        open: await this.#openDepartures(order.id),
      });
      const report = await migrate(order, source, destination, life, tell);
      tell({ kind: 'done', report });
    } catch (thrown) {
      const failure = asFailure(thrown, {
        code: 'internal',
        what: `an unexpected failure: ${messageOf(thrown)}`,
        remedy: 'see the log of the agent',
      });
      const placed =
        failure.place === null
          ? failure.at({ phase: 'connecting', host: this.#config.hostName, fate: { kind: 'untouched' } })
          : failure;
      this.#log.error({ id: order.id, err: thrown }, 'the migration has failed');
      tell({ kind: 'failed', failure: placed.toJSON() });
    } finally {
      outgoing[Symbol.dispose]();
      this.#forgetOld(this.#outgoing, (each) => each.over);
    }
  }

  /** Landings whose source has fallen silent before READY are given up; what nobody works on any more is taken up. */
  async #lookAround(): Promise<void> {
    for (const [id, incoming] of [...this.#incoming]) {
      try {
        await this.#lookAt(id, incoming);
      } catch (thrown) {
        // The others, and recovery, must not starve behind one that fails every time.
        this.#log.error({ id, err: thrown }, 'a look at a landing has failed; the next one follows');
      }
    }
    try {
      for (const recovery of await this.recover(null, false)) {
        if (recovery.settled) this.#log.warn(recovery, 'recovered');
      }
    } catch (thrown) {
      this.#log.error({ err: thrown }, 'a look at open migrations has failed; the next one follows');
    }
  }

  async #lookAt(id: string, incoming: Incoming): Promise<void> {
    const silent = Date.now() - incoming.lastHeard;
    if (incoming.mayGiveUp && silent >= silentMs) {
      this.#log.warn({ id }, 'the source has fallen silent before READY: given up');
      await incoming.abort();
    } else if (incoming.state === 'held' && silent >= heldSilentMs) {
      await this.#askSourceOf(incoming);
    } else if (incoming.state === 'left-to-recovery') {
      // Brought to its end by its janitor, or by a round of ours: its pids and its address are free for others again.
      const state = stateOf(await readJournal(migrationFolder(id)));
      if (state?.closed) this.#incoming.delete(id);
    }
  }

  /** READY, and no heartbeat comes: a source that has given up could not tell, one that has killed may have died since. */
  async #askSourceOf(incoming: Incoming): Promise<void> {
    const { order, sourceHost } = incoming.request;
    await using link = await dialOrNull(sourceHost, this.#config);
    const word = await askSource(link, order.id);
    if (word !== 'undone' && word !== 'killed') return;
    this.#log.warn({ id: order.id, word }, 'the source has fallen silent behind READY, and its journal has answered');
    if (word === 'undone') await incoming.abort();
    else await incoming.takeOver({ packets: [], lost: 0 });
  }

  /** One owner per id, per tree (dangers.md 6). */
  #refuseSecondOwner(order: MigrationOrder, known: boolean): void {
    const busy = [...this.#outgoing.values()].find((each) => !each.over && each.order.pid === order.pid);
    if (busy) {
      throw new PhaulError({
        code: 'tree-busy',
        what: `process ${order.pid} is on its way already, by migration ${busy.order.id}`,
        remedy: `phaul status ${busy.order.id} --watch, or phaul cancel ${busy.order.id}`,
      }).at(this.#notBegun());
    }
    if (this.#outgoing.has(order.id) || known) {
      throw new PhaulError({
        code: 'id-in-use',
        what: `there is a migration ${order.id} already`,
        remedy: 'choose another id',
      }).at(this.#notBegun());
    }
  }

  #notBegun(): FailurePlace {
    return { phase: 'checking', host: this.#config.hostName, fate: { kind: 'untouched' } };
  }

  /** Departures of this host that have not ended, by their journals: those of this agent, of a janitor, and interrupted ones. */
  async #openDepartures(but: string): Promise<OpenMigration[]> {
    const open: OpenMigration[] = [];
    for (const id of (await knownMigrations()).filter((each) => !this.#settled.has(each))) {
      const state = id === but ? null : stateOf(await readJournal(migrationFolder(id)));
      if (state?.opened.role !== 'source' || state.closed !== null) continue;
      open.push({ id, tasks: state.frozen?.tasks ?? state.opened.tasks });
    }
    return open;
  }

  #busyWith(request: LandingRequest): string | null {
    const pids = new Set(request.tree.tasks.map((task) => task.pid));
    const ips = new Set(request.order.addresses.map((address) => address.ip));
    const open = [...this.#incoming.values()].filter(
      (each) => !['running', 'undone', 'images-kept'].includes(each.state),
    );
    const other = [...open.map((each) => each.request), ...this.#arriving].find(
      ({ order, tree }) =>
        order.id !== request.order.id &&
        (tree.tasks.some((task) => pids.has(task.pid)) || order.addresses.some((address) => ips.has(address.ip))),
    );
    return other?.order.id ?? null;
  }

  #landing(id: string): Incoming {
    const incoming = this.#incoming.get(id);
    if (incoming === undefined) throw unknown(id);
    return incoming;
  }

  #known(id: string): Outgoing {
    const outgoing = this.#outgoing.get(id);
    if (outgoing === undefined) throw unknown(id);
    return outgoing;
  }

  async #statusOf(id: string): Promise<MigrationStatus | null> {
    const outgoing = this.#outgoing.get(id);
    if (outgoing) {
      return {
        id,
        role: 'source',
        peer: outgoing.destination,
        pid: outgoing.order.pid,
        phase: outgoing.phase,
        since: outgoing.since,
        open: !outgoing.over,
        note: '',
      };
    }
    const state = stateOf(await readJournal(migrationFolder(id)));
    if (state === null) return null;
    const { opened, closed } = state;
    const incoming = this.#incoming.get(id);
    const phase =
      closed?.outcome ??
      incoming?.state ??
      (state.committed ? 'committed' : state.committing ? 'committing' : state.ready ? 'ready' : 'interrupted');
    return {
      id,
      role: opened.role,
      peer: opened.peer,
      pid: opened.rootPid,
      phase,
      since: opened.at,
      open: closed === null,
      note: closed?.note ?? '',
    };
  }

  async #engine(): Promise<Engine> {
    return await findEngine(this.#config.runDirectory);
  }

  #forgetOld<T>(all: Map<string, T>, over: (each: T) => boolean): void {
    const old = [...all].filter(([, each]) => over(each));
    for (const [id] of old.slice(0, Math.max(0, old.length - remembered))) all.delete(id);
  }
}

function refuseOtherPageSize(ours: number, theirs: HostFacts): void {
  if (theirs.pageSize === ours) return;
  throw new PhaulError({
    code: 'page-size-differs',
    what: `this host has pages of ${ours} bytes, ${theirs.hostName} of ${theirs.pageSize}`,
    remedy: 'choose a destination with the same page size',
  });
}

function unknown(id: string): PhaulError {
  return new PhaulError({
    code: 'unknown-migration',
    what: `this host knows no migration ${id}`,
    remedy: 'phaul status shows those it knows',
  });
}
