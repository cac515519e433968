/** The janitor's own program: waits for the agent's farewell, and recovers the migration when the pipe ends without it. */
import { setTimeout as delay } from 'node:timers/promises';
import { findEngine } from '../../criu/engine.js';
import type { AgentConfig } from '../config.js';
import { farewell } from './janitor-link.js';
import { recoverMigration } from './recover.js';

/** How often an undecided migration is looked at again: the other host may come back. ms. */
const retryMs = 2000;
/** After that the operator decides, by `phaul recover`. */
const patienceMs = 30 * 60_000;

/** Ends when the migration is settled. */
export async function runJanitor(id: string, config: AgentConfig): Promise<void> {
  process.stdout.write('watching\n');
  let said = '';
  for await (const chunk of process.stdin) said += String(chunk);
  if (said === farewell) return;
  const deadline = performance.now() + patienceMs;
  do {
    const recovery = await recoverMigration(id, {
      sourceIsDead: false,
      config,
      engine: () => findEngine(config.runDirectory),
    });
    if (recovery !== null) process.stderr.write(`${new Date().toISOString()} ${id}: ${recovery.did}\n`);
    if (recovery === null || recovery.settled) return;
    await delay(retryMs);
  } while (performance.now() < deadline);
}
