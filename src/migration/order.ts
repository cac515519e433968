/** What the operator asked for: every option of one migration, parsed and complete. */

export type StdioChoice =
  | { readonly kind: 'keep' }
  | { readonly kind: 'null' }
  | { readonly kind: 'file'; readonly path: string };

/** `IP[/len][@dev]`, parsed. `device` null: the device in whose subnet the address lies. */
export interface AddressOrder {
  readonly family: 4 | 6;
  /** Canonical text form without prefix length. */
  readonly ip: string;
  readonly prefixLength: number | null;
  readonly device: string | null;
}

/** Options that go to the engine as they are (names as in criu(8)). */
export interface EngineOptions {
  readonly fileLocks: boolean;
  readonly linkRemap: boolean;
  /** Bytes; null: CRIU's own limit (1 MiB). */
  readonly ghostLimit: number | null;
  readonly extUnixSk: boolean;
  readonly external: readonly string[];
  readonly inheritFd: readonly string[];
  readonly root: string | null;
  readonly manageCgroups: 'ignore' | 'none' | 'props' | 'soft' | 'full' | 'strict' | 'default';
  readonly cpuCap: number | null;
  readonly lsmProfile: string | null;
  readonly evasiveDevices: boolean;
  readonly forceIrmap: boolean;
}

export interface MigrationOrder {
  /** Lower-case letters, digits and dashes, at most 32 characters. */
  readonly id: string;
  readonly pid: number;
  /** `established`: connections move; `close`: they are closed on the destination; `auto`: established when there are any. */
  readonly tcp: 'auto' | 'established' | 'close';
  readonly addresses: readonly AddressOrder[];
  readonly shellJob: boolean;
  readonly stdio: StdioChoice;
  readonly leaveRunning: boolean;
  readonly startStopped: boolean;
  readonly dryRun: boolean;
  readonly keepImages: boolean;
  readonly durable: boolean;
  readonly filesAreSame: boolean;
  readonly force: boolean;
  readonly stopUnit: boolean;
  /** ms; null: the rule of dangers.md 7 (30 s plus 15 s per GiB). */
  readonly maxFreezeMs: number | null;
  /** ms until the freeze; null: unbounded. */
  readonly timeoutMs: number | null;
  readonly hookFolders: readonly string[];
  readonly engine: EngineOptions;
}

export const defaultEngineOptions: EngineOptions = {
  fileLocks: false,
  linkRemap: false,
  ghostLimit: null,
  extUnixSk: false,
  external: [],
  inheritFd: [],
  root: null,
  manageCgroups: 'ignore',
  cpuCap: null,
  lsmProfile: null,
  evasiveDevices: false,
  forceIrmap: false,
};

export const defaultOrder: Omit<MigrationOrder, 'id' | 'pid'> = {
  tcp: 'auto',
  addresses: [],
  shellJob: false,
  stdio: { kind: 'keep' },
  leaveRunning: false,
  startStopped: false,
  dryRun: false,
  keepImages: false,
  durable: false,
  filesAreSame: false,
  force: false,
  stopUnit: false,
  maxFreezeMs: null,
  timeoutMs: null,
  hookFolders: [],
  engine: defaultEngineOptions,
};
