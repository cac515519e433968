/**
 * A tree on its way out of this host: from the last moments of its life here to the line, and behind it to its burial.
 * Until `kill` everything can be undone, and `dispose` does it; behind it `dispose` only tidies up.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { DumpOptions } from '../../criu/options.js';
import type { EngineSession } from '../../criu/session.js';
import { asFailure, PhaulError } from '../../failure/phaul-error.js';
import type { Hooks } from '../../hooks/hooks.js';
import type { LeafCgroup } from '../../host/cgroup.js';
import { TaskHandle } from '../../host/pidfd.js';
import { endRepairMode } from '../../host/repair.js';
import { identitiesOf, isSameTask, treeOf } from '../../host/tasks.js';
import { sendImages } from '../../images/send-folder.js';
import type { Journal } from '../../migration/journal.js';
import type { Lifetime } from '../../migration/lifetime.js';
import type {
  CaughtPackets,
  DeliveredImage,
  FrozenTree,
  ImageSink,
  SourceEnd,
  TaskIdentity,
  TimedStep,
} from '../../migration/ports.js';
import { Timeline } from '../../migration/report.js';
import { deleteLockTable } from '../../network/lock-table.js';
import { type PlacedAddress, removeAddress } from '../../network/moved-address.js';
import type { Replayer } from '../../network/replayer.js';
import type { SourceCatcher } from '../../network/source-catcher.js';
import type { SourceFence } from '../../network/source-fence.js';
import { servePages } from '../../pages/page-server.js';
import type { TreeFacts } from '../../preflight/tree-facts.js';
import { breakpoint } from '../breakpoint.js';
import { sendWrittenFiles } from '../written-files-image.js';
import { HeldDump } from './held-dump.js';

/** What was made ready while the tree ran; all of it stays the departure's. */
export interface FreezeGear {
  readonly rootPid: number;
  readonly session: EngineSession;
  readonly options: DumpOptions;
  readonly dumpFolder: string;
  /** Our end of the page-server socket; the tree's from here. */
  readonly pageSocket: number;
  readonly pageHeaderBytes: 24 | 32;
  readonly pageSize: number;
  readonly leaf: LeafCgroup | null;
  readonly fence: SourceFence | null;
  readonly catcher: SourceCatcher | null;
  readonly replayer: Replayer | null;
  readonly addresses: readonly PlacedAddress[];
  /** `--tcp-close`: the clients are told that their connections end. */
  readonly closesConnections: boolean;
  readonly journal: Journal;
  readonly hooks: Hooks;
  /** Of the tree's written files the destination wants hashes from the freeze; null: it has seen that they are the same. */
  readonly filesToHash: TreeFacts | null;
  /** Run id of CRIU in a folder of its images, for the name of its lock table; null when it made none. */
  readonly lockTableOf: ((folder: string) => Promise<string>) | null;
}

type State = 'freezing' | 'held' | 'killed' | 'buried' | 'resumed';

const sigkill = 9;
/** The destination needs about 10 ms from COMMIT to the running copy; the burial waits that long. ms. */
const commitLeavesMs = 10;

export class DepartingTree implements FrozenTree {
  readonly #gear: FreezeGear;
  readonly #timeline = new Timeline();
  readonly #abort = new AbortController();
  readonly #dump: HeldDump;
  #state: State = 'freezing';
  #delivered: readonly DeliveredImage[] = [];
  #handles: TaskHandle[] = [];
  #runId: string | null = null;
  #recorded: Promise<void> = Promise.resolve();

