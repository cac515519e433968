/** Where phaul's own helpers and the restored trees live: outside the agent's unit, which may be stopped (dangers.md 10). */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupMount } from '../host/cgroup.js';

const name = 'phaul';

export interface CgroupGround {
  readonly mount: string;
  /** `<mount>/phaul`. */
  readonly home: string;
}

/** Null, with the reason, on hosts without a writable cgroup v2: there only CRIU's own hold keeps a tree. */
export function cgroupGround(): { ground: CgroupGround; reason: null } | { ground: null; reason: string } {
  const { mount, reason } = cgroupMount();
  if (mount === null) return { ground: null, reason };
  const home = join(mount, name);
  mkdirSync(home, { recursive: true });
  mkdirSync(helpersOf({ mount, home }), { recursive: true });
  return { ground: { mount, home }, reason: null };
}

/** For criu and janitors; a leaf, so that `phaul` itself may get controllers. */
export function helpersOf(ground: CgroupGround): string {
  return join(ground.home, 'helpers');
}
