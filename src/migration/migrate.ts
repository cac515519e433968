/**
 * One migration, from the checks to the report, in the order in which an operator would tell it.
 *
 * Before the line every failure ends with the source running; after it, with the destination running.
 * The disposers do the undoing: each thing that a step sets up is undone when the story leaves early, in reverse order,
 * and the same disposers only tidy up once the line is crossed.
 */
import { asFailure, messageOf, PhaulError, type ProcessFate } from '../failure/phaul-error.js';
import { limitFreeze } from './freeze-limit.js';
import type { Lifetime } from './lifetime.js';
import type { MigrationOrder } from './order.js';
import { PhaseMachine } from './phase.js';
import type {
  CaughtPackets,
  DestinationHost,
  Finding,
  FrozenTree,
  Landing,
  LandingRequest,
  Running,
  SourceHost,
} from './ports.js';
import { type MigrationEvent, nowMs, type Report } from './report.js';

export type Tell = (event: MigrationEvent) => void;

/** Moves one process tree. Throws a PhaulError that says where the process runs. */
export async function migrate(
  order: MigrationOrder,
  source: SourceHost,
  destination: DestinationHost,
  life: Lifetime,
  tell: Tell,
): Promise<Report> {
  const remarks: string[] = [];
  const remark = (text: string): void => {
    remarks.push(text);
    tell({ kind: 'remark', text });
  };
  tell({ kind: 'started', id: order.id, source: source.name, destination: destination.name });
  const phases = new PhaseMachine(nowMs, (phase, at) => tell({ kind: 'phase', phase, at }));

  try {
    if (order.timeoutMs !== null) life.setDeadline('timeout', order.timeoutMs, () => timedOut(order));
    const { request, findings } = await check(order, source, destination, life, tell);
    if (order.dryRun) {
      phases.move('checked');
      return report({ outcome: 'checked', pid: order.pid });
    }

    phases.move('preparing');
    await using landing = await destination.prepare(request, life);
    await using departure = await source.prepare(request, findings, life);
    await landing.arm(life);
    phases.move('armed');

    life.clearDeadline('timeout');
    life.throwIfEnded();
    limitFreeze(order, request.memoryBytes, life);
    phases.move('freezing');
    await using frozen = await departure.freeze(landing.images, life);

    if (order.leaveRunning) {
      const imagesFolder = await landing.keepImages(frozen.delivered, life);
      phases.move('images-kept');
      for (const text of departure.remarks) remark(text);
      return report({
        outcome: 'images-kept',
        pid: order.pid,
        landing,
        frozen,
        frozenMs: nowMs() - frozenSince(frozen),
        imagesFolder,
      });
    }

    phases.move('restoring');
    // Raced as a whole: a disk that hangs under the intent must not hold the frozen tree beyond its time (dangers.md 7).
    await life.race(Promise.all([landing.restoreAndHold(frozen.delivered, life), frozen.intend()]));
    life.throwIfEnded();

    frozen.kill();
    // ------------- the line: SIGKILL is pending on every task; from here on only the destination may run -------------
    // COMMIT comes before anything that could fail: a landing that was never told to take over is undone when the story
    // leaves, and the copy there is the only one now.
    const takenOver = settled(takeOverUntilItRuns(landing, whatWasCaught(frozen), remark));
    phases.move('committing');
    life.clearDeadline('max-freeze');
    const buried = bury(frozen, source, order);
    phases.move('taking-over');
    const [taken, graveRemarks] = await Promise.all([takenOver, buried]);
    if (taken.failure !== null) throw taken.failure;
    const running = taken.value;
    const frozenMs = taken.at - frozenSince(frozen);
    phases.move('moved');
    for (const text of [...departure.remarks, ...running.remarks, ...graveRemarks]) remark(text);
    return report({ outcome: 'moved', pid: running.pid, landing, frozen, frozenMs, running });

    function report(facts: ReportFacts): Report {
      const sourceSteps = [...(facts.frozen?.timeline ?? [])];
      return {
        id: order.id,
        outcome: facts.outcome,
        source: source.name,
        destination: destination.name,
        pid: facts.pid,
        phases: phases.durations(),
        frozenMs: facts.frozenMs ?? null,
        bytes: facts.landing?.images.bytesSent ?? 0,
        images: facts.frozen?.delivered.length ?? 0,
        replayedPackets: facts.running?.replayedPackets ?? 0,
        findings,
        remarks,
        timeline: { source: sourceSteps, destination: facts.running?.timeline ?? [] },
        imagesFolder: facts.imagesFolder ?? facts.running?.imagesFolder ?? null,
      };
    }
  } catch (thrown) {
    throw placed(thrown, phases, source, destination, order);
  }
}

type Settled<T> = { readonly failure: null; readonly value: T; readonly at: number } | { readonly failure: PhaulError };

/** How a piece of work ended, and when; for work beside which other work must end too. */
async function settled<T>(work: Promise<T>): Promise<Settled<T>> {
  try {
    return { failure: null, value: await work, at: nowMs() };
  } catch (thrown) {
    return { failure: asFailure(thrown, { code: 'internal', what: messageOf(thrown), remedy: 'please report it' }) };
  }
}

/** When the source froze, by its own clock. */
function frozenSince({ timeline }: FrozenTree): number {
  return timeline.find(({ step }) => step === 'frozen')?.at ?? timeline[0]?.at ?? nowMs();
}

interface ReportFacts {
  readonly outcome: Report['outcome'];
  readonly pid: number;
  readonly landing?: Landing;
  readonly frozen?: FrozenTree;
  readonly frozenMs?: number;
  readonly running?: Running;
  readonly imagesFolder?: string;
}

