/** `phaul recover [ID]`: finishes or undoes what a dead agent left open. */
import type { Command } from 'commander';
import { exitCode } from './exit-codes.js';
import { harmless } from './terminal.js';

interface RecoverOptions {
  readonly logLevel: string;
  readonly sourceIsDead?: boolean;
  readonly json?: boolean;
  readonly config?: string;
  readonly agent?: string;
}

export function addRecoverCommand(program: Command): void {
  program
    .command('recover')
    .summary('finish or undo what was left open')
    .argument('[ID]', 'one migration; default: all that are open')
    .option('--source-is-dead', 'you know that the process no longer runs on the source: the ready copy here may run')
    .option('--json', 'JSON lines on stdout')
    .action(async (id: string | undefined, _options: unknown, command: Command) => {
      const options = command.optsWithGlobals<RecoverOptions>();
      const { sourceIsDead = false, json = false, config = null, agent = null, logLevel } = options;
      const [{ connectAgent }, { rpc }] = await Promise.all([
        import('./local-agent.js'),
        import('../agent/control/rpc-service.js'),
      ]);
      await using link = await connectAgent({ config, agent, start: { logLevel } });
      const { recoveries } = await link.rpc.call(rpc.recover, { id: id ?? '', sourceIsDead });
      for (const recovery of recoveries) {
        process.stdout.write(`${json ? JSON.stringify(recovery) : harmless(`${recovery.id}: ${recovery.did}`)}\n`);
      }
      if (recoveries.length === 0 && !json) process.stdout.write('nothing is open\n');
      process.exitCode = recoveries.every((recovery) => recovery.settled) ? exitCode.done : exitCode.undecided;
    });
}
