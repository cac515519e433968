/** How the commands reach the agent that they command: the one of this host, or another by `--agent`. */

import type { PeerLink } from '../agent/control/peer-link.js';
import { PhaulError } from '../failure/phaul-error.js';

export interface AgentChoice {
  /** `--config`. */
  readonly config: string | null;
  /** `--agent host[:port]`, by an operator certificate; null: the local one. */
  readonly agent: string | null;
  /** A local agent is started when none answers, and logs from this level on; null: none is started. */
  readonly start: { readonly logLevel: string } | null;
}

/** Connects and says hello. Throws `no-agent` when none answers and none is to be started. */
export async function connectAgent(choice: AgentChoice): Promise<PeerLink> {
  const [{ loadConfig }, { dial }, { socketPathIn }, { answers, ensureDaemon }] = await Promise.all([
    import('../agent/config.js'),
    import('../agent/control/dial.js'),
    import('../agent/control/run-folder.js'),
    import('../agent/control/daemon.js'),
  ]);
  const config = loadConfig(choice.config);
  if (choice.agent !== null) return dial(choice.agent, config);
  const socketPath = socketPathIn(config.runDirectory);
  if (choice.start !== null) {
    const argv = agentArguments(choice.config, choice.start.logLevel);
    await ensureDaemon({ socketPath, stateDirectory: config.stateDirectory, argv });
  } else if (!(await answers(socketPath))) {
    throw new PhaulError({
      code: 'no-agent',
      what: `no agent answers on ${socketPath}`,
      remedy:
        process.geteuid?.() === 0
          ? 'start one with `phaul agent --daemon`'
          : 'run this as root, and start one with `phaul agent --daemon`',
    });
  }
  return dial(`unix:${socketPath}`, config);
}

/** Arguments of Node for an agent with the same configuration as this command. */
export function agentArguments(config: string | null, logLevel: string): string[] {
  const [, program = ''] = process.argv;
  const named = config === null ? [] : ['--config', config];
  return [...process.execArgv, program, 'agent', ...named, '--log-level', logLevel];
}
