/** Lines that CRIU 4.1 to 4.3 wrote when it failed, and what phaul makes of them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CriuError } from '../../src/criu/criu-error.js';
import { causeIn, errorLines, readLogTail } from '../../src/criu/log.js';
import { knownCauses } from '../../src/criu/log-causes.js';
import { PhaulError } from '../../src/failure/phaul-error.js';

const noise = [
  "(00.000101) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
  '(00.012001) Warn  (compel/arch/x86/src/lib/infect.c:419): Will restore 22471 with interrupted system call',
  '(00.013001) Error (criu/netfilter.c:301): Could not process rule: No such file or directory',
];
const dumpFailed = '(00.020000) Error (criu/cr-dump.c:1975): Dumping FAILED.';
const restoreFailed = '(00.020000) Error (criu/cr-restore.c:2447): Restoring FAILED.';

const dumps: [line: string, code: string][] = [
  [
    'Error (criu/sk-inet.c:204): inet: Connected TCP socket, consider using --tcp-established option.',
    'tcp-connections',
  ],
  ["Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported", 'engine-too-old'],
  ['Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds', 'engine-too-old'],
  ["Error (criu/cr-dump.c:388): Can't get rlimit 0: Operation not permitted", 'no-cap-sys-resource'],
  ['Error (criu/page-pipe.c:424): page-pipe: splice: -1: Bad file descriptor', 'pipe-too-small'],
  ['Error (criu/tty.c:1983): tty: Found dangling tty with sid 100 pgid 100 (pts) on peer fd 0.', 'terminal-outside'],
  ['Error (criu/tty.c:2010): tty: Found slave peer index 3 without correspond master peer', 'terminal-outside'],
  ['Error (criu/cr-dump.c:1403): A session leader of 30000(30000) is outside of its pid namespace', 'session-outside'],
  ["Error (criu/files-reg.c:1731): Can't lookup mount=24 for fd=10 path=/dev/null", 'file-of-another-mount'],
  [
    'Error (criu/file-lock.c:110): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.',
    'file-locks',
  ],
  ["Error (criu/files-reg.c:1046): Can't dump ghost file /tmp/x of 2000000 size, increase limit", 'ghost-limit'],
  ["Error (criu/files-reg.c:1213): Can't create link remap for /tmp/x. Use link-remap option.", 'link-remap'],
  [
    'Error (criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.',
    'external-unix-socket',
  ],
  [
    "Error (criu/sk-unix.c:880): unix: Can't dump half of stream unix connection. name: (null); peer name: /run/dbus/socket",
    'unix-stream-outside',
  ],
  ['Error (criu/sk-unix.c:612): unix: Dangling connection 1234', 'unix-stream-outside'],
  [
    "Error (criu/files-ext.c:98): Can't dump file 5 of that type [600] (anon anon_inode:[perf_event])",
    'unsupported-file',
  ],
  ["Error (criu/files-ext.c:98): Can't dump file 5 of that type [20600] (chr 10:229)", 'unsupported-file'],
  ['Error (pie): send_fds failed (-22)', 'io-uring'],
  ['Error (criu/files.c:550): Unknown shit 600 (anon_inode:[io_uring])', 'io-uring'],
  ['Error (criu/files.c:550): Unknown shit 100600 (/secretmem (deleted))', 'unsupported-file'],
  ['Error (criu/sockets.c:170): sockets: BUG! Unknown socket collected (family 40)', 'vsock'],
  ['Error (criu/sk-inet.c:120): inet: Unsupported proto 262', 'mptcp'],
  ['Error (criu/tun.c:300): tun: Net namespace is required to dump tun link', 'tun-device'],
  [
    "Error (criu/cr-dump.c:700): Task 30 with SysVIPC shmem map @7f0000000000 doesn't live in IPC ns",
    'sysv-shared-memory',
  ],
  ["Error (criu/namespaces.c:600): Can't dump nested pid namespace for 30", 'nested-namespace'],
  ["Error (criu/mount.c:1600): mnt: 30:/ doesn't have a proper root mount", 'mount-namespace'],
  ['Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 30 (Operation not permitted)', 'traced'],
  ['Error (compel/src/lib/infect.c:200): Unseizable non-zombie 30 found, state t, err -1/1', 'traced'],
  ['Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 4000001 (No such process)', 'pid-not-found'],
  ['Error (criu/mem.c:46): BUG at criu/mem.c:46', 'no-memory-tracking'],
  [
    'Error (criu/config.c:1131): Tracking memory is not available. Consider omitting --track-mem option.',
    'no-memory-tracking',
  ],
  ['Error (criu/bfd.c:300): bfd: Error flushing image: No space left on device', 'disk-full'],
  ["Error (criu/mem.c:600): Can't dump page with parasite", 'pages-not-taken'],
  ['Error (criu/cr-service.c:100): RPC client reported script error', 'aborted'],
  ['Error (criu/cr-service.c:700): Neither images_dir_fd nor images_dir was passed by RPC client', 'bad-request'],
  ["Error (criu/cr-service.c:720): Can't open dir /proc/0/fd/3: No such file or directory", 'images-dir'],
  ['Error (criu/tls.c:90): tls: Invalid certificate', 'tls-handshake'],
];

const restores: [line: string, code: string][] = [
  ["Error (criu/cr-restore.c:1237): Can't fork for 30000: File exists", 'pid-taken'],
  ["Error (criu/files-reg.c:2193): Can't open file opt/x on restore: No such file or directory", 'file-missing'],
  ["Error (criu/files-reg.c:2300): Can't open vma", 'file-missing'],
  ['Error (criu/files-reg.c:2100): File opt/x has bad size 10 (expect 18)', 'file-differs'],
  ['Error (criu/files-reg.c:2110): File opt/x has bad mode 0100644 (expect 0100600)', 'file-differs'],
  ['Error (criu/files-reg.c:2050): File opt/x has bad build-ID', 'file-differs'],
  ["Error (criu/sk-inet.c:900): inet: Can't bind inet socket (id 5): Address already in use", 'port-taken'],
  ["Error (soccr/soccr.c:499): Can't bind inet socket back: Cannot assign requested address", 'address-missing'],
  ["Error (soccr/soccr.c:700): Can't restore not-sent send queue data: Broken pipe", 'loopback-order'],
  ["Error (criu/cr-restore.c:1200): Can't restore sub-task in NS (cflags 40000000)", 'nested-network-namespace'],
  ['Error (criu/cgroup.c:1500): cg: Abort restore of existing cgroups', 'cgroup-exists'],
  ['Error (criu/cpu.c:300): cpu: CPU instruction capabilities do not match run time', 'cpu-incompatible'],
  ['Error (pie): vdso: ELF header magic mismatch', 'engine-older-than-dump'],
  ['Error (criu/protobuf.c:73): Unexpected EOF on (empty-image)', 'image-damaged'],
  ["Error (pie): Can't read pages data (-9)", 'image-damaged'],
  ['Error (criu/tty.c:500): tty: Unable to open dev/ptmx with specified index 3', 'terminal-index-taken'],
  ['Error (criu/file-lock.c:700): Can not set ofd lock!', 'lock-held'],
  ['Error (criu/cr-restore.c:2400): Aborting restore due to post-restore script ret code -1', 'aborted'],
  [
    'Error (criu/cr-restore.c:2460): Killing processes because of failure on restore. The Network was unlocked',
    'restore-failed-late',
  ],
];

describe('the cause', () => {
  test.each(dumps)('of a failed dump: %s', (line, code) => {
    expect(causeIn([...noise, `(00.015000) ${line}`, dumpFailed])).toMatchObject({ code });
  });

  test.each(restores)('of a failed restore: %s', (line, code) => {
    expect(causeIn([...noise, `(00.015000)  30000: ${line}`, restoreFailed])).toMatchObject({ code });
  });

  test('is the telling line, whatever follows from it', () => {
    const lines = [
      ...noise,
      "(00.015000)  30: Error (criu/files-reg.c:2193): Can't open file opt/lib.so on restore: No such file or directory",
      "(00.015100)  30: Error (criu/files-reg.c:2300): Can't open vma",
      '(00.015200) Error (criu/cr-restore.c:1400): 30 exited, status=1',
      restoreFailed,
      "(00.030000) Error (criu/cgroup.c:20): Can't remove /x: No space left on device",
    ];
    expect(causeIn(lines)?.code).toBe('file-missing');
  });

  test('that no pattern knows is quoted', () => {
    expect(causeIn([...noise, 'Error (criu/new.c:1): Something new', dumpFailed])).toMatchObject({
      code: 'engine-failed',
      what: 'Error (criu/new.c:1): Something new',
    });
  });

  test('is none in a log with harmless errors only', () => {
    expect(causeIn([...noise, dumpFailed])).toBeNull();
    expect(errorLines(noise)).toEqual([]);
  });

  test('has words and a remedy in every row of the table', () => {
    for (const { code, what, remedy } of knownCauses) {
      expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/);
      expect(what.length).toBeGreaterThan(10);
      expect(remedy.length).toBeGreaterThan(8);
    }
  });
});

describe('CriuError', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'phaul-log-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('reads the end of a huge log, and none that is missing or empty', async () => {
    const path = join(folder, 'huge.log');
    writeFileSync(path, `${'x'.repeat(200)}\n`.repeat(20_000));
    writeFileSync(path, `(00.1) ${dumps[0]?.[0]}\n${dumpFailed}\n`, { flag: 'a' });
    expect((await readLogTail(path)).at(-1)).toBe(dumpFailed);
    expect((await readLogTail(path)).join('\n').length).toBeLessThan(1 << 20);
    writeFileSync(join(folder, 'empty.log'), '');
    expect(await readLogTail(join(folder, 'empty.log'))).toEqual([]);
    expect(await readLogTail(join(folder, 'missing.log'))).toEqual([]);
  });

  test('never shows cr_errmsg for a cause: the log is the truth', async () => {
    const path = join(folder, 'dump.log');
    writeFileSync(path, [...noise, dumps[0]?.[0], dumpFailed].join('\n'));
    const harmless = "rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";
    const failure = await CriuError.refused('dump', path, 1, harmless);
    expect(failure).toMatchObject({ code: 'tcp-connections', criuErrno: 1 });
    expect(failure.message).not.toContain('RLIMIT');
    expect(failure.logTail).toHaveLength(2);
    const blind = await CriuError.refused('dump', null, null, harmless);
    expect(blind.code).toBe('dump-failed');
    expect(JSON.stringify(blind)).not.toContain('RLIMIT');
    const first = await CriuError.refused('restore', null, null, 'something new');
    expect(first.message).toMatch(/no log.*may be harmless.*something new/);
  });

  test('knows the numbers that CRIU sets on purpose', async () => {
    expect((await CriuError.refused('dump', null, 3, null)).code).toBe('pid-not-found');
    expect((await CriuError.refused('restore', null, 17, null)).code).toBe('pid-taken');
    expect((await CriuError.refused('dump', null, 56, null)).code).toBe('bad-request');
  });

  test('of a CRIU that vanished keeps its code', async () => {
    const gone = new PhaulError({ code: 'engine-gone', what: 'CRIU has ended', remedy: 'look' });
    const failure = await CriuError.gone(gone, 'it was killed by SIGKILL', join(folder, 'dump.log'));
    expect(failure.code).toBe('engine-gone');
    expect(failure.message).toMatch(/SIGKILL.*live TCP connections/);
  });
});
