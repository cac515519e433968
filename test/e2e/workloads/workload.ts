/** A real program that is moved with clients attached: how to start it, and who says whether it is unharmed. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { LabHost } from '../../../src/lab/lab-host.js';

/** Where one workload lives during one test. */
export interface Place {
  /** The host it is started on. */
  readonly host: LabHost;
  /** Folder of its own, open to every user; the same path on both hosts. */
  readonly folder: string;
  /** The address that moves with it, and its port there. */
  readonly address: string;
  readonly port: number;
  /** First pid; a workload may use some hundred after it. */
  readonly pid: number;
}

/** Sees the program from outside, for as long as it runs. Disposed: ended at once. */
export interface Witness extends AsyncDisposable {
  /** Waits until every connection has had an answer since the last call (or the start); throws after 30 s. */
  progress(): Promise<void>;
  /** Ends the clients. Every violation of the program's truth in words; none: unharmed. */
  finish(): Promise<string[]>;
}

export interface Need {
  readonly program: string;
  /** Debian package that has it. */
  readonly apt: string;
}

export interface Workload {
  readonly name: string;
  readonly needs: readonly Need[];
  /** Options of `phaul migrate` that it needs beside `--move-address`. */
  readonly flags: readonly string[];
  /** False: it speaks to nobody over the network, no address moves with it. */
  readonly hasAddress: boolean;
  /** Starts it at `place.pid` or a little above; returns the pid of the tree to move when it is ready. */
  start(place: Place): Promise<number>;
  attend(place: Place, client: LabHost): Promise<Witness>;
}

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Where a program of the distribution is, or null. Not by $PATH: a shim of a version manager is not the program. */
export function findProgram(name: string): string | null {
  const places = name.startsWith('/') ? [name] : path.split(':').map((folder) => join(folder, name));
  return places.find(isExecutable) ?? null;
}

/** The program, which `missing` has found to be there. */
export function programOf(name: string): string {
  const found = findProgram(name);
  if (found === null) throw new Error(`${name} is not installed`);
  return found;
}

/** Why this workload cannot be run here, with the remedy; null: it can. */
export function missing(workload: Workload): string | null {
  const need = workload.needs.find(({ program }) => findProgram(program) === null);
  return need === undefined ? null : `${need.program} is not installed (apt install ${need.apt})`;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false; // Not there, or not for us: the same here.
  }
}
