/** `phaul status [ID] [--watch]`. */
import type { Command } from 'commander';
import { PhaulError } from '../failure/phaul-error.js';
import { Terminal, table } from './terminal.js';

interface StatusOptions {
  readonly watch?: boolean;
  readonly json?: boolean;
  readonly config?: string;
  readonly agent?: string;
}

export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .summary('show migrations of this host, or follow one')
    .argument('[ID]', 'one migration')
    .option('--watch', 'follow it to its end')
    .option('--json', 'JSON lines on stdout')
    .action(run);
}

async function run(id: string | undefined, _options: unknown, command: Command): Promise<void> {
  const { watch = false, json = false, config = null, agent = null } = command.optsWithGlobals<StatusOptions>();
  if (watch && id === undefined) {
    throw new PhaulError({ code: 'bad-option', what: '--watch needs an ID', remedy: 'see `phaul status` for the IDs' });
  }
  const [{ connectAgent }, { rpc }] = await Promise.all([
    import('./local-agent.js'),
    import('../agent/control/rpc-service.js'),
  ]);
  await using link = await connectAgent({ config, agent, start: null });
  if (watch && id !== undefined) {
    const [{ follow }, { JsonPrinter, TextPrinter }] = await Promise.all([
      import('./follow.js'),
      import('./print-events.js'),
    ]);
    const printer = json ? new JsonPrinter() : new TextPrinter(new Terminal());
    process.exitCode = await follow(link.rpc.stream(rpc.watch, { id }), link, printer, () => undefined);
    return;
  }
  const { migrations } = await link.rpc.call(rpc.status, { id: id ?? '' }, { timeoutMs: 10_000 });
  if (id !== undefined && migrations.length === 0) {
    throw new PhaulError({
      code: 'unknown-migration',
      what: `${link.name} knows no migration ${id}`,
      remedy: 'see `phaul status` for all of them',
    });
  }
  if (json) {
    for (const migration of migrations) process.stdout.write(`${JSON.stringify(migration)}\n`);
    return;
  }
  const rows = migrations.map((one) => [
    one.id ?? '',
    one.role ?? '',
    one.peer ?? '',
    String(one.pid ?? ''),
    one.phase ?? '',
    one.open ? 'open' : 'closed',
    new Date(one.since ?? 0).toISOString().replace('T', ' ').slice(0, 19),
    one.note ?? '',
  ]);
  const heading = ['ID', 'ROLE', 'OTHER HOST', 'PID', 'PHASE', 'STATE', 'SINCE (UTC)', 'NOTE'];
  process.stdout.write(rows.length === 0 ? 'no migrations\n' : `${table([heading, ...rows])}\n`);
}
