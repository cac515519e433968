/** What runs of phaul, finished or broken, have left on this host. */
import type { Leftover } from './duties.js';

export async function findLeftovers(_clean: boolean): Promise<Leftover[]> {
  return [];
}
