/** Bytes of CRIU's messages: exact, nothing lost, nothing let through that CRIU would read as something else. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeDumpStatistics, decodeInventory } from '../../src/criu/image-records.js';
import { decodeMessage, encodeMessage } from '../../src/criu/message-codec.js';
import { optionFields } from '../../src/criu/options.js';
import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  type RequestFields,
  RequestType,
} from '../../src/criu/rpc-codec.js';
import { image } from '../../src/gen/criu-images.js';

const uint64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const uint32 = fc.nat({ max: 0xffff_ffff });

describe('64-bit numbers', () => {
  test('are exact over their whole range', () => {
    fc.assert(
      fc.property(uint64, uint32, fc.option(uint64, { nil: undefined }), (vaddr, compat_nr_pages, nr_pages) => {
        const entry = nr_pages === undefined ? { vaddr, compat_nr_pages } : { vaddr, compat_nr_pages, nr_pages };
        expect(decodeMessage(image.PagemapEntry, encodeMessage(image.PagemapEntry, entry))).toEqual(entry);
      }),
    );
  });

  test('that do not fit are refused, not cut', () => {
    const entry = { vaddr: 1n << 64n, compat_nr_pages: 0 };
    expect(() => encodeMessage(image.PagemapEntry, entry)).toThrow(/vaddr/);
    expect(() => encodeMessage(image.PagemapEntry, { vaddr: -1n, compat_nr_pages: 0 })).toThrow(/vaddr/);
  });
});

describe('unknown fields', () => {
  // Number 100 and up: no CRIU knows them yet. Wire type 2, a length and bytes.
  const unknownField = fc
    .tuple(fc.integer({ min: 100, max: 2047 }), fc.uint8Array({ maxLength: 100 }))
    .map(([number, bytes]) => Uint8Array.from([((number << 3) & 127) | 2 | 128, number >> 4, bytes.length, ...bytes]));

  test('survive reading and writing, at the top and inside', () => {
    fc.assert(
      fc.property(fc.array(unknownField, { maxLength: 4 }), fc.array(unknownField, { maxLength: 4 }), (top, inside) => {
        const ids = Buffer.concat([Buffer.from([8, 1, 16, 2, 24, 3, 32, 4]), ...inside]);
        const length = ids.length < 128 ? [ids.length] : [(ids.length & 127) | 128, ids.length >> 7];
        const bytes = Buffer.concat([Buffer.from([8, 2, 26, ...length]), ids, ...top]);
        const inventory = decodeMessage(image.Inventory, bytes);
        expect(inventory.img_version).toBe(2);
        expect(Buffer.from(encodeMessage(image.Inventory, inventory))).toEqual(bytes);
      }),
    );
  });

  test('of a newer CRIU do not disturb a response', () => {
    const { type, success } = decodeResponse(Uint8Array.from([8, 10, 16, 1, 0xfa, 0x3e, 2, 65, 66]));
    expect({ type, success }).toEqual({ type: RequestType.VERSION, success: true });
  });
});

describe('requests', () => {
  test('without a required field are refused', () => {
    expect(() => encodeRequest({ opts: { images_dir_fd: -1 } } as unknown as RequestFields)).toThrow(/type/);
    expect(() => encodeRequest({ type: RequestType.DUMP, opts: {} } as unknown as RequestFields)).toThrow(
      /images_dir_fd/,
    );
  });

  test.each([
    ['a 33-bit pid', { type: RequestType.DUMP, opts: { images_dir_fd: -1, pid: 2 ** 32 } }],
    ['a negative limit', { type: RequestType.DUMP, opts: { images_dir_fd: -1, ghost_limit: -1 } }],
    ['a misspelt option', { type: RequestType.DUMP, opts: { images_dir_fd: -1, tcp_establish: true } }],
    ['an unknown type', { type: 77 }],
    ['a number as a path', { type: RequestType.DUMP, opts: { images_dir_fd: -1, images_dir: 3 } }],
  ])('with %s are refused, never sent as something else', (_, request) => {
    expect(() => encodeRequest(request as unknown as RequestFields)).toThrow(TypeError);
  });

  test('carry every option with CRIU field for field', () => {
    const opts = optionFields({
      pid: 30_000,
      imagesDir: '/proc/self/fd/4',
      logFile: 'dump.log',
      logLevel: 2,
      notify: true,
      tcpEstablished: true,
      networkLock: 'skip',
      manageCgroups: 'ignore',
      pageServer: { fd: 5 },
      external: ['net[4026531840]:host', 'unix[12]'],
      inheritFds: [{ key: 'pipe:[77]', fd: 6 }],
      unixSocketInodes: [12],
      cgroupRoots: [{ path: '/phaul' }],
      ghostLimit: 0,
    });
    expect(decodeRequest(encodeRequest({ type: RequestType.DUMP, opts })).opts).toMatchObject({
      images_dir_fd: -1,
      pid: 30_000,
      images_dir: '/proc/self/fd/4',
      log_file: 'dump.log',
      log_level: 2,
      notify_scripts: true,
      tcp_established: true,
      network_lock: 3,
      manage_cgroups: true,
      manage_cgroups_mode: 0,
      ps: { fd: 5 },
      external: ['net[4026531840]:host', 'unix[12]'],
      inherit_fd: [{ key: 'pipe:[77]', fd: 6 }],
      unix_sk_ino: [{ inode: 12 }],
      cg_root: [{ path: '/phaul' }],
      ghost_limit: 0,
    });
  });
});

describe('responses', () => {
  const whole = Buffer.from('080110012202081e', 'hex');

  test('cut off anywhere are an error or a shorter message with all required fields', () => {
    expect(decodeResponse(whole)).toEqual({ type: RequestType.DUMP, success: true, restore: { pid: 30 } });
    for (let length = 0; length < whole.length; length++) {
      let read: unknown;
      try {
        read = decodeResponse(whole.subarray(0, length));
      } catch (failure) {
        expect(failure).toMatchObject({ code: 'engine-garbled' });
        continue;
      }
      expect(read).toMatchObject({ type: RequestType.DUMP, success: true });
    }
  });

  test('of arbitrary bytes never throw anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeResponse(bytes);
        } catch (failure) {
          expect(failure).toMatchObject({ code: 'engine-garbled' });
        }
      }),
    );
  });
});

describe('images', () => {
  // Written by CRIU 4.2.1.
  const inventory = Buffer.from(
    '1631315834000000' +
      '080210011a18080110011801200128013002380340044806500758086005200128013000580262006a0a39623066326632312d31',
    'hex',
  );
  const statistics = Buffer.from(
    '4059105506330957220000000a20085910c41c18b10320ad01289001300038704000480050085808600068007000',
    'hex',
  );

  test('inventory tells run id and lock method', () => {
    expect(decodeInventory(inventory)).toMatchObject({ dump_criu_run_id: '9b0f2f21-1', network_lock_method: 2 });
  });

  test('statistics of a dump are microseconds and exact page counts', () => {
    expect(decodeDumpStatistics(statistics)).toMatchObject({
      freezing_time: 89,
      frozen_time: 3652,
      pages_written: 112n,
    });
  });

  test('that are cut off or of another kind are called damaged', () => {
    for (let length = 0; length < statistics.length; length++) {
      expect(() => decodeDumpStatistics(statistics.subarray(0, length))).toThrow(/stats-dump is damaged/);
    }
    expect(() => decodeInventory(statistics)).toThrow(/inventory.img is damaged/);
  });
});
