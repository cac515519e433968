/** The operator's hooks for one side of a migration. */
import { Hooks } from '../hooks/hooks.js';
import type { LandingRequest } from '../migration/ports.js';

/** Phases on the source: prepare, freeze, frozen, then moved or undone. On the destination: prepare, restore, then moved, undone or images-kept. */
export function hooksOf({ order }: LandingRequest, role: 'source' | 'destination', imagesFolder: string): Hooks {
  const addresses = order.addresses.map((address) => address.ip);
  return new Hooks({ folders: order.hookFolders, id: order.id, role, pid: order.pid, imagesFolder, addresses });
}
