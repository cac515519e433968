/** Runs the real commands on a lab host: `phaul migrate … --json`, whose events it follows, and `phaul leftovers`. */
import { createInterface } from 'node:readline';
import { PhaulError } from '../failure/phaul-error.js';
import type { LabHost } from '../lab/lab-host.js';
import type { MigrationEvent, Report } from '../migration/report.js';

export interface MoveOrder {
  readonly pid: number;
  readonly destination: string;
  readonly addresses: readonly string[];
}

/** The command as an operator would type it. */
export function commandLine(order: MoveOrder): string[] {
  const addresses = order.addresses.flatMap((address) => ['--move-address', address]);
  return ['migrate', String(order.pid), order.destination, ...addresses];
}

/** Returns the report of the migration; each event is told as it comes. Throws what the command failed with. */
export async function phaulMigrate(
  source: LabHost,
  order: MoveOrder,
  tell: (event: MigrationEvent) => void,
): Promise<Report> {
  await using command = source.spawn(source.phaulArgv([...commandLine(order), '--json']));
  let report: Report | null = null;
  let failure: PhaulError | null = null;
  const { stdout } = command.child;
  if (stdout === null) throw new Error('the command has no stdout');
  for await (const line of createInterface({ input: stdout })) {
    const event = JSON.parse(line) as MigrationEvent;
    if (event.kind === 'done') report = event.report;
    if (event.kind === 'failed') failure = PhaulError.fromJSON(event.failure);
    tell(event);
  }
  const { exitCode, stderr } = await command.finished;
  if (failure !== null) throw failure;
  if (report !== null && exitCode === 0) return report;
  throw new PhaulError({
    code: 'demo-migrate-failed',
    what: `phaul migrate ended with exit code ${exitCode} and no report: ${stderr.trim().split('\n').slice(-3).join(' | ')}`,
    remedy: 'see the logs of the agents',
  });
}

/** What `phaul leftovers` finds on a host, in words. */
export async function leftoversOn(host: LabHost): Promise<string[]> {
  const lines = (await host.check(host.phaulArgv(['leftovers', '--json']))).split('\n').filter(Boolean);
  return lines.map((line) => {
    const { kind = '?', what = '?' } = JSON.parse(line) as { kind?: string; what?: string };
    return `${kind} ${what} on ${host.name}`;
  });
}
