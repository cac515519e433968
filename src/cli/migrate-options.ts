/** The options of `phaul migrate`, and the order that they make. */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { PhaulError } from '../failure/phaul-error.js';
import {
  defaultEngineOptions,
  defaultOrder,
  type EngineOptions,
  type MigrationOrder,
  type StdioChoice,
} from '../migration/order.js';

/** What commander makes of the command line; names follow the options. */
export interface MigrateOptions {
  readonly moveAddress: readonly string[];
  readonly tcpEstablished?: boolean;
  readonly tcpClose?: boolean;
  readonly shellJob?: boolean;
  readonly stdio: StdioChoice;
  readonly leaveRunning?: boolean;
  readonly startStopped?: boolean;
  readonly dryRun?: boolean;
  readonly keepImages?: boolean;
  readonly durable?: boolean;
  readonly filesAreSame?: boolean;
  readonly force?: boolean;
  readonly stopUnit?: boolean;
  readonly maxFreeze?: number;
  readonly timeout?: number;
  readonly hook: readonly string[];
  readonly id?: string;
  readonly json?: boolean;
  readonly fileLocks?: boolean;
  readonly linkRemap?: boolean;
  readonly ghostLimit?: number;
  readonly extUnixSk?: boolean;
  readonly external: readonly string[];
  readonly inheritFd: readonly string[];
  readonly root?: string;
  readonly manageCgroups: EngineOptions['manageCgroups'];
  readonly cpuCap?: number;
  readonly lsmProfile?: string;
  readonly evasiveDevices?: boolean;
  readonly forceIrmap?: boolean;
}

const cgroupModes = ['ignore', 'none', 'props', 'soft', 'full', 'strict', 'default'] as const;
const engineHeading = 'Options of the engine (see criu(8)); the checks set what is harmless by themselves:';

/** Adds every option of a migration to the command. */
export function addMigrateOptions(command: Command): Command {
  return command
    .addOption(repeatable('--move-address <IP[/len][@dev]>', 'an address that moves with the process', collected))
    .addOption(
      new Option('--tcp-established', 'move connections (the default when there are any)').conflicts('tcpClose'),
    )
    .option('--tcp-close', 'close connections instead of moving them')
    .option('--shell-job', 'the process belongs to a terminal session that stays')
    .addOption(
      new Option('--stdio <null|file:PATH|keep>', 'what becomes of descriptors 0-2 on the destination')
        .argParser(stdioChoice)
        .default(defaultOrder.stdio, 'keep'),
    )
    .option('--leave-running', 'only bring verified images to the destination; the process goes on here')
    .option('--start-stopped', 'leave the process stopped on the destination (SIGCONT lets it go)')
    .option('--dry-run', 'run the checks on both hosts and touch nothing')
    .option('--keep-images', 'keep the images on the destination')
    .option('--durable', 'write images through to the disk before the process is handed over')
    .option('--files-are-same', 'do not prove that files on both hosts are the same')
    .option('--stop-unit', 'not implemented yet: mask the unit by hand, then --force')
    .option('--force', 'move although a supervisor may start a second copy')
    .option('--max-freeze <time>', 'longest freeze: 500ms, 30s, 2m (default 30 s + 15 s per GiB)', duration)
    .option('--timeout <time>', 'longest time until the freeze (default: none)', duration)
    .addOption(repeatable('--hook <DIR>', 'folder of executables to run at each phase on both hosts', collectedPath))
    .option('--id <ID>', 'name of the migration (default: made up)')
    .option('--json', 'progress and report as JSON lines on stdout')
    .optionsGroup(engineHeading)
    .option('--file-locks', 'carry file locks')
    .option('--link-remap', 'carry deleted files by a temporary name')
    .option('--ghost-limit <size>', 'largest deleted file that is carried: 1M, 512K', size)
    .option('--ext-unix-sk', 'allow unix sockets to outsiders')
    .addOption(repeatable('--external <what>', 'external resource', collected))
    .addOption(
      repeatable('--inherit-fd <PATH:KEY>', 'file of the destination in place of what KEY names', collectedInherited),
    )
    .option('--root <PATH>', 'root of the mount namespace')
    .addOption(new Option('--manage-cgroups <mode>', 'cgroups').choices(cgroupModes).default('ignore'))
    .option('--cpu-cap <mask>', 'CPU compatibility mask', wholeNumber)
    .option('--lsm-profile <type:name>', 'security profile on the destination')
    .option('--evasive-devices', 'use any path to a device')
    .option('--force-irmap', 'resolve inotify names by search');
}

