/** Puts the parts of this host's agent together. */
import type { Logger } from 'pino';
import type { AgentConfig } from './config.js';
import { Migrations } from './migrations.js';
import type { AgentParts } from './run-agent.js';

/** Opens the duties and the page door of this host, and finishes or undoes what an earlier agent has left open. */
export async function openAgentParts(config: AgentConfig, log: Logger): Promise<AgentParts> {
  process.env['PHAUL_STATE_DIR'] = config.stateDirectory;
  const migrations = new Migrations(config, log);
  for (const recovery of await migrations.recover(null, false)) log.warn(recovery, 'recovered');
  return { duties: migrations, pages: migrations.door };
}