  private constructor(gear: FreezeGear, sink: ImageSink) {
    this.#gear = gear;
    const pages = servePages({
      fd: gear.pageSocket,
      headerBytes: gear.pageHeaderBytes,
      pageSize: gear.pageSize,
      sink,
      signal: this.#abort.signal,
    });
    this.#dump = new HeldDump(gear.session, gear.options, {
      beforeFreeze: () => {
        this.#gear.catcher?.forgetDelivered();
        this.#timeline.mark('freeze');
        breakpoint('before-freeze');
      },
      frozen: () => this.#closeNetwork(),
      dumped: () => this.#takeHold(pages, sink),
    });
    // A broken page stream makes CRIU fail too, but says why: it is the better story.
    pages.catch((failure: unknown) => this.#abort.abort(failure));
  }

  /** Freezes, dumps and delivers. When that fails the tree runs again before the failure is thrown. */
  static async take(gear: FreezeGear, sink: ImageSink, life: Lifetime): Promise<DepartingTree> {
    const tree = new DepartingTree(gear, sink);
    try {
      await tree.#dump.held(life);
      return tree;
    } catch (thrown) {
      const reason: unknown = tree.#abort.signal.aborted ? tree.#abort.signal.reason : thrown;
      await tree[Symbol.asyncDispose]();
      throw life.signal.aborted ? life.signal.reason : reason;
    }
  }

  get delivered(): readonly DeliveredImage[] {
    return this.#delivered;
  }

  get timeline(): readonly TimedStep[] {
    return this.#timeline.steps;
  }

  async intend(): Promise<void> {
    await Promise.all([this.#recorded, this.#gear.journal.write({ record: 'committing' })]);
    breakpoint('committing-written');
  }

  kill(): void {
    if (this.#state !== 'held') throw new Error(`a tree that is ${this.#state} cannot be killed`);
    // Without a leaf only CRIU's hold has kept the tasks still: since its end they have run on, and the copy is out of date.
    if (this.#gear.leaf === null && this.#dump.ended) {
      throw new PhaulError({
        code: 'hold-lost',
        what: 'CRIU has ended while it held the tree',
        remedy: 'see the log of the kernel; try again, on a host with cgroup v2 if possible',
      });
    }
    breakpoint('ready');
    if (this.#gear.closesConnections) this.#gear.fence?.letConnectionsEnd(this.#gear.addresses);
    this.#killAll();
    this.#state = 'killed';
    this.#timeline.mark('killed');
    breakpoint('killed');
  }

  caughtPackets(): CaughtPackets {
    const caught = this.#gear.catcher?.drain() ?? { packets: [], lost: 0 };
    this.#timeline.mark('packets taken');
    return caught;
  }

  async bury(): Promise<SourceEnd> {
    const remarks: string[] = [];
    // COMMIT leaves first: starting a program blocks this thread for some ms, and behind the fence nothing is urgent here.
    await delay(commitLeavesMs);
    // Whoever waits on a closed connection learns of its end from the kernel here, as long as it has the address.
    if (this.#gear.closesConnections) {
      await this.#dump.finish();
      await Promise.all(this.#handles.map((handle) => handle.exited()));
    }
    // The fence stays until the address is gone, or the kernel would reset the clients' connections (dangers.md 14).
    await Promise.all(this.#gear.addresses.map((address) => removeAddress(address)));
    this.#timeline.mark('address removed');
    breakpoint('commit-sent');
    const end = await this.#dump.finish();
    if (end === 'without-an-answer')
      remarks.push('CRIU on the source ended without an answer behind the line; the tree was dead already');
    this.#timeline.mark('criu done');
    await Promise.all(this.#handles.map((handle) => handle.exited()));
    this.#timeline.mark('source dead');
    await this.#gear.journal.write({ record: 'source-dead' });
    if (this.#runId !== null) await deleteLockTable(this.#runId);
    await this.#gear.fence?.remove();
    this.#state = 'buried';
    this.#timeline.mark('fence removed');
    return { timeline: this.#timeline.steps, remarks };
  }

  get buried(): boolean {
    return this.#state === 'buried';
  }

  /** True when this tree may run here again, or never stopped. */
  get livesHere(): boolean {
    return this.#state === 'resumed' || this.#state === 'freezing' || this.#state === 'held';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#state === 'freezing' || this.#state === 'held') await this.#resume();
    } finally {
      for (const handle of this.#handles) handle[Symbol.dispose]();
    }
  }

  #closeNetwork(): void {
    this.#timeline.mark('frozen');
    this.#gear.catcher?.forgetDelivered();
    this.#gear.fence?.close(this.#gear.addresses);
    this.#gear.catcher?.fenceIsClosed();
    this.#timeline.mark('fenced');
    breakpoint('frozen');
  }

  async #takeHold(pages: Promise<DeliveredImage[]>, sink: ImageSink): Promise<void> {
    this.#timeline.mark('dumped');
    await this.#gear.leaf?.freeze();
    this.#timeline.mark('cgroup frozen');
    const tasks = this.#tasks();
    this.#handles = tasks.flatMap((task) => TaskHandle.open(task) ?? []);
    this.#runId = (await this.#gear.lockTableOf?.(this.#gear.dumpFolder)) ?? null;
    // Durable before the line, not before the restore: `intend` waits for it.
    this.#recorded = this.#gear.journal.write({
      record: 'frozen',
      tasks,
      lockTable: this.#runId,
      criuPid: this.#gear.session.pid,
    });
    this.#recorded.catch(() => undefined);
    breakpoint('transferring');
    await this.#gear.hooks.run('frozen', this.#abort.signal);
    this.#timeline.mark('tasks known');
    const delivery = Promise.all([
      pages,
      sendImages(this.#gear.dumpFolder, sink),
      this.#gear.filesToHash === null ? [] : sendWrittenFiles(this.#gear.filesToHash, sink, this.#abort.signal),
    ]);
    const [memory, images, written] = await orAborted(delivery, this.#abort.signal);
    this.#timeline.mark('images sent');
    await orAborted(sink.flush(), this.#abort.signal);
    this.#delivered = [...memory, ...images, ...written];
    // The migration may have ended meanwhile, and the tree be back to life.
    if (this.#state !== 'freezing') return;
    this.#state = 'held';
    this.#timeline.mark('delivered');
  }

  /** The frozen tree as it is: the leaf lists newborn tasks too. A zombie died before: recovery must not take it for killed. */
  #tasks(): TaskIdentity[] {
    const { leaf, rootPid } = this.#gear;
    const inLeaf = (leaf?.members() ?? []).filter((pid) => pid > 0);
    return identitiesOf([...new Set([...treeOf(rootPid), ...inLeaf])]).filter(isSameTask);
  }

  #killAll(): void {
    let killed = false;
    try {
      if (this.#gear.leaf !== null) {
        this.#gear.leaf.kill();
        killed = true;
      }
    } catch (thrown) {
      // The pidfds below do the same; the leaf is the quicker way.
      this.#timeline.mark(`cgroup.kill failed: ${String(thrown)}`);
    }
    for (const handle of this.#handles) {
      try {
        killed = handle.signal(sigkill) || killed;
      } catch (thrown) {
        // One that cannot be signalled must not undo what has killed the others: then the line is crossed.
        this.#timeline.mark(`SIGKILL to ${handle.task.pid} failed: ${String(thrown)}`);
      }
    }
    if (!killed) {
      throw new PhaulError({
        code: 'not-killed',
        what: 'no task of the tree could be killed at the line',
        remedy: 'the process goes on at the source; look at its state, then try again',
      });
    }
  }

  /** Back to life: sockets out of repair mode, fence off, what clients sent meanwhile delivered, tasks thawed. */
  async #resume(): Promise<void> {
    const { leaf, fence, catcher, replayer } = this.#gear;
    this.#abort.abort(
      new PhaulError({ code: 'rolled-back', what: 'the migration was rolled back', remedy: 'see its failure' }),
    );
    try {
      const end = await this.#dump.rollBack();
      if (end !== 'answered') {
        // In the middle of its dump it has left the tasks to themselves: they must stand still while they are helped.
        if (this.#handles.length === 0 || end === 'stuck') await leaf?.freeze();
        if (end === 'stuck') await this.#dump.kill();
        // A socket that cannot be helped is lost; the table would block the others for ever.
        try {
          endRepairMode(this.#tasks());
        } finally {
          if (this.#runId !== null) await deleteLockTable(this.#runId);
        }
      }
      fence?.lift();
      if (catcher !== null && replayer !== null) replayer.replay(catcher.drain());
      leaf?.thaw();
      this.#state = 'resumed';
      this.#timeline.mark('resumed');
    } catch (thrown) {
      // Whatever went wrong: a tree that is whole must not stay frozen.
      leaf?.thaw();
      const failure = asFailure(thrown, { code: 'resume-failed', what: '', remedy: '' });
      throw new PhaulError({
        code: 'resume-failed',
        what: `the tree was thawed, but not all was undone: ${failure.message}`,
        remedy: 'look at the process and at `phaul leftovers`',
        cause: thrown,
      });
    }
  }
}

/** `work`, or the reason of the abort when that comes first: a sink whose link is cut never ends. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  work.catch(() => undefined);
  signal.throwIfAborted();
  return await new Promise<T>((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    work.then(resolve, reject);
  });
}
