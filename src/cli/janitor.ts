/** `phaul janitor ID`: started by the agent, never by people. */
import type { Command } from 'commander';

export function addJanitorCommand(program: Command): void {
  program.command('janitor <id>', { hidden: true }).action(async (id: string, _options: unknown, command: Command) => {
    const [{ loadConfig }, { runJanitor }] = await Promise.all([
      import('../agent/config.js'),
      import('../agent/recovery/janitor.js'),
    ]);
    const { config = null } = command.optsWithGlobals<{ config?: string }>();
    const loaded = loadConfig(config);
    process.env['PHAUL_STATE_DIR'] = loaded.stateDirectory;
    await runJanitor(id, loaded);
  });
}
