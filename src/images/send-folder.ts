/** Sends what CRIU has written on the source's disk: everything but memory, tens of KiB for a small tree. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { PhaulError } from '../failure/phaul-error.js';
import type { DeliveredImage, ImageSink } from '../migration/ports.js';
import { isImageName } from './image-name.js';

/** SysV segments, ghost files and tmpfs archives can be large: they leave in pieces. */
const pieceBytes = 1 << 20;

/**
 * Sends all images of a folder; the receipts in the order of their names. Small files are read on the event loop: the
 * tree is frozen, and from the page cache a read costs less than the way to the thread pool and back.
 */
export async function sendImages(folder: string, sink: ImageSink): Promise<DeliveredImage[]> {
  const receipts: Promise<DeliveredImage>[] = [];
  // Logs and statistics have other names.
  for (const name of readdirSync(folder)
    .filter((name) => name.endsWith('.img'))
    .sort()) {
    if (!isImageName(name)) throw unknownImage(name);
    const path = join(folder, name);
    const small = statSync(path).size <= pieceBytes;
    const receipt = small ? sendWhole(path, name, sink) : sendInPieces(path, name, sink);
    // Awaited together below; until then a failure is no unhandled one.
    receipt.catch(() => undefined);
    receipts.push(receipt);
    if (!small) await receipt;
  }
  return await Promise.all(receipts);
}

/** Left out, it would be missed only when the copy is restored. */
function unknownImage(name: string): PhaulError {
  return new PhaulError({
    code: 'image-name-unknown',
    what: `CRIU has written an image called ${JSON.stringify(name)}, which phaul would not take from a peer`,
    remedy: 'check that the engine is a CRIU that phaul knows (`phaul engine`), and report it',
  });
}

/** Read and given to the sink when this returns its promise. */
async function sendWhole(path: string, name: string, sink: ImageSink): Promise<DeliveredImage> {
  const [, receipt] = await Promise.all([sink.write(name, readFileSync(path)), sink.end(name)]);
  return receipt;
}

async function sendInPieces(path: string, name: string, sink: ImageSink): Promise<DeliveredImage> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(pieceBytes);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return await sink.end(name);
      await sink.write(name, buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}
