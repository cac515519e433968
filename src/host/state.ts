/** Where this host keeps what must survive an agent: one folder per migration, private to root. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';

/** PHAUL_STATE_DIR, else /var/lib/phaul. */
export function stateDirectory(): string {
  return process.env['PHAUL_STATE_DIR'] ?? '/var/lib/phaul';
}

/** What a migration may be called: it becomes part of paths, tables and cgroups. */
export const migrationIdPattern = /^[a-z0-9][a-z0-9-]{0,31}$/;

/** Folder of a migration. Throws `bad-migration-id` for a name that is none. */
export function migrationFolder(id: string): string {
  if (!migrationIdPattern.test(id)) {
    throw new PhaulError({
      code: 'bad-migration-id',
      what: `"${id}" is no id of a migration`,
      remedy: 'ids are 1 to 32 lower-case letters, digits and dashes (`phaul status`)',
    });
  }
  return join(stateDirectory(), 'migrations', id);
}

/** Ids of all migrations that have a folder here. */
export async function knownMigrations(): Promise<string[]> {
  try {
    const names = await readdir(join(stateDirectory(), 'migrations'));
    return names.filter((name) => migrationIdPattern.test(name)).sort();
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return [];
    throw thrown;
  }
}
