/** A failure of CRIU, explained from its log. */
import { constants } from 'node:os';
import { PhaulError } from '../failure/phaul-error.js';
import { type CriuCause, causeIn, errorLines, readLogTail, unknownCause } from './log.js';

/** EBADRQC (errno.h), which Node does not name: invalid options. */
const badRequest = 56;
/** Errors of the log that travel with a failure: the cause is among the last few. */
const quotedLines = 8;

export class CriuError extends PhaulError {
  /** The last error lines of CRIU's log, harmless ones left out; empty when it wrote none. */
  readonly logTail: readonly string[];
  /** CRIU's `cr_errno`, or null. */
  readonly criuErrno: number | null;

  private constructor(
    facts: { code: string; what: string; remedy: string; cause: unknown },
    logTail: readonly string[],
    criuErrno: number | null,
  ) {
    super(facts);
    this.logTail = logTail;
    this.criuErrno = criuErrno;
  }

  /**
   * CRIU has answered `request` (`dump`) with a failure. The code is that of the cause in the log at `logPath`, or
   * `dump-failed`. `message` is CRIU's `cr_errmsg`: the first error of the run, often a harmless one, so it is only
   * looked at when the log tells nothing, and never shown alone.
   */
  static async refused(
    request: string,
    logPath: string | null,
    errno: number | null,
    message: string | null,
  ): Promise<CriuError> {
    const { lines, tail } = await logOf(logPath);
    const told = causeIn(lines) ?? (message === null ? null : firstError(message));
    const cause = told === null || told.code === unknownCause ? causeByNumber(request, errno, told) : told;
    const what = `CRIU could not ${wording[request] ?? request}`;
    const number = errno === null ? '' : ` (errno ${errno})`;
    if (cause !== null) {
      return new CriuError(
        { code: cause.code, what: `${what}: ${cause.what}`, remedy: cause.remedy, cause: quoted(tail, cause.line) },
        tail,
        errno,
      );
    }
    return new CriuError(
      {
        code: `${request}-failed`,
        what: `${what}${number}`,
        remedy: remedyWithout(logPath),
        cause: quoted(tail, null),
      },
      tail,
      errno,
    );
  }

  /** CRIU has vanished: `gone` with how it ended and what its log at `logPath` tells. The code stays. */
  static async gone(gone: PhaulError, exit: string, logPath: string | null): Promise<CriuError> {
    const { lines, tail } = await logOf(logPath);
    const cause = causeIn(lines);
    const what = `${gone.message}: ${exit}${cause === null ? '' : `; its log says that ${cause.what}`}`;
    return new CriuError(
      { code: gone.code, what, remedy: cause?.remedy ?? gone.remedy, cause: gone.cause ?? quoted(tail, null) },
      tail,
      null,
    );
  }
}

const wording: { readonly [request: string]: string } = {
  dump: 'dump the process',
  restore: 'restore the process',
  'pre-dump': 'read the memory of the process',
  'single-pre-dump': 'read the memory of the process',
  check: 'work with this kernel',
  'cpuinfo-dump': 'describe this CPU',
  'cpuinfo-check': 'accept this CPU',
  'feature-check': 'probe this kernel',
  'page-server': 'serve pages',
  'page-server-chld': 'serve pages',
};

/** `cr_errmsg` as a cause, said to be what it is where no pattern knows it. */
function firstError(message: string): CriuCause | null {
  const cause = causeIn([`Error (${message})`]);
  if (cause?.code !== unknownCause) return cause;
  return { ...cause, what: `it gave no log; its first error, which may be harmless, was: ${message}` };
}

/** What CRIU's `cr_errno` tells where its log does not: the numbers it sets on purpose (criu.md 2). */
function causeByNumber(request: string, errno: number | null, told: CriuCause | null): CriuCause | null {
  const line = told?.line ?? '';
  if (errno === constants.errno.ESRCH && request.endsWith('dump')) {
    return { code: 'pid-not-found', what: 'the process is gone', remedy: 'check the pid', line };
  }
  if (errno === constants.errno.EEXIST && request === 'restore') {
    return { code: 'pid-taken', what: 'a pid of the tree is in use on this host', remedy: 'end that process', line };
  }
  if (errno === badRequest) {
    return { code: 'bad-request', what: `CRIU refused the options: ${line}`, remedy: 'see the line of the log', line };
  }
  return told;
}

async function logOf(path: string | null): Promise<{ lines: string[]; tail: string[] }> {
  const lines = path === null ? [] : await readLogTail(path);
  return { lines, tail: errorLines(lines).slice(-quotedLines) };
}

function quoted(tail: readonly string[], line: string | null): Error | undefined {
  const quotes = tail.length > 0 ? tail : line === null ? [] : [line];
  return quotes.length === 0 ? undefined : new Error(`CRIU's log: ${quotes.join('\n')}`);
}

function remedyWithout(logPath: string | null): string {
  return logPath === null ? 'run it again with a log folder' : `look into ${logPath}; \`--log-level 4\` tells more`;
}
