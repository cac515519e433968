/** Follows the events of one migration to its end, for `migrate` and for `status --watch`. */
import type { PeerLink } from '../agent/control/peer-link.js';
import { PhaulError } from '../failure/phaul-error.js';
import type { MigrationEvent } from '../migration/report.js';
import { type ExitCode, exitCode, exitCodeOf } from './exit-codes.js';
import type { EventPrinter } from './print-events.js';
import { describeFailure } from './print-failure.js';

interface EventMessage {
  readonly event: string;
}

/**
 * Prints every event and returns the exit code that the last one means. A stream that breaks after `started` says
 * nothing about the process: the agent owns it, so the failure is `undecided`.
 */
export async function follow(
  events: AsyncIterable<EventMessage>,
  link: PeerLink,
  printer: EventPrinter,
  onStarted: (id: string) => void,
): Promise<ExitCode> {
  const { eventFromWire } = await import('../agent/control/messages.js');
  let id: string | null = null;
  let last: MigrationEvent | null = null;
  try {
    for await (const message of events) {
      const event = eventFromWire(message);
      if (event === null) continue;
      if (event.kind === 'started') {
        id = event.id;
        onStarted(id);
      }
      printer.print(event);
      last = event;
    }
  } catch (thrown) {
    if (id === null || !(thrown instanceof PhaulError)) throw thrown;
    throw thrown.at(outOfSight(id, link.name));
  }
  if (last?.kind === 'done') return exitCode.done;
  if (last?.kind === 'failed') {
    process.stderr.write(`${describeFailure(last.failure)}\n`);
    return exitCodeOf(last.failure);
  }
  throw new PhaulError(
    {
      code: 'agent-gone',
      what: `the agent of ${link.name} has ended before the migration did`,
      remedy: 'look at its log; a new agent finishes or undoes what was open',
    },
    id === null ? null : outOfSight(id, link.name),
  );
}

function outOfSight(id: string, host: string) {
  return {
    phase: 'unknown',
    host,
    fate: { kind: 'undecided', ask: `phaul status ${id}, phaul recover ${id} (on ${host})` } as const,
  };
}
