/** Proofs that a file here is the file there: build id, hash, or the identity of the file itself (dangers.md 11). */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { errnoOf } from '../failure/phaul-error.js';
import { addon } from '../native/addon.js';

const blockBytes = 1 << 20;
/** More notes than any program carries; the peer's file must not fill the memory. */
const maxNoteBytes = 64 * 1024;

/** Opens a file for reading whatever it is: never waits for the writer of a FIFO. Null when it cannot be named any more. */
export async function openToRead(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (thrown) {
    if (['ENOENT', 'ENOTDIR', 'ENXIO', 'ESRCH', 'ELOOP'].includes(errnoOf(thrown) ?? '')) return null;
    throw thrown;
  }
}

/** XXH3-128 of the first `bytes` bytes of a file, 32 hex digits. */
export async function hashFile(file: FileHandle, bytes: number, signal: AbortSignal): Promise<string> {
  const hash = addon().xxh3Stream();
  const block = Buffer.allocUnsafe(Math.min(blockBytes, bytes));
  for (let position = 0; position < bytes; ) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read(block, 0, Math.min(block.length, bytes - position), position);
    if (bytesRead === 0) break;
    hash.update(block.subarray(0, bytesRead));
    position += bytesRead;
  }
  return hash.digest();
}

/** Build id of an ELF file (NT_GNU_BUILD_ID, elf(5)) in hex, or null. CRIU compares it too. */
export async function readBuildId(file: FileHandle): Promise<string | null> {
  const header = await readAt(file, 0, 64);
  if (header.length < 64 || header.readUInt32BE(0) !== 0x7f45_4c46 || header[5] !== 1) return null;
  const wide = header[4] === 2;
  const tableAt = wide ? Number(header.readBigUInt64LE(32)) : header.readUInt32LE(28);
  const entryBytes = header.readUInt16LE(wide ? 54 : 42);
  const entries = header.readUInt16LE(wide ? 56 : 44);
  if (entryBytes < (wide ? 56 : 32) || !Number.isSafeInteger(tableAt)) return null;
  const table = await readAt(file, tableAt, Math.min(entryBytes * entries, maxNoteBytes));
  for (let at = 0; at + entryBytes <= table.length; at += entryBytes) {
    const programNote = 4;
    if (table.readUInt32LE(at) !== programNote) continue;
    const offset = wide ? Number(table.readBigUInt64LE(at + 8)) : table.readUInt32LE(at + 4);
    const bytes = wide ? Number(table.readBigUInt64LE(at + 32)) : table.readUInt32LE(at + 16);
    const id = Number.isSafeInteger(offset)
      ? buildIdIn(await readAt(file, offset, Math.min(bytes, maxNoteBytes)))
      : null;
    if (id !== null) return id;
  }
  return null;
}

function buildIdIn(notes: Buffer): string | null {
  const round = (bytes: number): number => (bytes + 3) & ~3;
  for (let at = 0; at + 12 <= notes.length; ) {
    const nameBytes = notes.readUInt32LE(at);
    const idBytes = notes.readUInt32LE(at + 4);
    const buildIdNote = 3;
    const idAt = at + 12 + round(nameBytes);
    if (idAt + idBytes > notes.length) return null;
    const name = notes.toString('latin1', at + 12, at + 12 + nameBytes);
    if (notes.readUInt32LE(at + 8) === buildIdNote && name === 'GNU\0' && idBytes > 0 && idBytes <= 64) {
      return notes.toString('hex', idAt, idAt + idBytes);
    }
    at = idAt + round(idBytes);
  }
  return null;
}

async function readAt(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(buffer, 0, bytes, position);
  return buffer.subarray(0, bytesRead);
}
