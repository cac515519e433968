/**
 * `node dist/test/targets/run.js list | run NAME | all [--keep-going]`: moves targets in place with plain CRIU and
 * prints a table. Exit status 1 if one failed, 2 if nothing could be run.
 */
import { listTargets, type Target } from './catalog.js';
import { findCriu, moveInPlace, type Outcome } from './in-place.js';

const usage = 'usage: run.js list | run NAME... | all [--keep-going]';

async function runAll(targets: readonly Target[], keepGoing: boolean): Promise<number> {
  const criu = findCriu();
  if (criu === null) {
    console.error('no criu at $PHAUL_CRIU or /opt/phaul-criu/bin/criu: ./phaul engine says how to get one');
    return 2;
  }
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const target of targets) {
    const outcome = judged(target, await moveInPlace(target, criu));
    counts[outcome.result]++;
    console.log(row(target, outcome));
    if (outcome.result === 'failed' && !keepGoing) break;
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  return counts.failed === 0 ? 0 : 1;
}

/** A known limit of the engine that shows itself is no failure, but no success either. */
function judged(target: Target, outcome: Outcome): Outcome {
  if (!target.knownLimit || outcome.result !== 'failed') return outcome;
  return { ...outcome, result: 'skipped', details: `known limit of the engine: ${outcome.details}` };
}

function row(target: Target, outcome: Outcome): string {
  const details = outcome.details.replaceAll('\n', '\n  ');
  return `${target.name.padEnd(16)} ${outcome.result.padEnd(8)} ${String(outcome.ms).padStart(6)} ms  ${details}`;
}

async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  const targets = listTargets();
  if (command === 'list') {
    for (const { name, purpose } of targets) console.log(`${name.padEnd(16)} ${purpose}`);
    return 0;
  }
  if (command === 'all') return await runAll(targets, rest.includes('--keep-going'));
  const chosen = targets.filter(({ name }) => rest.includes(name));
  if (command === 'run' && rest.length > 0 && chosen.length === rest.length) return await runAll(chosen, true);
  console.error(command === 'run' ? `unknown target; they are: ${targets.map(({ name }) => name).join(' ')}` : usage);
  return 2;
}

process.exitCode = await main(process.argv.slice(2));
