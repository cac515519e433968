/**
 * Which CRIU this host uses. An engine serves when its version is new enough for the kernel *and* it can dump a child of
 * ours that listens on TCP: `criu check` says "Looks good" of engines that cannot dump any socket.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { mkdir, open as openFile, rename, stat, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { delimiter, join } from 'node:path';
import { messageOf, PhaulError } from '../failure/phaul-error.js';
import { packageRoot } from '../native/addon.js';
import { EngineSession } from './session.js';
import { trialDump } from './trial-dump.js';

export interface EngineVersion {
  readonly major: number;
  readonly minor: number;
  readonly sublevel: number;
}

export interface Engine {
  readonly path: string;
  readonly version: EngineVersion;
  /** Why this one, in one sentence. */
  readonly why: string;
  /** Library that answers CRIU's prlimit calls where CAP_SYS_RESOURCE is missing; null where it is not needed. */
  readonly preload: string | null;
  /** True for the private engine, whose wrapper takes the preload itself. */
  readonly wrapped: boolean;
  /** Header of CRIU's page-server protocol: it changed with 4.2 and is not negotiated. */
  readonly pageServerHeaderBytes: 24 | 32;
  /** Candidates that do not serve, with the reason. */
  readonly rejected: readonly { path: string; reason: string }[];
}

/** Where `install-engine.sh` puts the private engine. */
export const privatePrefix = process.env['PHAUL_CRIU_PREFIX'] || '/opt/phaul-criu';

const privateEngine = join(privatePrefix, 'bin', 'criu');
/** Bit of CAP_SYS_RESOURCE (capability.h). */
const capSysResource = 24n;

/**
 * The engine of this host: `PHAUL_CRIU` alone if it is set, else an installed `criu`, else the private one.
 * `cacheFolder` remembers a proof until the next boot (an engine's proof takes about 0.2 s); null proves anew.
 * Throws `no-engine` with every candidate's reason.
 */
export async function findEngine(cacheFolder: string | null): Promise<Engine> {
  const override = process.env['PHAUL_CRIU'];
  const candidates = override ? [override] : [...installed(), privateEngine];
  const rejected: { path: string; reason: string }[] = [];
  for (const path of candidates) {
    try {
      return { ...(await provedOnce(path, cacheFolder)), why: reason(path, override), rejected };
    } catch (thrown) {
      rejected.push({ path, reason: messageOf(thrown) });
    }
  }
  const reasons = rejected.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  throw new PhaulError({
    code: 'no-engine',
    what: `no CRIU on this host can be used (${reasons || 'none is installed'})`,
    remedy: override
      ? 'name a CRIU that works by PHAUL_CRIU, or unset it'
      : `run \`./phaul setup\` as root: it installs a private CRIU below ${privatePrefix}; or name one by PHAUL_CRIU`,
  });
}

/** True when `mine` can restore what `theirs` has dumped, over one page-server dialect (criu.md 0.7). */
export function canRestore(mine: EngineVersion, theirs: EngineVersion): boolean {
  return compare(mine, theirs) >= 0 && headerBytes(mine) === headerBytes(theirs);
}

export function formatVersion({ major, minor, sublevel }: EngineVersion): string {
  return `${major}.${minor}${sublevel > 0 ? `.${sublevel}` : ''}`;
}

