/**
 * One migration that comes to this host: prepared, armed, restored and held, then let go, or undone without a trace.
 * Behind COMMIT it goes forward until the copy runs, with the images on the disk as its second chance.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine } from '../../criu/engine.js';
import { asFailure, messageOf, PhaulError } from '../../failure/phaul-error.js';
import type { Hooks } from '../../hooks/hooks.js';
import { MigrationLock } from '../../host/lock.js';
import { migrationFolder } from '../../host/state.js';
import { bootId, pidNamespace } from '../../host/tasks.js';
import { ImageFolder } from '../../images/image-folder.js';
import { Lifetime } from '../../migration/lifetime.js';
import type { CaughtPackets, DeliveredImage, LandingRequest, Ready, Running } from '../../migration/ports.js';
import { nowMs, Timeline } from '../../migration/report.js';
import type { PageDoor } from '../../pages/door.js';
import { receiveImages } from '../../pages/receiver.js';
import { writtenFilesToCompare } from '../../preflight/file-checks.js';
import { sharesLockedFiles } from '../../preflight/shared-locks.js';
import { parseTreeFacts } from '../../preflight/tree-facts.js';
import { breakpoint } from '../breakpoint.js';
import { type Caller, callerKey } from '../control/caller.js';
import { cgroupGround, helpersOf } from '../helper-cgroup.js';
import { hooksOf } from '../hooks-of.js';
import { JanitorLink } from '../recovery/janitor-link.js';
import { JournalFile } from '../recovery/journal-file.js';
import { parseTravellingFacts, type TravellingFacts } from '../travelling-facts.js';
import { UndoStack } from '../undo-stack.js';
import { compareWrittenFiles } from '../written-files-image.js';
import { CopyMaker } from './copy-maker.js';
import { copyCgroup, LandingSite } from './landing-site.js';

export interface IncomingParts {
  readonly engine: Engine;
  readonly door: PageDoor;
}

type State =
  | 'prepared'
  | 'armed'
  | 'restoring'
  | 'held'
  | 'committed'
  | 'running'
  | 'images-kept'
  | 'undone'
  /** Behind COMMIT the copy could not be restored: the janitor, the next COMMIT and `phaul recover` try on, from the images. */
  | 'left-to-recovery';

export class Incoming implements AsyncDisposable {
  readonly request: LandingRequest;
  readonly owner: string;
  readonly since = Date.now();
  lastHeard = Date.now();
  readonly #parts: IncomingParts;
  readonly #facts: TravellingFacts;
  readonly #folder: string;
  readonly #hooks: Hooks;
  readonly #undo = new UndoStack();
  readonly #timeline = new Timeline();
  /** Ends what waits here when the migration is aborted. */
  readonly #life = new Lifetime();
  #state: State = 'prepared';
  #filesToCompare: readonly string[] = [];
  #journal: JournalFile | null = null;
  #images: ImageFolder | null = null;
  #arrival: Promise<void> | null = null;
  #janitor: JanitorLink | null = null;
  #site: LandingSite | null = null;
  #maker: CopyMaker | null = null;
  #takenOver: Promise<Running> | null = null;
  #underWay: Promise<void> = Promise.resolve();

  private constructor(request: LandingRequest, owner: string, parts: IncomingParts) {
    this.request = request;
    this.owner = owner;
    this.#parts = parts;
    this.#facts = parseTravellingFacts(request.treeFacts);
    this.#folder = migrationFolder(request.order.id);
    this.#hooks = hooksOf(request, 'destination', this.imagesFolder);
  }

  get state(): State {
    return this.#state;
  }

  get imagesFolder(): string {
    return join(this.#folder, 'images');
  }

  /** Reserves this id here and gives the token that opens its page connection. */
  static async prepare(
    request: LandingRequest,
    caller: Caller,
    parts: IncomingParts,
  ): Promise<{ incoming: Incoming; token: Uint8Array }> {
    const incoming = new Incoming(request, callerKey(caller), parts);
    try {
      const token = await incoming.#setUp();
      breakpoint('prepared');
      return { incoming, token };
    } catch (thrown) {
      await incoming.abort();
      throw thrown;
    }
  }

  /** While the tree still runs on the source: everything that the window would have to wait for. */
  async arm(): Promise<void> {
    this.#expect('prepared', 'arm');
    await this.#alone(() => this.#arm());
  }

  async #arm(): Promise<void> {
    const { id, addresses } = this.request.order;
    const site = await LandingSite.survey(
      { id, addresses, loopbackPorts: this.#facts.network.loopbackPorts },
      this.#life.signal,
    );
    this.#site = site;
    this.#undo.defer('landing site', () => site.clear());
    await this.#journal?.write({
      record: 'prepared',
      cgroup: copyCgroup(id),
      origins: [],
      fence: id,
      imagesFolder: this.imagesFolder,
      addresses: [...site.addresses],
    });
    const maker = new CopyMaker({
      request: this.request,
      engine: this.#parts.engine,
      imagesFolder: this.imagesFolder,
      site,
    });
    this.#maker = this.#undo.own('copy', maker);
    await maker.prime();
    await site.raise(this.#life.signal);
    // An abort that came meanwhile waits for this to end and undoes it: it must not be taken for armed.
    this.#life.throwIfEnded();
    this.#state = 'armed';
    breakpoint('armed');
  }

