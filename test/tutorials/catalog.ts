/** The tutorials: what each needs on the stage. Their scripts, texts and recordings are in docs/tutorials. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/native/addon.js';

export interface Tutorial {
  readonly name: string;
  readonly title: string;
  /**
   * `ready`: certificates, configuration and a running agent on both hosts. `ssh`: no certificates, no agents, sshd on b.
   * `none`: the tutorial does it all itself.
   */
  readonly agents: 'ready' | 'ssh' | 'none';
  /** What must be installed, beside what phaul needs. */
  readonly needs: readonly string[];
}

export const tutorials: readonly Tutorial[] = [
  { name: 'first-migration', title: 'phaul: a first migration', agents: 'none', needs: [] },
  { name: 'live-tcp-there-and-back', title: 'phaul: a live TCP service there and back', agents: 'ready', needs: [] },
  { name: 'destination-dies', title: 'phaul: what happens when the destination dies', agents: 'ready', needs: [] },
  {
    name: 'over-ssh',
    title: 'phaul: a migration over ssh',
    agents: 'ssh',
    needs: ['/usr/sbin/sshd', '/usr/bin/ssh-keyscan'],
  },
];

export const tutorialFolder = join(packageRoot, 'docs', 'tutorials');

/** Of every tutorial: the pty of script(1), and the interpreter of its service. */
const alwaysNeeded = ['/usr/bin/script', '/usr/bin/python3'];

/** Why the tutorial cannot run on this machine, or null. */
export function hindrance(tutorial: Tutorial): string | null {
  if (process.geteuid?.() !== 0) return 'isolated hosts need root';
  const missing = [...alwaysNeeded, ...tutorial.needs].find((path) => !existsSync(path));
  return missing === undefined ? null : `${missing} is not installed`;
}
