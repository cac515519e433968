/** The kernel's page size, from the only place that knows: getconf(1), of libc-bin, which every Debian has. */
import { neverAborted } from '../failure/never-aborted.js';
import { runCommand } from '../host/command.js';

let known: number | null = null;

/** Bytes. */
export async function pageSizeOfHost(): Promise<number> {
  if (known === null) {
    const { stdout } = await runCommand(['getconf', 'PAGESIZE'], {
      input: null,
      timeoutMs: 5000,
      signal: neverAborted,
    });
    known = Number(stdout.trim());
  }
  return known;
}
