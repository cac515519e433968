/** Memory and disk on the destination. */
import { readFileSync, type StatsFs } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../failure/phaul-error.js';
import { cgroupMount, cgroupOf } from '../host/cgroup.js';
import type { Finding } from '../migration/ports.js';
import type { Say } from './finding.js';
import type { TreeFacts } from './tree-facts.js';

const mib = 1024 ** 2;
/** Images other than memory, journal, log. */
const spareBytes = 64 * mib;
/** statfs(2) f_type: files there are memory. */
const tmpfsMagic = 0x0102_1994;

export async function checkRoom(facts: TreeFacts, stateFolder: string, say: Say): Promise<Finding[]> {
  const ghosts = facts.ghosts.reduce((sum, ghost) => sum + ghost.bytes, 0);
  const images = facts.memory.private + ghosts + spareBytes;
  const disk = await nearestFolder(stateFolder);
  const free = disk.bavail * disk.bsize;
  const findings: Finding[] = [];
  if (free < images) {
    findings.push(
      say('blocker', 'disk-full', {
        what: `The images need up to ${inMib(images)}; ${stateFolder} has ${inMib(free)} free.`,
        why: 'The whole memory of the tree is stored here before it runs, so that a restore can be repeated.',
        remedy: 'Make room there, or name another folder by PHAUL_STATE_DIR.',
      }),
    );
  }
  const available = memoryAvailable();
  const inMemory = disk.type === tmpfsMagic ? images : 0;
  if (facts.memory.private + inMemory > available) {
    findings.push(
      say('blocker', 'memory-full', {
        what: `The tree needs ${inMib(facts.memory.private + inMemory)} of memory; ${inMib(available)} can be had here.`,
        why: 'The kernel would kill it, or something else, when it is restored.',
        remedy: 'Make room (or raise memory.max of the cgroup), or choose another destination.',
      }),
    );
  } else if (facts.memory.resident + inMemory > available) {
    findings.push(
      say('warning', 'memory-tight', {
        what: `The tasks of the tree count ${inMib(facts.memory.resident)} together; ${inMib(available)} can be had here.`,
        why: 'Pages that they share are counted several times, so it may be enough.',
        remedy: 'Nothing to do if they share most of it.',
      }),
    );
  }
  return findings;
}

/** Bytes that a new tree can take here: MemAvailable, or what the limits of our cgroup and those above it leave. */
export function memoryAvailable(): number {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? '0';
  let available = Number(kib) * 1024;
  const { mount } = cgroupMount();
  const own = mount === null ? null : cgroupOf(process.pid, mount);
  if (mount === null || own === null) return available;
  for (let folder = own; folder.startsWith(mount) && folder !== mount; folder = dirname(folder)) {
    const limit = readNumber(join(folder, 'memory.max'));
    const used = readNumber(join(folder, 'memory.current'));
    if (limit !== null && used !== null) available = Math.min(available, Math.max(0, limit - used));
  }
  return available;
}

/** Null for `max`, and where the controller is not enabled. */
function readNumber(path: string): number | null {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return /^\d+$/.test(text) ? Number(text) : null;
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return null;
    throw thrown;
  }
}

/** The state folder may not exist yet: its file system is that of the nearest folder above it. */
async function nearestFolder(folder: string): Promise<StatsFs> {
  try {
    return await statfs(folder);
  } catch (thrown) {
    if (errnoOf(thrown) !== 'ENOENT' || folder === '/') throw thrown;
    return await nearestFolder(dirname(folder));
  }
}

function inMib(bytes: number): string {
  return `${Math.ceil(bytes / mib)} MiB`;
}
