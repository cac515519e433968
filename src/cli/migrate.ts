/** `phaul migrate PID DESTINATION`: asks the local agent, and watches. The agent owns the migration (dangers.md 8). */
import type { Command } from 'commander';
import { messageOf } from '../failure/phaul-error.js';
import { exitCode } from './exit-codes.js';
import { addMigrateOptions, type MigrateOptions, orderFrom } from './migrate-options.js';
import { Terminal } from './terminal.js';

interface GlobalOptions {
  readonly logLevel: string;
  readonly config?: string;
  readonly agent?: string;
}

export function addMigrateCommand(program: Command): void {
  const command = program
    .command('migrate')
    .summary('move a process tree to another host')
    .description(
      'Moves the tree of PID to DESTINATION: host[:port] (certificates, see `phaul certs`) or user@host[:port] (ssh).\n' +
        'Until it is handed over, every failure leaves it running here. Ctrl-C asks to cancel; a second one only leaves.',
    )
    .argument('<PID>', 'root of the tree')
    .argument('<DESTINATION>', 'host[:port] or user@host[:port]');
  addMigrateOptions(command).action(run);
}

async function run(pid: string, destination: string, options: MigrateOptions, command: Command): Promise<void> {
  const order = await orderFrom(pid, options);
  const [{ connectAgent }, { rpc }, { follow }, { JsonPrinter, TextPrinter }, { ownSshCredentials }] =
    await Promise.all([
      import('./local-agent.js'),
      import('../agent/control/rpc-service.js'),
      import('./follow.js'),
      import('./print-events.js'),
      import('../agent/control/ssh-login.js'),
    ]);
  const { config = null, agent = null, logLevel } = command.optsWithGlobals<GlobalOptions>();
  const terminal = new Terminal();
  await using link = await connectAgent({ config, agent, start: { logLevel } });
  const { home, agentSocket } = ownSshCredentials();
  const request = { order: JSON.stringify(order), destination, sshHome: home, sshAgentSocket: agentSocket ?? '' };

  let started: string | null = null;
  let asked = false;
  const onInterrupt = (): void => {
    if (asked || started === null) {
      const hint = started === null ? '' : `\nThe agent goes on: phaul status ${started} --watch`;
      process.stderr.write(`\nLeft.${hint}\n`);
      process.exit(exitCode.left);
    }
    asked = true;
    terminal.line('asking to cancel; Ctrl-C again leaves and lets the agent go on');
    link.rpc
      .call(rpc.cancel, { id: started })
      .catch((thrown: unknown) => terminal.line(`not cancelled: ${messageOf(thrown)}`));
  };
  process.on('SIGINT', onInterrupt);
  try {
    const printer = options.json ? new JsonPrinter() : new TextPrinter(terminal);
    process.exitCode = await follow(link.rpc.stream(rpc.migrate, request), link, printer, (id) => {
      started = id;
    });
  } finally {
    terminal.status('');
    process.off('SIGINT', onInterrupt);
  }
}