/** Throws `bad-option` or `bad-address`. */
export async function orderFrom(pid: string, options: MigrateOptions): Promise<MigrationOrder> {
  const { parseAddressOrder } = await import('../network/address.js');
  return {
    id: options.id ?? freshId(),
    pid: parsePid(pid),
    tcp: options.tcpClose ? 'close' : options.tcpEstablished ? 'established' : 'auto',
    addresses: options.moveAddress.map(parseAddressOrder),
    shellJob: options.shellJob ?? false,
    stdio: options.stdio,
    leaveRunning: options.leaveRunning ?? false,
    startStopped: options.startStopped ?? false,
    dryRun: options.dryRun ?? false,
    keepImages: options.keepImages ?? false,
    durable: options.durable ?? false,
    filesAreSame: options.filesAreSame ?? false,
    force: options.force ?? false,
    stopUnit: options.stopUnit ?? false,
    maxFreezeMs: options.maxFreeze ?? null,
    timeoutMs: options.timeout ?? null,
    hookFolders: options.hook,
    engine: {
      ...defaultEngineOptions,
      fileLocks: options.fileLocks ?? false,
      linkRemap: options.linkRemap ?? false,
      ghostLimit: options.ghostLimit ?? null,
      extUnixSk: options.extUnixSk ?? false,
      external: options.external,
      inheritFd: options.inheritFd,
      root: options.root ?? null,
      manageCgroups: options.manageCgroups,
      cpuCap: options.cpuCap ?? null,
      lsmProfile: options.lsmProfile ?? null,
      evasiveDevices: options.evasiveDevices ?? false,
      forceIrmap: options.forceIrmap ?? false,
    },
  };
}

/** `m` and the time to the second, with four random characters: sorts by age, names folders and tables. */
function freshId(): string {
  const time = new Date().toISOString().replace(/[-:T]/g, '').slice(2, 14);
  return `m${time}-${randomBytes(2).toString('hex')}`;
}

function parsePid(text: string): number {
  // More digits than any pid; whether there is such a process the checks say.
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text);
  throw new PhaulError({
    code: 'bad-option',
    what: `${text} is no pid`,
    remedy: 'give the number of a process, see ps(1)',
  });
}

function repeatable(
  flags: string,
  what: string,
  parse: (value: string, before: readonly string[]) => string[],
): Option {
  return new Option(flags, `${what}; may be repeated`).argParser(parse).default([], 'none');
}

function collected(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

function collectedInherited(value: string, before: readonly string[]): string[] {
  if (!/^\/[^:]*:./.test(value)) throw new InvalidArgumentError('write PATH:KEY, as in /var/log/job.log:pipe:[12345]');
  return [...before, value];
}

function collectedPath(value: string, before: readonly string[]): string[] {
  return [...before, resolve(value)];
}

/** ms of `500ms`, `30s`, `2m`; a bare number is seconds. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text);
  const value = Math.round(Number(match?.[1]) * { ms: 1, s: 1000, m: 60_000 }[(match?.[2] ?? 's') as 'ms' | 's' | 'm']);
  if (!match || value < 1) throw new InvalidArgumentError('write 500ms, 30s or 2m');
  return value;
}

/** Bytes of `1M`, `512K`, `4096`. */
export function size(text: string): number {
  const match = /^(\d+)([KMG])?$/i.exec(text);
  if (!match) throw new InvalidArgumentError('write 4096, 512K or 1M');
  const factor = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[(match[2] ?? '').toUpperCase() as '' | 'K' | 'M' | 'G'];
  return Number(match[1]) * factor;
}

export function stdioChoice(text: string): StdioChoice {
  if (text === 'keep' || text === 'null') return { kind: text };
  if (text.startsWith('file:') && text.length > 5) return { kind: 'file', path: resolve(text.slice(5)) };
  throw new InvalidArgumentError('write null, keep or file:PATH');
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
    throw new InvalidArgumentError('a number from 0 to 4294967295');
  return value;
}
