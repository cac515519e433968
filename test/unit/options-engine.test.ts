/** Every option of the engine that an operator can give arrives in CRIU's requests; what the checks have set, too. */
import { describe, expect, test } from 'vitest';
import { dumpOptions, type EngineNeeds, restoreOptions } from '../../src/agent/engine-options.js';
import { optionFields } from '../../src/criu/options.js';
import {
  defaultEngineOptions,
  defaultOrder,
  type EngineOptions,
  type MigrationOrder,
} from '../../src/migration/order.js';

const travel = { imagesDir: '/proc/self/fd/4', tcpEstablished: true, networkLock: 'skip' } as const;
const noNeeds: EngineNeeds = { fileLocks: false, linkRemap: false, ghostLimit: null, extUnixSk: false };

function order(engine: Partial<EngineOptions>, more: Partial<MigrationOrder> = {}): MigrationOrder {
  return { ...defaultOrder, id: 'unit', pid: 77, ...more, engine: { ...defaultEngineOptions, ...engine } };
}

const dump = (given: MigrationOrder, needs = noNeeds, external: string[] = []) =>
  optionFields(dumpOptions(given, { ...travel, external }, needs, 5));
const restore = (given: MigrationOrder) => optionFields(restoreOptions(given, travel, [{ key: 'pipe:[9]', fd: 5 }]));

describe('options of the engine', () => {
  test.each([
    [{ fileLocks: true }, { file_locks: true }],
    [{ linkRemap: true }, { link_remap: true }],
    [{ ghostLimit: 5000 }, { ghost_limit: 5000 }],
    [{ extUnixSk: true }, { ext_unix_sk: true }],
    [{ external: ['tty[8800:1a]'] }, { external: ['tty[8800:1a]'] }],
  ] as [Partial<EngineOptions>, object][])('%o reach the dump', (engine, fields) => {
    expect(dump(order(engine))).toMatchObject(fields);
    expect(dump(order({}))).not.toMatchObject(fields);
  });

  test.each([
    [{ root: '/srv/root' }, { root: '/srv/root' }],
    [{ manageCgroups: 'soft' }, { manage_cgroups: true, manage_cgroups_mode: 3 }],
    [{ cpuCap: 5 }, { cpu_cap: 5 }],
    [{ lsmProfile: 'apparmor:job' }, { lsm_profile: 'apparmor:job' }],
    [{ evasiveDevices: true }, { evasive_devices: true }],
    [{ forceIrmap: true }, { force_irmap: true }],
    [{ external: ['veth[eth0]:out'] }, { external: ['veth[eth0]:out'] }],
  ] as [Partial<EngineOptions>, object][])('%o reach dump and restore', (engine, fields) => {
    for (const request of [dump, restore]) {
      expect(request(order(engine))).toMatchObject(fields);
      expect(request(order({}))).not.toMatchObject(fields);
    }
  });

  test('what the checks have found is set without being asked for; a limit that is too low is raised', () => {
    const needs = { fileLocks: true, linkRemap: true, ghostLimit: 9 << 20, extUnixSk: true };
    const found = { file_locks: true, link_remap: true, ghost_limit: 9 << 20, ext_unix_sk: true };
    expect(dump(order({}), needs)).toMatchObject(found);
    expect(dump(order({ ghostLimit: 10 }), needs)).toMatchObject(found);
  });

  test('terminals that the destination replaces are external to the dump, beside those that the operator names', () => {
    expect(dump(order({ external: ['unix[5]'] }), noNeeds, ['tty[8801:1a]']).external).toEqual([
      'unix[5]',
      'tty[8801:1a]',
    ]);
  });

  test('a restore takes whatever the dump may have brought, and inherits by key', () => {
    expect(restore(order({}))).toMatchObject({
      ...{ file_locks: true, link_remap: true, ext_unix_sk: true, inherit_fd: [{ key: 'pipe:[9]', fd: 5 }] },
      ...{ leave_stopped: false, notify_scripts: true, log_level: 2 },
    });
  });

  test('options of the migration arrive on both sides', () => {
    const given = order({}, { tcp: 'close', shellJob: true, startStopped: true });
    expect(dump(given)).toMatchObject({ pid: 77, tcp_close: true, shell_job: true, ps: { fd: 5 } });
    expect(dump(given)).not.toHaveProperty('leave_stopped');
    expect(restore(given)).toMatchObject({ tcp_close: true, shell_job: true, leave_stopped: true });
  });
});
