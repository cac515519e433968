/**
 * Can the destination's CPU run what runs on the source's? The source has CRIU describe its own in `cpuinfo.img`, the
 * destination has CRIU compare (criu(8), cpuinfo): a program keeps using the instructions it has found at its start.
 */
import { constants } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Engine } from '../../criu/engine.js';
import { EngineSession } from '../../criu/session.js';
import { PhaulError } from '../../failure/phaul-error.js';
import type { Finding } from '../../migration/ports.js';

const imageName = 'cpuinfo.img';
/** Capabilities of the FPU and of instructions, CRIU's own default (cr_options.h CPU_CAP_FPU, CPU_CAP_INS). */
const defaultCaps = 0b101;

/** By engine; a promise, so that it is made once. */
const described = new Map<string, Promise<string>>();

/** `--cpu-cap 0`: none, do not ask. */
export function ignoresCpu(cpuCap: number | null): boolean {
  return cpuCap === 0;
}

/** This host's CPU as the engine describes it, base64 of `cpuinfo.img`. Throws a CriuError. */
export async function describeCpu(engine: Engine): Promise<string> {
  const known = described.get(engine.path);
  if (known !== undefined) return await known;
  const fresh = inImages(engine, async (session, options, folder) => {
    await session.cpuinfoDump({ ...options, cpuCap: defaultCaps });
    return (await readFile(join(folder, imageName))).toString('base64');
  });
  described.set(engine.path, fresh);
  // One that has failed is asked again.
  fresh.catch(() => described.delete(engine.path));
  return await fresh;
}

/** A blocker when this CPU lacks what the source's has. `cpuCap`: what is compared, CRIU's bits; null: its default. */
export async function checkCpu(
  cpuInfo: string,
  engine: Engine,
  cpuCap: number | null,
  host: string,
): Promise<Finding[]> {
  return await inImages(engine, async (session, options, folder) => {
    await writeFile(join(folder, imageName), Buffer.from(cpuInfo, 'base64'), { mode: 0o600 });
    try {
      await session.cpuinfoCheck({ ...options, cpuCap: cpuCap ?? defaultCaps });
      return [];
    } catch (thrown) {
      if (!(thrown instanceof PhaulError)) throw thrown;
      return [
        {
          code: 'cpu-incompatible',
          weight: 'blocker',
          host,
          what: `The CPU of ${host} cannot run what runs on the source's (${thrown.message}).`,
          why: 'The process may use instructions that are missing here; it would die at the first of them.',
          remedy:
            'Choose a host with the same or a newer CPU, or say by --cpu-cap what is to be compared (0: nothing).',
          pid: null,
          fd: null,
        },
      ];
    }
  });
}

type Work<T> = (
  session: EngineSession,
  options: { imagesDir: string; logFile: string; logLevel: number },
  folder: string,
) => Promise<T>;

/** A conversation with CRIU about a folder of its own. */
async function inImages<T>(engine: Engine, work: Work<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'phaul-cpu-'));
  try {
    await using images = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
    await using session = EngineSession.start({ engine, cgroup: null, inherit: [images.fd], logFolder: folder });
    const options = { imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`, logFile: 'cpuinfo.log', logLevel: 2 };
    return await work(session, options, folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
