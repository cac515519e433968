/** Makes a copy of a tree from its images: engine primed, restored and held, let go; again behind the line if it must be. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Engine } from '../../criu/engine.js';
import { EngineSession } from '../../criu/session.js';
import { neverAborted } from '../../failure/never-aborted.js';
import { messageOf, PhaulError } from '../../failure/phaul-error.js';
import { readStat } from '../../host/tasks.js';
import { Lifetime } from '../../migration/lifetime.js';
import type { CaughtPackets, LandingRequest } from '../../migration/ports.js';
import type { Timeline } from '../../migration/report.js';
import { breakpoint } from '../breakpoint.js';
import { restoreOptions } from '../engine-options.js';
import { cgroupGround, helpersOf } from '../helper-cgroup.js';
import { parseTravellingFacts } from '../travelling-facts.js';
import { type CopyPlace, lookAtCopy } from './copy-look.js';
import { HeldCopy } from './held-copy.js';
import type { LandingSite } from './landing-site.js';
import { SetAside } from './set-aside.js';
import { StdioEnds } from './stdio-ends.js';

export interface CopyPlan {
  readonly request: LandingRequest;
  readonly engine: Engine;
  readonly imagesFolder: string;
  readonly site: LandingSite;
}

export interface LetGo {
  readonly pid: number;
  readonly replayed: number;
  readonly remarks: string[];
}

/** How often a restore is tried behind the line; it failed for a reason that may pass (a pid, a port). */
const restoreTries = 3;
/** Pids of a killed copy are free when pid 1 has reaped it; then at the latest it is tried all the same. ms. */
const reapMs = 3000;

export class CopyMaker implements AsyncDisposable {
  readonly #plan: CopyPlan;
  #session: EngineSession | null = null;
  #copy: HeldCopy | null = null;
  readonly #aside: SetAside;
  #stdio: StdioEnds | null = null;
  /** What the session inherits behind its images folder, in this order. */
  #keys: readonly string[] = [];

  constructor(plan: CopyPlan) {
    this.#plan = plan;
    this.#aside = new SetAside(plan.request, plan.imagesFolder);
  }

  /** Starts CRIU in the copy's cgroup and lets it probe the kernel. Before the fence: its probe connects over loopback (dangers.md 17a). */
  async prime(): Promise<void> {
    const { request, engine, imagesFolder, site } = this.#plan;
    const { ground } = cgroupGround();
    const helpers = ground === null ? null : helpersOf(ground);
    const images = await open(imagesFolder, constants.O_RDONLY | constants.O_DIRECTORY);
    const { stdio } = parseTravellingFacts(request.treeFacts);
    // CRIU has its own descriptors of what they open; only what was opened is remembered.
    using ends = await StdioEnds.open(request.order, stdio, helpers);
    this.#stdio = ends;
    this.#keys = ends.keys;
    try {
      const plan = {
        engine,
        cgroup: site.leaf?.path ?? null,
        inherit: [images.fd, ...ends.fds],
        logFolder: imagesFolder,
      };
      const output = request.order.stdio.kind === 'file' ? request.order.stdio.path : null;
      this.#session = request.order.shellJob
        ? await EngineSession.startOnTerminal(plan, { cgroup: helpers, output })
        : EngineSession.start(plan);
      await this.#session.featureCheck();
    } finally {
      await images.close();
    }
  }

  /** Returns when the copy is complete and held. */
  async restore(life: Lifetime): Promise<void> {
    const session = this.#session;
    if (session === null) throw new Error('the engine is not primed');
    const { request } = this.#plan;
    const ownFence = request.order.addresses.length > 0 || !request.tcpEstablished;
    const travel = {
      imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`,
      tcpEstablished: request.tcpEstablished,
      networkLock: ownFence ? ('skip' as const) : ('nftables' as const),
    };
    this.#aside.take();
    const inherited = this.#keys.map((key, index) => ({ key, fd: session.inheritedFd(1 + index) }));
    this.#copy = new HeldCopy(session, restoreOptions(request.order, travel, inherited));
    await this.#copy.held(life);
    this.#stdio?.appendAlways();
  }

  /** Behind the line only: goes forward until the copy runs. Throws `take-over-impossible` when that fails for good; the images stay. */
  async letGo(packets: CaughtPackets, timeline: Timeline): Promise<LetGo> {
    const { site, imagesFolder, request } = this.#plan;
    const remarks: string[] = [];
    let replayed: number | null = null;
    const replay = (): void => {
      const done = site.replay(packets);
      replayed = done.replayed;
      remarks.push(...done.remarks);
    };
    for (let attempt = 1; ; attempt++) {
      try {
        if (this.#copy === null && attempt === 1 && this.#session !== null) {
          remarks.push('restored behind the line, since both hosts share files that the tree has locked');
          await this.#restoreLate();
        } else if (this.#copy === null) {
          await this.#restoreAgain();
        }
        const copy = this.#current();
        const pid = await copy.letGo({
          openNetwork: () => {
            site.openNetwork();
            timeline.mark('network open');
          },
          beforeResume: () => {
            timeline.mark('pre-resume');
            breakpoint('before-resume');
            replay();
          },
        });
        this.#aside.discard();
        return { pid, replayed: replayed ?? 0, remarks };
      } catch (thrown) {
        site.closeNetwork();
        // CRIU's answer may be missing although it let the tasks go: then they are the process.
        if (this.#copy?.wasLetGo === true && (await lookAtCopy(this.#place())) === 'running') {
          site.openNetwork();
          if (replayed === null) replay();
          remarks.push(`CRIU ended without an answer, but the copy runs: ${messageOf(thrown)}`);
          this.#aside.discard();
          return { pid: request.order.pid, replayed: replayed ?? 0, remarks };
        }
        if (attempt >= restoreTries) {
          throw new PhaulError({
            code: 'take-over-impossible',
            what: `the copy could not be restored behind the line: ${messageOf(thrown)}`,
            remedy: `the images are whole in ${imagesFolder}: remove what is in the way, then phaul recover ${request.order.id} on the destination`,
            cause: thrown,
          });
        }
        remarks.push(`restored again behind the line: ${messageOf(thrown)}`);
        this.#copy = null;
      }
    }
  }

  /** Before the line: kills the half-built copy. Behind it nothing is left to do here. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copy?.kill();
    await this.#session?.[Symbol.asyncDispose]();
    this.#stdio?.discard();
    this.#aside.putBack();
  }

  /** The primed engine has not been asked yet: early READY (dangers.md 41). */
  async #restoreLate(): Promise<void> {
    using life = new Lifetime();
    await this.restore(life);
  }

  async #restoreAgain(): Promise<void> {
    await this.#session?.[Symbol.asyncDispose]();
    const { site } = this.#plan;
    site.leaf?.kill();
    await this.#pidsAreFree();
    await site.raise(neverAborted);
    await this.prime();
    using life = new Lifetime();
    await this.restore(life);
  }

  #current(): HeldCopy {
    if (this.#copy === null) throw new Error('there is no copy');
    return this.#copy;
  }

  #place(): CopyPlace {
    const { request, site } = this.#plan;
    return {
      cgroup: site.leaf?.path ?? null,
      rootPid: request.order.pid,
      pids: request.tree.tasks.map((task) => task.pid),
    };
  }

  async #pidsAreFree(): Promise<void> {
    const { pids } = this.#place();
    const deadline = performance.now() + reapMs;
    while (pids.some((pid) => readStat(pid) !== null) && performance.now() < deadline) await delay(10);
  }
}
