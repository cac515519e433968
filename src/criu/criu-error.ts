/** A failure of CRIU, explained from its log. */
import { PhaulError } from '../failure/phaul-error.js';
import { causeIn, errorLines, readLogTail } from './log.js';

export class CriuError extends PhaulError {
  /** The last error lines of CRIU's log; empty when it wrote none. */
  readonly logTail: readonly string[];
  /** CRIU's `cr_errno`, or null. */
  readonly criuErrno: number | null;

  private constructor(failure: PhaulError, logTail: readonly string[], criuErrno: number | null) {
    super({ code: failure.code, what: failure.message, remedy: failure.remedy, cause: failure.cause });
    this.logTail = logTail;
    this.criuErrno = criuErrno;
  }

  /** `failure` with the cause that the log at `logPath` tells. */
  static async from(failure: PhaulError, logPath: string | null, criuErrno: number | null): Promise<CriuError> {
    const lines = logPath === null ? [] : await readLogTail(logPath);
    const errors = errorLines(lines).slice(-8);
    const cause = causeIn(lines);
    if (cause === null) {
      const errno = criuErrno === null ? '' : ` (errno ${criuErrno})`;
      return new CriuError(
        new PhaulError({
          code: failure.code,
          what: `${failure.message}${errno}`,
          remedy: failure.remedy,
          cause: failure.cause,
        }),
        errors,
        criuErrno,
      );
    }
    const quoted = new Error(errors.join('\n'));
    return new CriuError(
      new PhaulError({
        code: cause.code,
        what: `${failure.message}: ${cause.what}`,
        remedy: cause.remedy,
        cause: quoted,
      }),
      errors,
      criuErrno,
    );
  }
}
