/**
 * The small images of CRIU that phaul reads: `inventory.img` (what the others are) and `stats-dump`, `stats-restore`
 * (what the engine's own clock says). Bytes in, facts out; no I/O.
 */
import { PhaulError } from '../failure/phaul-error.js';
import { image } from '../gen/criu-images.js';
import { decodeMessage, type Exact, type MessageType } from './message-codec.js';

export type Inventory = Exact<image.IInventory>;
export type DumpStatistics = Exact<image.IDumpStatistics>;
export type RestoreStatistics = Exact<image.IRestoreStatistics>;

// Magics as they stand in the files, little-endian (seen in images of CRIU 4.2).
const inventoryMagic = [0x58313116];
const statisticsMagic = [0x55105940, 0x57093306];

/** `inventory.img`. Throws `image-damaged`. */
export function decodeInventory(bytes: Uint8Array): Inventory {
  return onlyRecord('inventory.img', bytes, inventoryMagic, image.Inventory);
}

/** `stats-dump`: times in microseconds, pages of 4 KiB. Throws `image-damaged`. */
export function decodeDumpStatistics(bytes: Uint8Array): DumpStatistics {
  const { dump } = onlyRecord('stats-dump', bytes, statisticsMagic, image.Statistics);
  if (!dump) throw damaged('stats-dump', 'it holds no dump');
  return dump;
}

/** `stats-restore`: times in microseconds. Throws `image-damaged`. */
export function decodeRestoreStatistics(bytes: Uint8Array): RestoreStatistics {
  const { restore } = onlyRecord('stats-restore', bytes, statisticsMagic, image.Statistics);
  if (!restore) throw damaged('stats-restore', 'it holds no restore');
  return restore;
}

function onlyRecord<Fields>(
  name: string,
  bytes: Uint8Array,
  magics: number[],
  type: MessageType<Fields>,
): Exact<Fields> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = 4 * magics.length + 4;
  if (bytes.length < head) throw damaged(name, `it has ${bytes.length} bytes`);
  for (const [index, magic] of magics.entries()) {
    if (view.getUint32(4 * index, true) !== magic) throw damaged(name, 'it starts with another magic number');
  }
  const length = view.getUint32(head - 4, true);
  if (length > bytes.length - head) throw damaged(name, `its record of ${length} bytes is cut off`);
  try {
    return decodeMessage(type, bytes.subarray(head, head + length));
  } catch (cause) {
    throw damaged(name, 'its record cannot be read', cause);
  }
}

function damaged(name: string, why: string, cause?: unknown): PhaulError {
  return new PhaulError({
    code: 'image-damaged',
    what: `${name} is damaged: ${why}`,
    remedy: 'migrate again; check the disk that holds the images',
    cause,
  });
}
