/** `phaul agent`: in the foreground (systemd), as a daemon, or as a relay for ssh. */
import { type Command, Option } from 'commander';

interface AgentOptions {
  readonly daemon?: boolean;
  readonly stdio?: boolean;
  readonly config?: string;
  readonly logLevel: string;
}

export function addAgentCommand(program: Command): void {
  program
    .command('agent')
    .summary('run the agent of this host')
    .addOption(new Option('--daemon', 'start one in the background, if none answers yet').conflicts('stdio'))
    .option('--stdio', 'relay stdin and stdout to the agent of this host (used over ssh)')
    .action(async (_options: unknown, command: Command) => {
      const {
        daemon = false,
        stdio = false,
        config = null,
        logLevel,
      } = command.optsWithGlobals<AgentOptions & { config?: string }>();
      if (stdio) await relayStdio();
      else if (daemon) await startDaemon(config ?? null, logLevel);
      else await runHere(config ?? null, logLevel);
    });
}

/** Loads as little as it can: each connection over ssh waits for it. */
async function relayStdio(): Promise<void> {
  const [{ relay }, { runDirectoryOf, socketPathIn }] = await Promise.all([
    import('../agent/control/stdio.js'),
    import('../agent/control/run-folder.js'),
  ]);
  await relay(socketPathIn(runDirectoryOf()), process.stdin, process.stdout);
  // stdin may still be open at the ssh side; there is nothing left to relay.
  process.exit(0);
}

async function startDaemon(config: string | null, logLevel: string): Promise<void> {
  const [{ loadConfig }, { socketPathIn }, { ensureDaemon }, { agentArguments }] = await Promise.all([
    import('../agent/config.js'),
    import('../agent/control/run-folder.js'),
    import('../agent/control/daemon.js'),
    import('./local-agent.js'),
  ]);
  const { runDirectory, stateDirectory } = loadConfig(config);
  const socketPath = socketPathIn(runDirectory);
  const argv = agentArguments(config, logLevel);
  const started = await ensureDaemon({ socketPath, stateDirectory, argv });
  process.stdout.write(`${started ? 'started' : 'an agent answers already'}: ${socketPath}\n`);
}

async function runHere(config: string | null, logLevel: string): Promise<void> {
  const [{ loadConfig }, { runAgent }, { openAgentParts }, { pino, destination }] = await Promise.all([
    import('../agent/config.js'),
    import('../agent/run-agent.js'),
    import('../agent/agent-parts.js'),
    import('pino'),
  ]);
  // Janitors are started by the agent and read the same file.
  if (config !== null) process.env['PHAUL_CONFIG'] = config;
  // Synchronous: the last line before a crash is the one that is needed.
  const log = pino({ level: logLevel, base: { pid: process.pid } }, destination({ dest: 2, sync: true }));
  await runAgent(loadConfig(config), openAgentParts, log);
}