  async restoreAndHold(delivered: readonly DeliveredImage[]): Promise<Ready> {
    this.#expect('armed', 'restore');
    this.#state = 'restoring';
    return await this.#alone(() => this.#restoreAndHold(delivered));
  }

  async #restoreAndHold(delivered: readonly DeliveredImage[]): Promise<Ready> {
    this.#timeline.mark('images complete');
    await this.#images?.verify(delivered, this.request.order.durable);
    await compareWrittenFiles(this.imagesFolder, this.#filesToCompare, this.#life.signal);
    this.#timeline.mark('verified');
    await this.#hooks.run('restore', this.#life.signal);
    breakpoint('restoring');
    const from = nowMs();
    // The frozen source holds the locks, and a restore would wait for them: early READY, the line lies before the restore.
    const early = await sharesLockedFiles(parseTreeFacts(this.#facts.tree));
    if (!early) await this.#maker?.restore(this.#life);
    this.#timeline.mark('held');
    this.#life.throwIfEnded();
    await this.#journal?.write({ record: 'ready' });
    // READY is never told of what is being undone: the source would kill for it.
    this.#life.throwIfEnded();
    this.#state = 'held';
    this.#timeline.mark('ready');
    breakpoint('held');
    return { restoreMs: nowMs() - from };
  }

  async keepImages(delivered: readonly DeliveredImage[]): Promise<string> {
    await this.#images?.verify(delivered, this.request.order.durable);
    this.#images?.keep();
    this.#state = 'images-kept';
    await this.#finish('images-kept');
    return this.imagesFolder;
  }

  /** COMMIT. The same answer however often it is asked. */
  takeOver(packets: CaughtPackets): Promise<Running> {
    if (this.#takenOver === null) {
      if (this.#state !== 'held') throw this.#refuse('take over');
      this.#state = 'committed';
      this.#takenOver = this.#goForward(packets);
      this.#takenOver.catch(() => undefined);
    }
    return this.#takenOver;
  }

  /** Refused behind COMMIT: from there only the copy may run. */
  async abort(): Promise<void> {
    if (this.#state === 'undone' || this.#state === 'images-kept') return;
    if (isBehindCommit(this.#state)) throw this.#refuse('abort');
    this.#state = 'undone';
    this.#life.end(
      new PhaulError({
        code: 'aborted',
        what: 'the source has aborted the migration',
        remedy: 'see the failure on the source',
      }),
    );
    // What is under way ends first, by the life that has just ended: it must not set up what is being undone.
    await this.#underWay;
    await this.#finish('undone');
  }

  /** True when this host may give up by itself: nobody can have been told READY. */
  get mayGiveUp(): boolean {
    return this.#state === 'prepared' || this.#state === 'armed' || this.#state === 'restoring';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'committed') await this.#takenOver?.catch(() => undefined);
    // READY was told: the source may have killed for it already. The images stay for whoever hears its word.
    else if (this.#state === 'held') await this.#leaveToRecovery();
    else if (!isBehindCommit(this.#state)) await this.abort();
  }

  async #setUp(): Promise<Uint8Array> {
    const { order, tree, sourceHost } = this.request;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const lock = await MigrationLock.tryTake(this.#folder);
    if (lock === null) throw this.#refuse('prepare twice');
    this.#undo.own('lock', lock);
    const journal = await JournalFile.create(this.#folder);
    this.#journal = journal;
    this.#undo.own('journal', journal);
    await journal.write({
      record: 'opened',
      id: order.id,
      role: 'destination',
      bootId: bootId(),
      pidNamespace: pidNamespace('self'),
      tasks: [...tree.tasks],
      rootPid: order.pid,
      peer: sourceHost,
      owner: this.owner,
      addresses: [...order.addresses],
      request: this.request,
    });
    await this.#hooks.run('prepare', this.#life.signal);
    const { ground } = cgroupGround();
    const janitor = await JanitorLink.start(order.id, this.#folder, ground === null ? null : helpersOf(ground));
    this.#janitor = this.#undo.own('janitor', janitor);
    // While what the source has left beside its files is still there to be seen.
    const facts = parseTreeFacts(this.#facts.tree);
    const written = order.filesAreSame ? [] : await writtenFilesToCompare(facts);
    this.#filesToCompare = written.map((file) => file.path);
    const images = await ImageFolder.create(this.imagesFolder);
    this.#images = images;
    this.#undo.own('images', images);
    if (order.keepImages) images.keep();
    const { door } = this.#parts;
    this.#undo.defer('page door', () => door.forget(order.id));
    return door.expect(order.id, (admitted) => {
      this.#undo.defer('page connection', () => {
        admitted.connection.destroy();
      });
      this.#arrival = receiveImages(admitted, images, order.durable);
      // The source is told by the connection itself; here it shows when the images are verified.
      this.#arrival.catch(() => undefined);
    });
  }

  async #goForward(packets: CaughtPackets): Promise<Running> {
    this.#timeline.mark('commit received');
    try {
      await this.#journal?.write({ record: 'committed' });
    } catch (thrown) {
      // Nothing has happened yet: the next COMMIT tries it again.
      this.#state = 'held';
      this.#takenOver = null;
      throw thrown;
    }
    this.#timeline.mark('committed');
    breakpoint('committed');
    if (this.#maker === null) throw this.#refuse('take over');
    const { pid, replayed, remarks } = await this.#maker
      .letGo(packets, this.#timeline)
      .catch(async (thrown: unknown) => {
        // What cannot even be given up is found by recovery; why the copy failed is the story.
        await this.#leaveToRecovery().catch(() => undefined);
        throw thrown;
      });
    this.#timeline.mark('running');
    breakpoint('running');
    try {
      await this.#journal?.write({ record: 'running', pid });
    } catch (thrown) {
      // It runs all the same; recovery would look and adopt it.
      remarks.push(messageOf(thrown));
    }
    this.#state = 'running';
    const kept = this.request.order.keepImages ? this.imagesFolder : null;
    // What could not be tidied up is left to `phaul leftovers`; the agent goes on.
    this.#settle().catch(() => undefined);
    return { pid, timeline: this.#timeline.steps, replayedPackets: replayed, remarks, imagesFolder: kept };
  }

  /** The images, the site and the journal stay; the lock goes, so that others can try. */
  async #leaveToRecovery(): Promise<void> {
    this.#state = 'left-to-recovery';
    this.#undo.release(['landing site', 'copy', 'images', 'janitor']);
    try {
      await this.#maker?.[Symbol.asyncDispose]();
    } finally {
      this.#site?.leave();
      // The lock first, then the word to the janitor, which needs it.
      await this.#undo[Symbol.asyncDispose]().finally(() => this.#janitor?.takeOver());
      this.#life[Symbol.dispose]();
    }
  }

  /** Announcements go on in the background; then everything but the copy and its cgroup goes. */
  async #settle(): Promise<void> {
    try {
      // The copy runs: its second chance is not needed any more.
      await this.#images?.[Symbol.asyncDispose]();
      await this.#site?.settle(this.#life.signal);
    } finally {
      await this.#finish('moved');
    }
  }

  async #finish(outcome: 'moved' | 'undone' | 'images-kept'): Promise<void> {
    const undone = outcome === 'undone';
    const said = await this.#hooks.report(outcome);
    // What stays with a copy that runs: its cgroup, its address. The undo stack would take them away.
    if (outcome === 'moved') this.#undo.release(['landing site', 'copy']);
    let note = said.join('; ');
    try {
      await this.#undo.disposeUntil('journal');
    } catch (thrown) {
      note = messageOf(thrown);
      if (undone) throw asFailure(thrown, { code: 'left-behind', what: note, remedy: 'phaul leftovers --clean' });
    } finally {
      try {
        await this.#journal?.write({ record: 'closed', outcome, note });
      } finally {
        await this.#undo[Symbol.asyncDispose]();
        this.#life[Symbol.dispose]();
      }
    }
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const running = work();
    this.#underWay = running.then(
      () => undefined,
      () => undefined,
    );
    return await running;
  }

  #expect(state: State, what: string): void {
    if (this.#state !== state) throw this.#refuse(what);
  }

  #refuse(what: string): PhaulError {
    return new PhaulError({
      code: 'wrong-state',
      what: `migration ${this.request.order.id} cannot ${what}: it is ${this.#state} on the destination`,
      remedy: `phaul status ${this.request.order.id}`,
    });
  }
}

function isBehindCommit(state: State): boolean {
  return state === 'committed' || state === 'running' || state === 'left-to-recovery';
}