/** Parses `4.2.1`; null for anything else. */
export function parseVersion(text: string): EngineVersion | null {
  const match = /^(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?$/.exec(text);
  return match === null ? null : { major: Number(match[1]), minor: Number(match[2]), sublevel: Number(match[3] ?? 0) };
}

type Proof = Omit<Engine, 'why' | 'rejected'>;

async function provedOnce(path: string, cacheFolder: string | null): Promise<Proof> {
  if (cacheFolder === null) return await prove(path);
  const { mtimeMs, size } = await stat(path);
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const key = [path, mtimeMs, size, bootId, release(), neededPreload()].join(' ');
  const cache = join(cacheFolder, 'engine.json');
  const known = await remembered(cache);
  if (known?.key === key) return known.proof;
  const proof = await prove(path);
  await mkdir(cacheFolder, { recursive: true, mode: 0o700 });
  const fresh = `${cache}.${process.pid}`;
  await writeFile(fresh, JSON.stringify({ key, proof }), { mode: 0o600 });
  await rename(fresh, cache);
  return proof;
}

/** Null: no proof yet, or one that cannot be read or that somebody else may have written. */
async function remembered(cache: string): Promise<{ key: string; proof: Proof } | null> {
  try {
    await using file = await openFile(cache, 'r');
    const { uid, mode } = await file.stat();
    if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) return null;
    return JSON.parse(await file.readFile('utf8')) as { key: string; proof: Proof } | null;
  } catch {
    // Whatever is wrong with it: the engine is proved again, and the file replaced.
    return null;
  }
}

async function prove(path: string): Promise<Proof> {
  const wrapped = takesPreload(path);
  const preload = neededPreload();
  const unproved = {
    path,
    preload,
    wrapped,
    version: { major: 0, minor: 0, sublevel: 0 },
    pageServerHeaderBytes: 32,
    why: '',
    rejected: [],
  } as const;
  const version = await versionOf(unproved);
  const least = kernelAtLeast(6, 16) ? { major: 4, minor: 2, sublevel: 0 } : { major: 4, minor: 1, sublevel: 0 };
  if (compare(version, least) < 0) {
    throw new Error(`version ${formatVersion(version)}, but kernel ${release()} needs >= ${formatVersion(least)}`);
  }
  const proof: Proof = { path, preload, wrapped, version, pageServerHeaderBytes: headerBytes(version) };
  await trialDump({ ...proof, why: '', rejected: [] });
  return proof;
}

async function versionOf(engine: Engine): Promise<EngineVersion> {
  await using session = EngineSession.start({ engine, cgroup: null, inherit: [], logFolder: null });
  return await session.version();
}

function installed(): string[] {
  const folders = (process.env['PATH'] ?? '').split(delimiter).concat('/usr/sbin', '/usr/local/sbin');
  const paths = folders.filter((folder) => folder.startsWith('/')).map((folder) => join(folder, 'criu'));
  return [...new Set(paths)].filter(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function reason(path: string, override: string | undefined): string {
  if (override) return 'named by PHAUL_CRIU';
  return path === privateEngine
    ? 'no installed CRIU serves; the private one is proved by a trial dump'
    : 'installed, new enough, proved by a trial dump';
}

/** A wrapper as `install-engine.sh` makes it loads the preload into CRIU alone; anything else gets it by LD_PRELOAD. */
function takesPreload(path: string): boolean {
  const head = Buffer.alloc(512);
  const file = openSync(path, 'r');
  try {
    return head.subarray(0, readSync(file, head)).includes('PHAUL_CRIU_PRELOAD');
  } finally {
    closeSync(file);
  }
}

/** Null too where it was not built: CRIU then dumps root's processes only, and says so. */
function neededPreload(): string | null {
  const library = join(packageRoot, 'build', 'prlimit-preload.so');
  return hasCapSysResource() || !existsSync(library) ? null : library;
}

function hasCapSysResource(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> capSysResource) & 1n) === 1n;
}

function kernelAtLeast(major: number, minor: number): boolean {
  const [, haveMajor, haveMinor] = /^(\d+)\.(\d+)/.exec(release()) ?? [];
  return Number(haveMajor) > major || (Number(haveMajor) === major && Number(haveMinor) >= minor);
}

function headerBytes(version: EngineVersion): 24 | 32 {
  return compare(version, { major: 4, minor: 2, sublevel: 0 }) >= 0 ? 32 : 24;
}

function compare(a: EngineVersion, b: EngineVersion): number {
  return a.major - b.major || a.minor - b.minor || a.sublevel - b.sublevel;
}
