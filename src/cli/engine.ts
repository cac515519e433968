/** `phaul engine`: which CRIU this host uses, and why. */
import type { Command } from 'commander';
import { table } from './terminal.js';

export function addEngineCommand(program: Command): void {
  program
    .command('engine')
    .summary('show which CRIU this host uses, and why')
    .option('--json', 'one JSON object on stdout')
    .action(async ({ json = false }: { json?: boolean }) => {
      const { findEngine, formatVersion } = await import('../criu/engine.js');
      // Proved anew, whatever an agent has remembered: this is the command for doubts.
      const engine = await findEngine(null);
      if (json) {
        process.stdout.write(`${JSON.stringify({ ...engine, version: formatVersion(engine.version) })}\n`);
        return;
      }
      const rows = [
        ['engine', engine.path],
        ['version', formatVersion(engine.version)],
        ['why', engine.why],
        ...(engine.preload === null ? [] : [['preload', `${engine.preload} (this host lacks CAP_SYS_RESOURCE)`]]),
        ...engine.rejected.map(({ path, reason }) => ['not used', `${path}: ${reason}`]),
      ];
      process.stdout.write(`${table(rows)}\n`);
    });
}
