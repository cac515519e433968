/** The progress of a migration for people, or as JSON lines. */
import type { Finding } from '../migration/ports.js';
import type { MigrationEvent, PhaseName, Report } from '../migration/report.js';
import { bytes, milliseconds, type Terminal, table } from './terminal.js';

export interface EventPrinter {
  print(event: MigrationEvent): void;
}

const sentences: Readonly<Record<PhaseName, string>> = {
  checking: 'checking both hosts',
  preparing: 'preparing both hosts',
  armed: 'both hosts are ready',
  freezing: 'frozen; memory and images are on their way',
  restoring: 'restoring on the destination, held',
  committing: 'handing over',
  'taking-over': 'the destination takes over',
  moved: 'moved',
  'images-kept': 'the images are on the destination; the process goes on here',
  checked: 'checked, nothing touched',
  undone: 'undone; the process goes on here',
  'lost-sight': 'the destination does not answer',
};

/** One JSON object a line on stdout, each a MigrationEvent. */
export class JsonPrinter implements EventPrinter {
  print(event: MigrationEvent): void {
    process.stdout.write(`${JSON.stringify(event)}\n`);
  }
}

/** Phases with their times on stderr, the report on stdout. */
export class TextPrinter implements EventPrinter {
  readonly #terminal: Terminal;
  #began: number | null = null;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  print(event: MigrationEvent): void {
    switch (event.kind) {
      case 'started':
        this.#terminal.line(`migration ${event.id}: ${event.source} -> ${event.destination}`);
        break;
      case 'finding':
        this.#terminal.line(describeFinding(event.finding));
        break;
      case 'phase': {
        this.#began ??= event.at;
        const since = `${((event.at - this.#began) / 1000).toFixed(3).padStart(8)} s`;
        this.#terminal.line(`${since}  ${event.phase.padEnd(12)} ${sentences[event.phase]}`);
        this.#terminal.status(`${sentences[event.phase]} ...`);
        break;
      }
      case 'remark':
        this.#terminal.line(`  note: ${event.text}`);
        break;
      case 'done':
        this.#terminal.status('');
        process.stdout.write(`${describeReport(event.report)}\n`);
        break;
      case 'failed':
        // The command prints it, with the exit code at hand.
        this.#terminal.status('');
        break;
    }
  }
}

export function describeFinding(finding: Finding): string {
  const place = finding.pid === null ? '' : ` (pid ${finding.pid}${finding.fd === null ? '' : `, fd ${finding.fd}`})`;
  const head = `  ${finding.weight} on ${finding.host}: ${finding.what}${place} [${finding.code}]`;
  if (finding.weight === 'note') return `${head}: ${finding.why}`;
  return `${head}\n    why:    ${finding.why}\n    remedy: ${finding.remedy}`;
}

export function describeReport(report: Report): string {
  const rows: string[][] = [['phase', 'time']];
  for (const { phase, ms } of report.phases) rows.push([phase, milliseconds(ms)]);
  const total = report.phases.reduce((sum, { ms }) => sum + ms, 0);
  rows.push(['total', milliseconds(total)]);
  const lines = [headline(report), '', table(rows), ''];
  if (report.frozenMs !== null) lines.push(`frozen for   ${milliseconds(report.frozenMs)}`);
  if (report.images > 0) lines.push(`sent         ${bytes(report.bytes)} in ${report.images} images`);
  if (report.replayedPackets > 0) lines.push(`replayed     ${report.replayedPackets} packets caught while frozen`);
  if (report.imagesFolder !== null) lines.push(`images       ${report.imagesFolder} on ${report.destination}`);
  for (const remark of report.remarks) lines.push(`note         ${remark}`);
  return lines.join('\n').trimEnd();
}

function headline(report: Report): string {
  switch (report.outcome) {
    case 'moved':
      return `pid ${report.pid} runs on ${report.destination} now (was on ${report.source}), migration ${report.id}`;
    case 'images-kept':
      return `pid ${report.pid} goes on on ${report.source}; its verified images are on ${report.destination}`;
    case 'checked':
      return `pid ${report.pid} can move from ${report.source} to ${report.destination}; nothing was touched`;
  }
}
