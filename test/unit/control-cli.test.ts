import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { parseFailure } from '../../src/agent/control/rpc-failure.js';
import { commonProtocol } from '../../src/agent/control/version.js';
import { exitCode, exitCodeOf } from '../../src/cli/exit-codes.js';
import { addMigrateOptions, type MigrateOptions, orderFrom } from '../../src/cli/migrate-options.js';
import { describeFailure } from '../../src/cli/print-failure.js';
import { bytes, harmless, table } from '../../src/cli/terminal.js';
import { PhaulError, type ProcessFate } from '../../src/failure/phaul-error.js';
import { defaultOrder } from '../../src/migration/order.js';

function failure(code: string, phase?: string, fate?: ProcessFate) {
  const place = phase && fate ? { phase, host: 'a', fate } : null;
  return new PhaulError({ code, what: 'w', remedy: 'r' }, place).toJSON();
}

describe('exit codes', () => {
  const runs = { kind: 'running-on', host: 'a' } as const;
  it.each([
    [exitCode.undecided, failure('x', 'taking-over', { kind: 'undecided', ask: 'phaul recover' })],
    [exitCode.undecided, failure('cancelled', 'freezing', { kind: 'frozen-on', host: 'a' })],
    [exitCode.cancelled, failure('cancelled', 'freezing', runs)],
    [exitCode.refused, failure('pid-not-found', 'checking', { kind: 'untouched' })],
    [exitCode.refused, failure('peer-not-allowed', 'checking', { kind: 'untouched' })],
    [exitCode.unreachable, failure('host-unreachable', 'checking', { kind: 'untouched' })],
    [exitCode.failed, failure('host-unreachable', 'freezing', runs)],
    [exitCode.failed, failure('criu-dump-failed', 'freezing', runs)],
    [exitCode.failed, failure('internal', 'checking', { kind: 'untouched' })],
    [exitCode.usage, failure('bad-address')],
  ])('%i', (code, serialized) => {
    expect(exitCodeOf(serialized)).toBe(code);
  });
});

describe('the command line of migrate', () => {
  async function order(...words: string[]) {
    const command = addMigrateOptions(new Command())
      .exitOverride()
      .configureOutput({ writeErr: () => undefined });
    command.parse(words, { from: 'user' });
    return orderFrom('77', command.opts<MigrateOptions>());
  }

  it('makes the default order of nothing', async () => {
    const { id, ...rest } = await order();
    expect(id).toMatch(/^m\d{12}-[0-9a-f]{4}$/);
    expect(rest).toEqual({ ...defaultOrder, pid: 77 });
  });

  it('takes every option', async () => {
    const words =
      '--move-address 10.0.0.5/24@eth0 --move-address fd00::5 --tcp-close --shell-job --stdio file:/x --leave-running';
    const more =
      '--start-stopped --dry-run --keep-images --durable --files-are-same --stop-unit --force --max-freeze 500ms';
    const engine =
      '--timeout 2m --hook /h --id m7 --file-locks --link-remap --ghost-limit 2M --ext-unix-sk --external a --external b';
    const last =
      '--inherit-fd /c:pipe:[7] --root /r --manage-cgroups soft --cpu-cap 3 --lsm-profile l --evasive-devices --force-irmap';
    const made = await order(...[words, more, engine, last].join(' ').split(' '));
    expect(made).toEqual({
      id: 'm7',
      pid: 77,
      tcp: 'close',
      addresses: [
        { family: 4, ip: '10.0.0.5', prefixLength: 24, device: 'eth0' },
        { family: 6, ip: 'fd00::5', prefixLength: null, device: null },
      ],
      shellJob: true,
      stdio: { kind: 'file', path: '/x' },
      leaveRunning: true,
      startStopped: true,
      dryRun: true,
      keepImages: true,
      durable: true,
      filesAreSame: true,
      force: true,
      stopUnit: true,
      maxFreezeMs: 500,
      timeoutMs: 120_000,
      hookFolders: ['/h'],
      engine: {
        fileLocks: true,
        linkRemap: true,
        ghostLimit: 2 ** 21,
        extUnixSk: true,
        external: ['a', 'b'],
        inheritFd: ['/c:pipe:[7]'],
        root: '/r',
        manageCgroups: 'soft',
        cpuCap: 3,
        lsmProfile: 'l',
        evasiveDevices: true,
        forceIrmap: true,
      },
    });
  });

  it.each([
    ['--max-freeze', '0'],
    ['--max-freeze', 'soon'],
    ['--stdio', 'file:'],
    ['--ghost-limit', '-1'],
    ['--tcp-close', '--tcp-established'],
    ['--nope'],
  ])('refuses %s %s', async (...words) => {
    await expect(order(...words)).rejects.toThrow();
  });

  it('refuses what is no pid', async () => {
    const command = addMigrateOptions(new Command());
    command.parse([], { from: 'user' });
    for (const wrong of ['x', '-1', '0', '1.5', '1e3', ''])
      await expect(orderFrom(wrong, command.opts())).rejects.toThrow(/is no pid/);
  });
});

describe('what is printed', () => {
  it('says what, where, what became of the process, and the remedy, and obeys no control characters', () => {
    const told = new PhaulError(
      {
        code: 'criu-dump-failed',
        what: 'no dump\u001b[2J',
        remedy: 'read the log',
        cause: new Error('line 1\nline 2'),
      },
      { phase: 'freezing', host: 'a', fate: { kind: 'running-on', host: 'a' } },
    );
    expect(describeFailure(told.toJSON())).toBe(
      [
        'phaul: no dump\\x1b[2J (criu-dump-failed)',
        '  because: line 1',
        '           line 2',
        '  phase:   freezing, on a',
        '  process: runs on a',
        '  remedy:  read the log',
      ].join('\n'),
    );
    expect(harmless('a\tb\r\u009bc\n')).toBe('a\\x09b\\x0d\\x9bc\n');
  });

  it('aligns and scales', () => {
    expect(
      table([
        ['a', 'bb'],
        ['ccc', 'd'],
      ]),
    ).toBe('a    bb\nccc  d');
    expect([bytes(5), bytes(1536), bytes(2 ** 31)]).toEqual(['5 B', '1.5 KiB', '2.0 GiB']);
  });
});

describe('failures and versions from another host', () => {
  it('are taken only whole', () => {
    const sent = new PhaulError(
      { code: 'a-b', what: 'w', remedy: 'r', cause: new Error('c') },
      { phase: 'p', host: 'h', fate: { kind: 'untouched' } },
    );
    expect(parseFailure(JSON.stringify(sent))).toEqual(sent.toJSON());
    for (const wrong of [
      '',
      '1',
      '{}',
      JSON.stringify({ ...sent.toJSON(), code: 'NO CODE' }),
      JSON.stringify({ ...sent.toJSON(), causes: [1] }),
    ]) {
      expect(parseFailure(wrong), wrong).toBeNull();
    }
    expect(parseFailure(JSON.stringify({ ...sent.toJSON(), place: { phase: 1 } }))?.place).toBeNull();
  });

  it('take the highest common protocol, never zero', () => {
    expect(commonProtocol([2, 1], [1, 2, 9], 'b')).toBe(2);
    expect(() => commonProtocol([0, 1], [0], 'b')).toThrow(/no protocol in common/);
  });
});
