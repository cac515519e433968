/** Which executables a folder of hooks holds, and whether they may be run: they run as root, so only root may have written them. */
import type { Stats } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';

// What editors and package managers leave beside a file, executable bit included (as run-parts(8) passes them over).
const leftover = /^\.|~$|\.(bak|swp|orig|rej|dpkg-[a-z]+|rpmsave|rpmorig|rpmnew)$/;
const anyExecute = 0o111;
const othersWrite = 0o022;

/** Executables of the folders in the order given, each folder in the order of its names' bytes. A folder that is not there holds none. */
export async function hooksIn(folders: readonly string[]): Promise<string[]> {
  const found = await Promise.all([...new Set(folders)].map(executablesOf));
  return found.flat();
}

async function executablesOf(folder: string): Promise<string[]> {
  const names = await namesIn(folder);
  const paths = names.filter((name) => !leftover.test(name)).map((name) => join(folder, name));
  const executable = await Promise.all(paths.map(isExecutable));
  return paths.filter((_, at) => executable[at]);
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    // Not by locale: both hosts must agree on the order.
    return (await readdir(folder)).sort((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return [];
    throw new PhaulError({
      code: 'hook-folder-unreadable',
      what: `the folder of hooks ${folder} cannot be read`,
      remedy: 'name a folder of executables by --hook, or leave the option out',
      cause: thrown,
    });
  }
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    const facts = await stat(path);
    return facts.isFile() && (facts.mode & anyExecute) !== 0;
  } catch (thrown) {
    // A link to nothing, or removed between two looks: nothing to run.
    if (errnoOf(thrown) === 'ENOENT') return false;
    throw thrown;
  }
}

/**
 * The file that would run, all links followed.
 * @throws PhaulError `hook-not-safe` when anybody but root could have put it there: the file itself, and the folders in
 *   which it and the link to it lie, must belong to root and be writable by root alone.
 */
export async function trustedTarget(path: string): Promise<string> {
  const target = await realpath(path);
  for (const each of new Set([dirname(path), target, dirname(target)])) {
    const flaw = flawOf(await stat(each));
    if (flaw === null) continue;
    throw new PhaulError({
      code: 'hook-not-safe',
      what: `the hook ${path} was not run: ${each} ${flaw}`,
      remedy: `hooks run as root: chown root:root ${each} && chmod go-w ${each}, or take the hook away`,
    });
  }
  return target;
}

function flawOf(facts: Stats): string | null {
  if (facts.uid !== 0) return `belongs to uid ${facts.uid}, not to root`;
  if ((facts.mode & othersWrite) !== 0)
    return `can be written by others than root (mode ${(facts.mode & 0o7777).toString(8)})`;
  return null;
}
