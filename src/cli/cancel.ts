/** `phaul cancel ID`: honoured until the process is handed over. */
import type { Command } from 'commander';

export function addCancelCommand(program: Command): void {
  program
    .command('cancel')
    .summary('ask a migration to stop; the process goes on where it is')
    .argument('<ID>', 'the migration')
    .action(async (id: string, _options: unknown, command: Command) => {
      const { config = null, agent = null } = command.optsWithGlobals<{ config?: string; agent?: string }>();
      const [{ connectAgent }, { rpc }] = await Promise.all([
        import('./local-agent.js'),
        import('../agent/control/rpc-service.js'),
      ]);
      await using link = await connectAgent({ config, agent, start: null });
      await link.rpc.call(rpc.cancel, { id }, { timeoutMs: 30_000 });
      process.stdout.write(`${id} was asked to stop; \`phaul status ${id} --watch\` shows how it ends\n`);
    });
}
