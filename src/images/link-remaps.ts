/**
 * The names `link_remap.N` that a dump has made: hard links beside files that are open under a name which is gone. The
 * images say where they are, and CRIU does not remove them when it is killed.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { protobufFields } from './protobuf-fields.js';

/** Two magics, u32 each (CRIU 4.2, images/README and magic.h): which images these are is said by their names. */
const headBytes = 8;
/** RemapFilePathEntry: remap_id, remap_type; LINKED is 0 (images/remap-file-path.proto). */
const remapId = 2;
const remapType = 3;
const linked = 0n;
/** FileEntry: id, reg; RegFileEntry: name (images/fdinfo.proto, regfile.proto). */
const fileId = 2;
const fileRegular = 3;
const regularName = 6;

/** Absolute paths as the tree sees them; those that a broken dump has written down. Throws RangeError for damaged images. */
export function linkRemapsIn(folder: string): string[] {
  const linkedIds = new Set<bigint>();
  for (const record of recordsOf(join(folder, 'remap-fpath.img'))) {
    const fields = new Map([...protobufFields(record)].map((field) => [field.number, field.value]));
    const id = fields.get(remapId);
    // An enumeration that is not there has its first value.
    if (id !== null && id !== undefined && (fields.get(remapType) ?? linked) === linked) linkedIds.add(id);
  }
  if (linkedIds.size === 0) return [];
  return recordsOf(join(folder, 'files.img')).flatMap((record) => {
    const fields = [...protobufFields(record)];
    const id = fields.find(({ number }) => number === fileId)?.value;
    const regular = fields.find(({ number }) => number === fileRegular)?.bytes;
    if (id === null || id === undefined || !linkedIds.has(id) || !regular) return [];
    const name = [...protobufFields(regular)].find(({ number }) => number === regularName)?.bytes?.toString('utf8');
    // Whatever an image says: nothing else is ever removed.
    if (name === undefined || name.includes('\0') || !/^link_remap\.\d+$/.test(basename(name))) return [];
    return [join('/', name)];
  });
}

/** Removes them. On the source, and only when the tree goes on there: a restore needs them. */
export function removeLinkRemaps(folder: string): void {
  for (const path of linkRemapsIn(folder)) rmSync(path, { force: true });
}

function recordsOf(path: string): Buffer[] {
  if (!existsSync(path)) return [];
  const image = readFileSync(path);
  const records: Buffer[] = [];
  for (let at = headBytes; at + 4 <= image.length; ) {
    const length = image.readUInt32LE(at);
    // A dump that was killed: what it had not written, it had not linked for anybody.
    if (length > image.length - at - 4) break;
    records.push(image.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return records;
}
