/**
 * Where the tests of failures stop an agent: at most once in its life, at the step that `PHAUL_BREAKPOINT` names. The
 * agent leaves the file `breakpoint` in its run folder and stops itself by SIGSTOP; whoever set the variable then kills
 * whom he wants, or lets it go on by SIGCONT. Without the variable this is one comparison.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../failure/phaul-error.js';
import { runDirectoryOf } from './control/run-folder.js';

export type Step =
  // source
  | 'before-freeze'
  | 'frozen'
  | 'transferring'
  | 'committing-written'
  | 'ready'
  | 'killed'
  | 'commit-sent'
  // destination
  | 'prepared'
  | 'armed'
  | 'restoring'
  | 'held'
  | 'committed'
  | 'before-resume'
  | 'running';

export function breakpoint(step: Step): void {
  if (process.env['PHAUL_BREAKPOINT'] !== step) return;
  try {
    // A janitor inherits the variable; the file says that the stop has been.
    writeFileSync(join(runDirectoryOf(), 'breakpoint'), step, { flag: 'wx', mode: 0o600 });
  } catch (thrown) {
    if (errnoOf(thrown) === 'EEXIST') return;
    throw thrown;
  }
  process.kill(process.pid, 'SIGSTOP');
}
