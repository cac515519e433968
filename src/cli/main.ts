#!/usr/bin/env node
/** `phaul`: one file per command; each loads what it needs when it runs (`--help` loads nothing). */
import { Command, CommanderError, Option } from 'commander';
import { programVersion } from '../agent/control/version.js';
import { asFailure, type PhaulError } from '../failure/phaul-error.js';
import { addAgentCommand } from './agent.js';
import { addCancelCommand } from './cancel.js';
import { addCertsCommand } from './certs.js';
import { addEngineCommand } from './engine.js';
import { exitCode, exitCodeOf } from './exit-codes.js';
import { addJanitorCommand } from './janitor.js';
import { addLeftoversCommand } from './leftovers.js';
import { addMigrateCommand } from './migrate.js';
import { describeFailure } from './print-failure.js';
import { addRecoverCommand } from './recover.js';
import { addStatusCommand } from './status.js';

const exitCodesText = `
Exit codes:
  0  done
  1  failed; the process was not touched, or goes on where it was
  2  wrong command line
  3  refused by the checks or by the configuration, nothing was touched
  4  cancelled; the process goes on where it was
  5  not decided where the process runs, or it is held: phaul recover
  6  a host or its agent does not answer
130  left by a second Ctrl-C; the agent goes on
`;

async function main(argv: readonly string[]): Promise<void> {
  // gRPC names the dialled IP address in TLS' server name, of which Node warns on the operator's terminal.
  process.noDeprecation = true;
  const program = new Command('phaul')
    .description('Live migration of running process trees and their TCP connections between Linux hosts.')
    .version(programVersion())
    .option('--config <FILE>', 'configuration (default: PHAUL_CONFIG, else /etc/phaul/agent.json)')
    .option('--agent <host[:port]>', 'command the agent of another host, by an operator certificate')
    .addOption(
      new Option('--log-level <level>', 'what goes to the log')
        .choices(['fatal', 'error', 'warn', 'info', 'debug', 'trace'])
        .default('info'),
    )
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText(
      'after',
      '\nIn the source folder: `./phaul demo` shows a whole migration on this machine, `./phaul test`, `./phaul setup`.',
    )
    .addHelpText('afterAll', exitCodesText);
  for (const add of [
    addMigrateCommand,
    addStatusCommand,
    addCancelCommand,
    addRecoverCommand,
    addLeftoversCommand,
    addAgentCommand,
    addJanitorCommand,
    addCertsCommand,
    addEngineCommand,
  ]) {
    add(program);
  }
  try {
    await program.parseAsync([...argv]);
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      process.exitCode = thrown.exitCode === 0 ? exitCode.done : exitCode.usage;
      return;
    }
    const failure = asFailure(thrown, {
      code: 'internal',
      what: 'an unexpected failure inside phaul',
      remedy: 'please report it with the output of --log-level debug',
    });
    report(failure, argv.includes('--json'));
  }
}

function report(failure: PhaulError, json: boolean): void {
  const facts = failure.toJSON();
  if (json) process.stdout.write(`${JSON.stringify({ kind: 'failed', failure: facts })}\n`);
  process.stderr.write(`${describeFailure(facts)}\n`);
  process.exitCode = exitCodeOf(facts);
}

await main(process.argv);
