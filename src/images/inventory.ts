/** What phaul reads from CRIU's inventory image: the id of the run, which names CRIU's own lock table. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PhaulError } from '../failure/phaul-error.js';
import { protobufFields } from './protobuf-fields.js';

/** u32 magic, u32 length of the message. Unlike other images the inventory has no common magic before its own. */
const headBytes = 8;
const inventoryMagic = 0x58313116;
/** `dump_criu_run_id`, a string; 12, just before it, is the list of plugins (CRIU 4.2, images/inventory.proto). */
const runIdField = 13;

/** The run id in `inventory.img` of a folder. Throws `image-damaged`. */
export async function lockTableRunId(folder: string): Promise<string> {
  try {
    return runIdIn(await readFile(join(folder, 'inventory.img')));
  } catch (cause) {
    throw new PhaulError({
      code: 'image-damaged',
      what: 'inventory.img names no run of CRIU',
      remedy: 'check the version of CRIU (`phaul engine`)',
      cause,
    });
  }
}

function runIdIn(image: Buffer): string {
  if (image.length < headBytes || image.readUInt32LE(0) !== inventoryMagic) throw new RangeError('it is no inventory');
  const message = image.subarray(headBytes, headBytes + image.readUInt32LE(4));
  for (const { number, bytes } of protobufFields(message)) {
    if (number === runIdField && bytes !== null && bytes.length > 0) return bytes.toString('latin1');
  }
  throw new RangeError('it has no run id');
}
