/** One agent from start to end: the lock first, then what was left open, then the doors. */
import { once } from 'node:events';
import type { Logger } from 'pino';
import { PhaulError } from '../failure/phaul-error.js';
import type { AgentConfig } from './config.js';
import type { PageEntrance } from './control/front-door.js';
import { makePrivateFolder, RunLock } from './control/run-folder.js';
import { AgentServer } from './control/server.js';
import type { AgentDuties } from './duties.js';

/** What an agent consists of behind its doors. The duties own the rest. */
export interface AgentParts {
  readonly duties: AgentDuties;
  readonly pages: PageEntrance;
}

/** Opens the duties of this host; recovery of what was open begins here, with the lock in hand (dangers.md 6). */
export type OpenParts = (config: AgentConfig, log: Logger) => Promise<AgentParts>;

/** Runs until SIGTERM or SIGINT. Throws `not-root`, `agent-already-runs`, and what listening can fail with. */
export async function runAgent(config: AgentConfig, openParts: OpenParts, log: Logger): Promise<void> {
  if (process.geteuid?.() !== 0) {
    throw new PhaulError({
      code: 'not-root',
      what: 'the agent must run as root: CRIU needs its rights',
      remedy: 'use sudo or the systemd unit',
    });
  }
  // Whoever starts the agent from a terminal may close it.
  process.on('SIGHUP', () => log.info('SIGHUP is ignored'));
  const ended = Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  using _lock = RunLock.take(config.runDirectory);
  makePrivateFolder(config.stateDirectory);
  const parts = await openParts(config, log);
  await using _duties = parts.duties;
  await using server = await AgentServer.open(config, _lock, parts.duties, parts.pages, log);
  log.info({ host: config.hostName, socket: server.socketPath, tcp: config.listen }, 'the agent listens');
  await ended;
  log.info('the agent ends');
}
