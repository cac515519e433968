/** The exit codes of `phaul`, one table for every command; part of the interface (docs/operations.md). */
import type { SerializedFailure } from '../failure/phaul-error.js';

export const exitCode = {
  /** Done: moved, checked, images kept, or the question answered. */
  done: 0,
  /** Failed: the process was not touched, or goes on where it was. */
  failed: 1,
  /** The command line is wrong. */
  usage: 2,
  /** Refused before anything was touched: the checks, or a rule of the configuration, said no. */
  refused: 3,
  /** Cancelled: the process goes on where it was. */
  cancelled: 4,
  /** Where the process runs is not decided, or it is held: `phaul recover`. */
  undecided: 5,
  /** A host or its agent does not answer; the process was not touched. */
  unreachable: 6,
  /** Left by a second Ctrl-C; the agent goes on. */
  left: 130,
} as const;

export type ExitCode = (typeof exitCode)[keyof typeof exitCode];

const usageCodes: ReadonlySet<string> = new Set(['bad-option', 'bad-address', 'destination-wrong', 'host-name-wrong']);
const unreachableCodes: ReadonlySet<string> = new Set([
  'host-unreachable',
  'host-silent',
  'no-agent',
  'agent-not-started',
]);
const refusedCodes: ReadonlySet<string> = new Set([
  'address-not-allowed',
  'certificate-expired',
  'certificate-of-another',
  'certificate-refused',
  'certificate-without-role',
  'host-key-mismatch',
  'host-key-unknown',
  'no-certificate',
  'not-installed',
  'operator-not-allowed',
  'peer-not-allowed',
  'protocol-mismatch',
  'role-not-allowed',
  'same-host',
  'ssh-login-refused',
]);

/** The exit code of a failed command. Where the process is counts before why. */
export function exitCodeOf(failure: SerializedFailure): ExitCode {
  const fate = failure.place?.fate.kind;
  if (fate === 'undecided' || fate === 'frozen-on') return exitCode.undecided;
  if (failure.code === 'cancelled') return exitCode.cancelled;
  if (usageCodes.has(failure.code)) return exitCode.usage;
  if (refusedCodes.has(failure.code)) return exitCode.refused;
  if (fate !== 'running-on' && unreachableCodes.has(failure.code)) return exitCode.unreachable;
  if (failure.code !== 'internal' && failure.place?.phase === 'checking' && fate === 'untouched')
    return exitCode.refused;
  return exitCode.failed;
}
