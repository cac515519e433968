/** What runs of phaul, finished or broken, left in the network of this host. Addresses stand in the journals. */

import { z } from 'zod';
import { neverAborted } from '../failure/never-aborted.js';
import { ip, nft, nftJson } from './commands.js';
import { type FenceSide, parseFenceName } from './fence-table.js';
import { isLockTableName } from './lock-table.js';

export type NetworkLeftover =
  | {
      readonly kind: 'fence';
      readonly table: string;
      readonly family: 'inet' | 'arp';
      readonly id: string;
      readonly side: FenceSide;
    }
  /** A lock of some CRIU: ours only if a journal of ours knows its run id. */
  | { readonly kind: 'engine-lock'; readonly table: string }
  | { readonly kind: 'tun'; readonly device: string };

const tunPattern = /^phaul[0-9]{1,9}$/;

/** Lists them; those of running migrations are among them, the caller knows which are open. */
export async function listNetworkLeftovers(signal: AbortSignal): Promise<readonly NetworkLeftover[]> {
  const [tables, links] = await Promise.all([
    nftJson(['list', 'tables'], signal),
    ip(['-j', 'link', 'show', 'type', 'tun'], signal),
  ]);
  return [...tablesAmong(tables), ...tunsAmong(links)];
}

/** Parses the answer of `nft -j list tables`. */
export function tablesAmong(answer: unknown): readonly NetworkLeftover[] {
  return tableList.parse(answer).nftables.flatMap(({ table }): NetworkLeftover[] => {
    if (table === undefined) return [];
    const fence = parseFenceName(table.name);
    if (fence !== null && (table.family === 'inet' || table.family === 'arp')) {
      return [{ kind: 'fence', table: table.name, family: table.family, ...fence }];
    }
    return table.family === 'inet' && isLockTableName(table.name) ? [{ kind: 'engine-lock', table: table.name }] : [];
  });
}

/** Removes one, by its exact name. Idempotent. A fence before its address is gone would let RST out: address first. */
export async function removeNetworkLeftover(leftover: NetworkLeftover): Promise<void> {
  if (leftover.kind === 'tun') return await removeTun(leftover.device);
  const family = leftover.kind === 'fence' ? leftover.family : 'inet';
  if (parseFenceName(leftover.table) === null && !isLockTableName(leftover.table)) {
    throw new TypeError(`not a table of ours: ${JSON.stringify(leftover.table)}`);
  }
  await nft(`add table ${family} ${leftover.table}\ndelete table ${family} ${leftover.table}\n`, neverAborted);
}

function tunsAmong(answer: string): readonly NetworkLeftover[] {
  // Nothing of that type: some versions print nothing at all.
  const links = linkList.parse(JSON.parse(answer.trim() === '' ? '[]' : answer));
  return links.flatMap(({ ifname }): NetworkLeftover[] =>
    ifname !== undefined && tunPattern.test(ifname) ? [{ kind: 'tun', device: ifname }] : [],
  );
}

async function removeTun(device: string): Promise<void> {
  if (!tunPattern.test(device)) throw new TypeError(`not an interface of ours: ${JSON.stringify(device)}`);
  try {
    await ip(['link', 'del', 'dev', device], neverAborted);
  } catch (failure) {
    // Gone with its descriptor meanwhile.
    const left = tunsAmong(await ip(['-j', 'link', 'show', 'type', 'tun'], neverAborted));
    if (left.some((each) => each.kind === 'tun' && each.device === device)) throw failure;
  }
}

const tableList = z.object({
  nftables: z.array(z.object({ table: z.object({ family: z.string(), name: z.string() }).optional() })),
});
const linkList = z.array(z.object({ ifname: z.string().optional() }));
