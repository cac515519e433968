/** The operator's order as options of CRIU, for both sides. What differs between them is added by each. */
import type { DumpOptions, ImageOptions, RestoreOptions } from '../criu/options.js';
import type { MigrationOrder } from '../migration/order.js';

/** Log level 2: at 4 CRIU writes tens of MB a second about damaged images (criu.md 0.9). */
const logLevel = 2;

export interface EngineNeeds {
  readonly fileLocks: boolean;
  readonly linkRemap: boolean;
  /** Bytes; null: CRIU's own limit. */
  readonly ghostLimit: number | null;
  readonly extUnixSk: boolean;
}

export interface Travel {
  /** `/proc/self/fd/N` of the images folder in CRIU's process. */
  readonly imagesDir: string;
  readonly tcpEstablished: boolean;
  /** `skip` with a fence of our own, else CRIU's nftables lock. */
  readonly networkLock: 'skip' | 'nftables';
}

export interface DumpTravel extends Travel {
  /** Keys of what the destination replaces, where CRIU must be told at the dump. */
  readonly external: readonly string[];
}

export function dumpOptions(
  order: MigrationOrder,
  travel: DumpTravel,
  needs: EngineNeeds,
  pageServerFd: number,
): DumpOptions {
  // The checks raise a limit that is too low for what is there, and say so.
  const ghostLimit = needs.ghostLimit ?? order.engine.ghostLimit;
  return {
    ...common(order, travel),
    pid: order.pid,
    logFile: 'dump.log',
    pageServer: { fd: pageServerFd },
    fileLocks: order.engine.fileLocks || needs.fileLocks,
    linkRemap: order.engine.linkRemap || needs.linkRemap,
    extUnixSk: order.engine.extUnixSk || needs.extUnixSk,
    ...(ghostLimit === null ? {} : { ghostLimit }),
    external: [...order.engine.external, ...travel.external],
  };
}

export function restoreOptions(
  order: MigrationOrder,
  travel: Travel,
  inheritFds: { key: string; fd: number }[],
): RestoreOptions {
  return {
    ...common(order, travel),
    logFile: 'restore.log',
    // Harmless where there are none, and decided on the source where there are.
    fileLocks: true,
    linkRemap: true,
    extUnixSk: true,
    inheritFds,
    external: [...order.engine.external],
    leaveStopped: order.startStopped,
  };
}

function common(order: MigrationOrder, travel: Travel): ImageOptions {
  const { engine } = order;
  return {
    imagesDir: travel.imagesDir,
    logLevel,
    notify: true,
    tcpEstablished: travel.tcpEstablished,
    tcpClose: order.tcp === 'close',
    networkLock: travel.networkLock,
    shellJob: order.shellJob,
    manageCgroups: engine.manageCgroups,
    evasiveDevices: engine.evasiveDevices,
    forceIrmap: engine.forceIrmap,
    ...(engine.cpuCap === null ? {} : { cpuCap: engine.cpuCap }),
    ...(engine.lsmProfile === null ? {} : { lsmProfile: engine.lsmProfile }),
    ...(engine.root === null ? {} : { root: engine.root }),
  };
}
