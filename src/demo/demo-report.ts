/** What the demo tells at its end, and whether everything was kept. Pure: facts in, lines out. */
import { type ClientReport, isUnharmed } from '../lab/clients.js';
import type { Report } from '../migration/report.js';

export interface DemoFacts {
  readonly migration: Report;
  readonly clients: ClientReport;
  /** Longest silence of the same clients without a move, ms: median over the connections. */
  readonly quietMs: number;
  readonly memoryMib: number;
  readonly aliveOnSource: boolean;
  readonly aliveOnDestination: boolean;
  /** The name that the server gave before the move. */
  readonly nameBefore: string;
  /** What `phaul leftovers` has found on both hosts after the move. */
  readonly leftovers: readonly string[];
}

/** Everything that a user would call lost or wrong; empty when the move was whole. */
export function violations(facts: DemoFacts): string[] {
  const { clients, migration } = facts;
  const found: string[] = [];
  if (!facts.aliveOnDestination) found.push(`the server does not run on ${migration.destination}`);
  if (facts.aliveOnSource) found.push(`the server still runs on ${migration.source}`);
  if (clients.badPages === null) found.push('the server did not answer the question for its memory');
  if ((clients.badPages ?? 0) > 0) found.push(`${clients.badPages} pages of the server are wrong`);
  if (!clients.hostAnswers.has(migration.destination))
    found.push(`no client had an answer from ${migration.destination}`);
  if (clients.newConnections.ok === 0) found.push('no new connection was made');
  if (facts.leftovers.length > 0) found.push(`left behind: ${facts.leftovers.join(', ')}`);
  if (!isUnharmed(clients)) {
    found.push(
      `clients: ${clients.portsAfter.length} of ${clients.connections} connections live, ${clients.lost} replies lost, ` +
        `${clients.errors} errors, ${clients.corrupt} wrong replies, ${clients.newConnections.failed} new connections failed` +
        (clients.firstError === null ? '' : ` (first: ${clients.firstError})`),
    );
  }
  return found;
}

export function reportLines(facts: DemoFacts): string[] {
  const { clients, migration } = facts;
  const { longestSilenceMs: silence, newConnections: fresh } = clients;
  const answers = [...clients.hostAnswers].map(([host, replies]) => `${replies} by ${host}`).join(', ');
  const frozen = migration.frozenMs === null ? [] : [line('frozen', ms(migration.frozenMs))];
  return [
    line('moved', `pid ${migration.pid}, ${migration.source} -> ${migration.destination}`),
    line('phases', migration.phases.map(({ phase, ms: took }) => `${phase} ${ms(took)}`).join(', ')),
    ...frozen,
    line(
      'seen by clients',
      `${ms(silence.p50)} without a reply (median of ${clients.connections}), ${ms(silence.max)} at worst`,
    ),
    line('', `${ms(facts.quietMs)} is the median of the same clients without a move`),
    line(
      'sent',
      `${mib(migration.bytes)} in ${migration.images} images, ${migration.replayedPackets} packets replayed`,
    ),
    line(
      'connections',
      `${clients.portsAfter.length} of ${clients.connections} kept, same ports; ${clients.requests} replies, ` +
        `${clients.lost} lost, ${clients.errors} errors`,
    ),
    line('new connections', `${fresh.ok} made, ${fresh.failed} failed, ${ms(fresh.maxMs)} at worst`),
    line('memory', `${facts.memoryMib} MiB verified by the server itself: ${clients.badPages ?? 'unknown'} bad pages`),
    line('answers', `${facts.nameBefore} before, ${migration.destination} after (${answers})`),
    line('left behind', facts.leftovers.length === 0 ? 'nothing on either host' : facts.leftovers.join(', ')),
    ...migration.remarks.map((remark) => line('remark', remark)),
  ];
}

export function ms(value: number): string {
  return `${value < 100 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const line = (title: string, text: string): string => `  ${title.padEnd(16)} ${text}`;
