/** `phaul leftovers [--clean]`: what any run, finished or broken, left on this host. */
import type { Command } from 'commander';
import { exitCode } from './exit-codes.js';
import { table } from './terminal.js';

interface LeftoversOptions {
  readonly logLevel: string;
  readonly clean?: boolean;
  readonly json?: boolean;
  readonly config?: string;
  readonly agent?: string;
}

export function addLeftoversCommand(program: Command): void {
  program
    .command('leftovers')
    .summary('show, or remove, what migrations left on this host')
    .option('--clean', 'remove what is safe to remove')
    .option('--json', 'JSON lines on stdout')
    .action(async (_options: unknown, command: Command) => {
      const options = command.optsWithGlobals<LeftoversOptions>();
      const { clean = false, json = false, config = null, agent = null, logLevel } = options;
      const [{ connectAgent }, { rpc }] = await Promise.all([
        import('./local-agent.js'),
        import('../agent/control/rpc-service.js'),
      ]);
      await using link = await connectAgent({ config, agent, start: { logLevel } });
      const { leftovers } = await link.rpc.call(rpc.leftovers, { clean });
      if (json) {
        for (const leftover of leftovers) process.stdout.write(`${JSON.stringify(leftover)}\n`);
      } else if (leftovers.length === 0) {
        process.stdout.write('nothing was left\n');
      } else {
        const rows = leftovers.map((one) => [
          one.kind ?? '',
          one.what ?? '',
          one.migration ?? '',
          one.cleaned ? 'removed' : 'there',
          one.note ?? '',
        ]);
        process.stdout.write(`${table([['KIND', 'WHAT', 'MIGRATION', 'STATE', 'NOTE'], ...rows])}\n`);
      }
      if (clean && leftovers.some((one) => !one.cleaned)) process.exitCode = exitCode.failed;
    });
}
