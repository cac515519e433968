/** Puts the parts of this host's agent together. */
import type { Logger } from 'pino';
import { PhaulError } from '../failure/phaul-error.js';
import type { AgentConfig } from './config.js';
import type { AgentParts } from './run-agent.js';

/** Opens the duties and the page door of this host. */
export async function openAgentParts(config: AgentConfig, _log: Logger): Promise<AgentParts> {
  throw new PhaulError({
    code: 'not-built',
    what: `${config.hostName} has no duties yet`,
    remedy: 'wait for the lead',
  });
}
