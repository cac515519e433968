/** The inventory as CRIU 4.2.1 wrote it for a `sleep`. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { lockTableRunId } from '../../src/images/inventory.js';
import { protobufFields } from '../../src/images/protobuf-fields.js';
import { lockTableName } from '../../src/network/lock-table.js';

const written = Buffer.from(
  '163131584e000000080210011a18080110011801200128013002380340044806500758086005200128013000580262006a24' +
    Buffer.from('22b97d06-0736-4cb2-8837-b07187f773d6').toString('hex'),
  'hex',
);

async function runIdOf(image: Uint8Array): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'phaul-inventory-'));
  try {
    await writeFile(join(folder, 'inventory.img'), image);
    return await lockTableRunId(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("danger 15: the lock table is named after the run that the inventory names, not after its neighbour's field", async () => {
  const runId = await runIdOf(written);
  expect(runId).toBe('22b97d06-0736-4cb2-8837-b07187f773d6');
  expect(lockTableName(runId)).toBe('CRIU-22b97d06-0736-4cb2-88');
});

test('an inventory that is cut off or of another kind is refused', async () => {
  await expect(runIdOf(written.subarray(0, 60))).rejects.toMatchObject({ code: 'image-damaged' });
  await expect(runIdOf(Buffer.concat([Buffer.alloc(4), written.subarray(4)]))).rejects.toMatchObject({
    code: 'image-damaged',
  });
});

test('no message, however broken, does more than end in a RangeError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        expect([...protobufFields(Buffer.from(bytes))].length).toBeLessThanOrEqual(200);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(RangeError);
      }
    }),
  );
});
