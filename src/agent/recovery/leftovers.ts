/**
 * What runs of phaul, finished or broken, have left on this host. What belongs to a migration that somebody works on is
 * not left. Only what belongs to a settled migration, or to none
 * that this host knows, may be cleaned: the rest is recovery's.
 */
import { lstat, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { neverAborted } from '../../failure/never-aborted.js';
import { errnoOf, messageOf } from '../../failure/phaul-error.js';
import { LeafCgroup } from '../../host/cgroup.js';
import { MigrationLock } from '../../host/lock.js';
import { knownMigrations, migrationFolder } from '../../host/state.js';
import { type JournalState, stateOf } from '../../migration/journal.js';
import { listNetworkLeftovers, type NetworkLeftover, removeNetworkLeftover } from '../../network/leftovers.js';
import { lockTableName } from '../../network/lock-table.js';
import { isHere, type PlacedAddress, removeAddress } from '../../network/moved-address.js';
import type { Leftover } from '../duties.js';
import { cgroupGround, helpersOf } from '../helper-cgroup.js';
import { readJournal } from './journal-file.js';
import { namesOf } from './name-leftovers.js';

/** One thing that is left; `remove` null: it must not be removed here, `note` says why. */
interface Find {
  readonly kind: string;
  readonly what: string;
  readonly migration: string | null;
  readonly note: string;
  readonly remove: (() => Promise<void>) | null;
}

interface Known {
  readonly id: string;
  readonly state: JournalState;
  readonly busy: boolean;
}

export async function findLeftovers(clean: boolean): Promise<Leftover[]> {
  const known = await knownStates();
  // Addresses before fences: between them the kernel would reset clients (dangers.md 14).
  const finds = [
    ...(await addresses(known)),
    ...(await networkThings(known)),
    ...cgroups(known),
    ...(await images(known)),
    ...names(known),
    ...openMigrations(known),
  ].filter(({ migration }) => !known.some(({ id, busy }) => busy && id === migration));
  return await Promise.all(finds.map((find) => settle(find, clean)));
}

async function settle({ kind, what, migration, note, remove }: Find, clean: boolean): Promise<Leftover> {
  if (!clean || remove === null) return { kind, what, migration, note, cleaned: false };
  try {
    await remove();
    return { kind, what, migration, note: '', cleaned: true };
  } catch (thrown) {
    return { kind, what, migration, note: `could not be removed: ${messageOf(thrown)}`, cleaned: false };
  }
}

async function knownStates(): Promise<Known[]> {
  const known: Known[] = [];
  for (const id of await knownMigrations()) {
    const folder = migrationFolder(id);
    const state = stateOf(await readJournal(folder));
    if (state === null) continue;
    using lock = await MigrationLock.tryTake(folder);
    known.push({ id, state, busy: lock === null });
  }
  return known;
}

/** Whether a thing of this migration may go: it is settled, or nobody here has ever heard of it. */
function mayGo(id: string, known: readonly Known[]): boolean {
  const migration = known.find((each) => each.id === id);
  return migration === undefined || (migration.state.closed !== null && !migration.busy);
}

const open = 'its migration is not settled: phaul recover';

async function addresses(known: readonly Known[]): Promise<Find[]> {
  const finds: Find[] = [];
  for (const { id, state } of known) {
    const undone = state.opened.role === 'destination' && state.closed?.outcome === 'undone';
    for (const address of undone ? (state.prepared?.addresses ?? []) : []) {
      if (!(await isHere(address)) || belongsToAnother(address, id, known)) continue;
      finds.push({
        kind: 'address',
        what: `${address.ip}/${address.prefixLength} on ${address.device}`,
        migration: id,
        note: `ip addr del ${address.ip}/${address.prefixLength} dev ${address.device}`,
        remove: () => removeAddress(address),
      });
    }
  }
  return finds;
}

/** A later migration may have brought the address here for good. */
function belongsToAnother(address: PlacedAddress, id: string, known: readonly Known[]): boolean {
  return known.some(({ id: other, state }) => {
    const keeps = state.closed === null || state.closed.outcome === 'moved';
    return (
      other !== id &&
      keeps &&
      state.opened.role === 'destination' &&
      state.opened.addresses.some((each) => each.ip === address.ip)
    );
  });
}

async function networkThings(known: readonly Known[]): Promise<Find[]> {
  return (await listNetworkLeftovers(neverAborted)).flatMap((leftover): Find[] => {
    const id = migrationOf(leftover, known);
    const free = id === null ? leftover.kind === 'tun' && known.every((each) => !each.busy) : mayGo(id, known);
    const remove = free ? () => removeNetworkLeftover(leftover) : null;
    const note =
      leftover.kind === 'engine-lock' && id === null
        ? 'made by a CRIU that phaul did not start: not touched'
        : remove === null
          ? open
          : 'phaul leftovers --clean';
    // Nameless: while somebody works on a migration it may be theirs.
    if (leftover.kind === 'tun' && !free) return [];
    if (leftover.kind === 'tun') return [{ kind: 'tun-device', what: leftover.device, migration: id, note, remove }];
    const family = leftover.kind === 'fence' ? leftover.family : 'inet';
    return [{ kind: 'nft-table', what: `${family} ${leftover.table}`, migration: id, note, remove }];
  });
}

function migrationOf(leftover: NetworkLeftover, known: readonly Known[]): string | null {
  if (leftover.kind === 'fence') return leftover.id;
  if (leftover.kind === 'tun') return null;
  const owner = known.find(
    ({ state }) => state.frozen?.lockTable && lockTableName(state.frozen.lockTable) === leftover.table,
  );
  return owner?.id ?? null;
}

function cgroups(known: readonly Known[]): Find[] {
  const { ground } = cgroupGround();
  if (ground === null) return [];
  return known.flatMap(({ id, state }): Find[] => {
    const path = state.prepared?.cgroup;
    if (!path || path === helpersOf(ground)) return [];
    const leaf = LeafCgroup.at(path);
    if (!leaf.exists) return [];
    // The copy that runs lives in it.
    if (leaf.populated && !leaf.frozen) return [];
    if (leaf.populated) {
      return [
        {
          kind: 'stopped-process',
          what: `${leaf.members().join(', ')} in ${path}`,
          migration: id,
          note: `${open} ${id} decides who owns it`,
          remove: null,
        },
      ];
    }
    const free = mayGo(id, known);
    return [
      {
        kind: 'cgroup',
        what: path,
        migration: id,
        note: free ? 'phaul leftovers --clean' : open,
        remove: free ? () => leaf.remove() : null,
      },
    ];
  });
}

async function images(known: readonly Known[]): Promise<Find[]> {
  const finds: Find[] = [];
  for (const { id, state } of known) {
    for (const name of ['images', 'dump']) {
      const folder = join(migrationFolder(id), name);
      const bytes = await sizeOf(folder);
      if (bytes === null) continue;
      const free = mayGo(id, known);
      const kept = state.closed?.outcome === 'images-kept';
      const note = kept
        ? 'kept on request; phaul leftovers --clean removes it'
        : free
          ? 'phaul leftovers --clean'
          : open;
      finds.push({
        kind: 'images',
        what: `${folder} (${bytes} bytes)`,
        migration: id,
        note,
        remove: free ? () => rm(folder, { recursive: true }) : null,
      });
    }
  }
  return finds;
}

/** Names beside files of the tree: links that CRIU has made, and what a destination has set aside. */
function names(known: readonly Known[]): Find[] {
  return known.flatMap(({ id, state }) => {
    const free = mayGo(id, known);
    return namesOf(state.opened).map(({ kind, path, remove }) => ({
      kind,
      what: path,
      migration: id,
      note: free ? 'phaul leftovers --clean' : open,
      remove: free ? async () => remove() : null,
    }));
  });
}

function openMigrations(known: readonly Known[]): Find[] {
  return known
    .filter(({ state, busy }) => state.closed === null && !busy)
    .map(({ id, state }) => ({
      kind: 'open-migration',
      what: `${id} (${state.opened.role})`,
      migration: id,
      note: `phaul recover ${id}`,
      remove: null,
    }));
}

async function sizeOf(folder: string): Promise<number | null> {
  try {
    const files = await readdir(folder);
    const sizes = await Promise.all(files.map(async (file) => (await lstat(join(folder, file))).size));
    return sizes.reduce((sum, size) => sum + size, 0);
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return null;
    throw thrown;
  }
}
