/** How the commands reach the agent that they command: the one of this host, or another by `--agent`. */

import type { PeerLink } from '../agent/peer-link.js';
import { PhaulError } from '../failure/phaul-error.js';

export interface AgentChoice {
  /** `--config`. */
  readonly config: string | null;
  /** `--agent host[:port]`, by an operator certificate; null: the local one. */
  readonly agent: string | null;
  /** True: a local agent is started when none answers. */
  readonly start: boolean;
}

/** Connects and says hello. Throws `no-agent` when none answers and none is to be started. */
export async function connectAgent(choice: AgentChoice): Promise<PeerLink> {
  const [{ loadConfig }, { dial }, { socketPathIn }, { answers, ensureDaemon }] = await Promise.all([
    import('../agent/config.js'),
    import('../agent/dial.js'),
    import('../agent/run-folder.js'),
    import('../agent/daemon.js'),
  ]);
  const config = loadConfig(choice.config);
  if (choice.agent !== null) return dial(choice.agent, config);
  const socketPath = socketPathIn(config.runDirectory);
  if (choice.start) {
    await ensureDaemon({ socketPath, stateDirectory: config.stateDirectory, argv: agentArguments(choice.config) });
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
export function agentArguments(config: string | null): string[] {
  const [, program = ''] = process.argv;
  return [...process.execArgv, program, 'agent', ...(config === null ? [] : ['--config', config])];
}
