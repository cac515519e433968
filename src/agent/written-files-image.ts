/** Hashes of the files that a frozen tree writes to travel as one more image, so that they are verified like the others (dangers.md 11). */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import type { TreeFacts } from '../preflight/tree-facts.js';
import { compareWrittenFiles as compare, hashWrittenFiles } from '../preflight/written-files.js';

/** CRIU reads only images that it knows by name. */
const imageName = 'phaul-written-files.img';

/** On the source, frozen. */
export async function sendWrittenFiles(
  facts: TreeFacts,
  sink: ImageSink,
  signal: AbortSignal,
): Promise<DeliveredImage[]> {
  await sink.write(imageName, Buffer.from(await hashWrittenFiles(facts, signal)));
  return [await sink.end(imageName)];
}

/** On the destination, before the restore. Throws `file-differs`. */
export async function compareWrittenFiles(
  imagesFolder: string,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if (paths.length === 0) return;
  await compare(await readFile(join(imagesFolder, imageName), 'utf8'), paths, signal);
}