/** Both hosts look, nobody touches. Blockers refuse the migration; everything else is told. */
async function check(
  order: MigrationOrder,
  source: SourceHost,
  destination: DestinationHost,
  life: Lifetime,
  tell: Tell,
): Promise<{ request: LandingRequest; findings: Finding[] }> {
  const verdict = await source.inspect(order, life);
  const refusedHere = verdict.findings.some((finding) => finding.weight === 'blocker');
  // A tree that cannot leave is not worth a question to the other host.
  const there = refusedHere ? [] : await destination.check(verdict.request, life);
  const findings = [...verdict.findings, ...there];
  for (const finding of findings) tell({ kind: 'finding', finding });
  const blockers = findings.filter((finding) => finding.weight === 'blocker');
  if (blockers.length > 0) throw new MigrationRefused(blockers);
  life.throwIfEnded();
  return { request: verdict.request, findings };
}

/** The checks said no. Carries every blocker; nothing was touched. */
export class MigrationRefused extends PhaulError {
  readonly blockers: readonly Finding[];

  constructor(blockers: readonly Finding[]) {
    const [first] = blockers;
    const more = blockers.length > 1 ? ` (and ${blockers.length - 1} more)` : '';
    const sameReason = blockers.every((blocker) => blocker.code === first?.code);
    super(
      {
        code: sameReason && first ? first.code : 'refused-by-checks',
        what: first ? `${first.what} ${first.why}${more}` : 'the checks refused the migration',
        remedy: [...new Set(blockers.map((blocker) => blocker.remedy))].join(' '),
      },
      first ? { phase: 'checking', host: first.host, fate: { kind: 'untouched' } } : null,
    );
    this.blockers = blockers;
  }
}

/** Packets that cannot be had are sent again by TCP; they are no reason to stop here. */
function whatWasCaught(frozen: FrozenTree): CaughtPackets {
  try {
    return frozen.caughtPackets();
  } catch {
    return { packets: [], lost: 1 };
  }
}

/** What the destination says when no repetition can help: the restore failed for good, or it knows nothing of this migration. */
const hopeless: ReadonlySet<string> = new Set(['take-over-impossible', 'unknown-migration']);

/** Behind the line there is no way but forward: the same COMMIT is sent until the destination says that the copy runs. */
async function takeOverUntilItRuns(
  landing: Landing,
  packets: CaughtPackets,
  remark: (text: string) => void,
): Promise<Running> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await landing.takeOver(packets);
    } catch (thrown) {
      const failure = asFailure(thrown, {
        code: 'commit-unanswered',
        what: 'the destination did not answer COMMIT',
        remedy: 'restart the agent of the destination',
      });
      if (hopeless.has(failure.code)) throw failure;
      if (attempt === 0 || attempt % 20 === 0)
        remark(`COMMIT is sent again until the destination answers: ${failure.message}`);
      await new Promise((resolve) => setTimeout(resolve, Math.min(200 * 2 ** Math.min(attempt, 5), 5000)));
    }
  }
}

/** The process runs elsewhere whatever becomes of its grave: what goes wrong here is told, and left to recovery. */
async function bury(frozen: FrozenTree, source: SourceHost, order: MigrationOrder): Promise<readonly string[]> {
  try {
    return (await frozen.bury()).remarks;
  } catch (thrown) {
    return [`${source.name} could not be tidied up (${messageOf(thrown)}): phaul recover ${order.id} there`];
  }
}

function timedOut(order: MigrationOrder): PhaulError {
  return new PhaulError({
    code: 'timeout',
    what: `the migration was not ready to freeze the process within ${order.timeoutMs} ms`,
    remedy: 'try again with a longer --timeout',
  });
}

function placed(
  thrown: unknown,
  phases: PhaseMachine,
  source: SourceHost,
  destination: DestinationHost,
  order: MigrationOrder,
): PhaulError {
  const failure = asFailure(storyOf(thrown), {
    code: 'internal',
    what: 'an unexpected failure inside phaul',
    remedy: 'please report it with the log of the agent',
  });
  const phase = phases.now;
  let fate: ProcessFate;
  if (phases.sourceCanGoOn) {
    fate = phase === 'checking' ? { kind: 'untouched' } : { kind: 'running-on', host: source.name };
    if (undoingFailed(thrown)) fate = { kind: 'undecided', ask: `phaul recover ${order.id} (on ${source.name})` };
    phases.move('undone');
  } else {
    fate = { kind: 'undecided', ask: `phaul recover ${order.id} (on ${destination.name})` };
    phases.move('lost-sight');
  }
  // A place that the failure already knows (the other host's) is kept by `at`; only the fate is known better here.
  return failure.at({ phase, host: source.name, fate });
}

/** A `SuppressedError`: what a disposer threw while another failure was on its way. */
function suppressedBy(thrown: unknown): { disposal: unknown; story: unknown } | null {
  if (typeof thrown !== 'object' || thrown === null || !('suppressed' in thrown) || !('error' in thrown)) return null;
  return { disposal: thrown.error, story: thrown.suppressed };
}

/** When undoing fails too, the first failure is the story; the second one stays as its cause. */
function storyOf(thrown: unknown): unknown {
  const pair = suppressedBy(thrown);
  if (pair === null) return thrown;
  const story = storyOf(pair.story);
  if (!(story instanceof PhaulError) || story.cause !== undefined) return story;
  return new PhaulError(
    { code: story.code, what: story.message, remedy: story.remedy, cause: pair.disposal },
    story.place,
  );
}

/** True when the tree could not be let go: the one failure of an undoing that concerns the process itself. */
function undoingFailed(thrown: unknown): boolean {
  const pair = suppressedBy(thrown);
  if (pair === null) return thrown instanceof PhaulError && thrown.code === 'resume-failed';
  return undoingFailed(pair.disposal) || undoingFailed(pair.story);
}
