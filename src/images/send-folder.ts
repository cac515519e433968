/** Sends what CRIU has written on the source's disk: everything but memory, tens of KiB for a small tree. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';

/** For people, not for a restore. */
const notNeeded = new Set(['stats-dump.img']);

/** Sends all images of a folder; the receipts in no particular order. */
export async function sendImages(folder: string, sink: ImageSink): Promise<DeliveredImage[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.img') && !notNeeded.has(name));
  return await Promise.all(
    names.map(async (name) => {
      await sink.write(name, await readFile(join(folder, name)));
      return await sink.end(name);
    }),
  );
}
