/** Every option of CRIU's RPC, typed, in our spelling; and their way into CRIU's fields. See criu(8). */
import { CgroupMode, NetworkLock, type OptionFields, PreDumpMode } from './rpc-codec.js';

/** Options of all requests that work on images. */
export interface ImageOptions {
  /** A path that CRIU can open; `/proc/self/fd/N` with an inherited descriptor works across namespaces. */
  imagesDir: string;
  /** Descriptor number in CRIU's process; default: the images directory. */
  workDirFd?: number;
  /** Bare name inside the work directory. */
  logFile?: string;
  /** 0 (nothing) to 4 (debug). 2 is right for production: 4 can write tens of MB a second on damaged images. */
  logLevel?: number;
  logToStderr?: boolean;
  displayStats?: boolean;
  /** Long options of the command line, for what RPC cannot say. */
  configFile?: string;
  /** Ask for notifications; default true where a request has a handler. */
  notify?: boolean;
  /** Seconds; bounds only the freezing. */
  timeout?: number;
  shellJob?: boolean;
  fileLocks?: boolean;
  extUnixSk?: boolean;
  evasiveDevices?: boolean;
  weakSysctls?: boolean;
  tcpEstablished?: boolean;
  tcpClose?: boolean;
  tcpSkipInFlight?: boolean;
  networkLock?: 'iptables' | 'nftables' | 'skip';
  linkRemap?: boolean;
  /** Bytes. */
  ghostLimit?: number;
  forceIrmap?: boolean;
  irmapScanPaths?: string[];
  skipFileRwxCheck?: boolean;
  root?: string;
  veths?: { inside: string; outside: string }[];
  externalMounts?: { key: string; value: string }[];
  autoExternalMounts?: boolean;
  externalSharing?: boolean;
  externalMasters?: boolean;
  skipMounts?: string[];
  enableFs?: string[];
  external?: string[];
  /** Bits of CLONE_NEW*; CRIU takes only CLONE_NEWNET. */
  emptyNamespaces?: number;
  joinNamespaces?: { namespace: string; file: string; extra?: string }[];
  mountNamespaceCompat?: boolean;
  manageCgroups?: 'ignore' | 'none' | 'props' | 'soft' | 'full' | 'strict' | 'default';
  cgroupRoots?: { controller?: string; path: string }[];
  cgroupProps?: string;
  cgroupPropsFile?: string;
  cgroupDumpControllers?: string[];
  freezeCgroup?: string;
  cgroupYard?: string;
  cpuCap?: number;
  lsmProfile?: string;
  lsmMountContext?: string;
  unprivileged?: boolean;
  unixSocketInodes?: number[];
  lazyPages?: boolean;
  /** Where memory goes to (dump) or comes from. `fd` is a descriptor number in CRIU's process. */
  pageServer?: { address: string; port: number } | { fd: number };
  parentImg?: string;
  trackMem?: boolean;
  autoDedup?: boolean;
  tls?: { caCert?: string; caCrl?: string; cert?: string; key?: string; noCnVerify?: boolean };
}

export interface DumpOptions extends ImageOptions {
  /** Root of the tree, in CRIU's pid namespace. Compulsory: without it CRIU would dump whoever asks. */
  pid: number;
  leaveRunning?: boolean;
  leaveStopped?: boolean;
  preDumpMode?: 'splice' | 'vm-read';
  pidfdStoreSocket?: string;
  orphanPtsMaster?: boolean;
  /** Descriptor number in CRIU's process; obsolete, `status-ready` tells the same. */
  statusFd?: number;
}

/** A dump of the very process that asks: there is no pid, and nobody who could answer notifications. */
export interface SelfDumpOptions extends Omit<DumpOptions, 'pid' | 'notify'> {
  pid?: never;
  notify?: never;
}

/** Options of the requests that touch no tree: CHECK, CPUINFO_*. */
export type CheckOptions = ImageOptions;

export interface PageServerOptions extends ImageOptions {
  /** Where to listen; port 0 lets the kernel choose. */
  pageServer: { address: string; port: number };
}

export interface RestoreOptions extends ImageOptions {
  leaveStopped?: boolean;
  /** `key` as CRIU names the resource (`pipe:[INODE]`, `net`), `fd` a descriptor number in CRIU's process. */
  inheritFds?: { key: string; fd: number }[];
  /** The restored root becomes a child of the caller of `swrk` instead of an orphan. */
  restoreAsSibling?: boolean;
  execCommand?: string[];
  orphanPtsMaster?: boolean;
}

const locks = { iptables: NetworkLock.LOCK_IPTABLES, nftables: NetworkLock.LOCK_NFTABLES, skip: NetworkLock.LOCK_SKIP };
const cgroupModes = {
  ignore: CgroupMode.CG_IGNORE,
  none: CgroupMode.CG_NONE,
  props: CgroupMode.CG_PROPS,
  soft: CgroupMode.CG_SOFT,
  full: CgroupMode.CG_FULL,
  strict: CgroupMode.CG_STRICT,
  default: CgroupMode.CG_DEFAULT,
};

type AnyOptions = ImageOptions & Partial<DumpOptions> & Partial<RestoreOptions>;

/** CRIU's fields for our options. `images_dir_fd` is required by the message and -1 stands for "not by descriptor". */
export function optionFields(options: AnyOptions): OptionFields {
  return withoutUndefined({
    images_dir_fd: -1,
    images_dir: options.imagesDir,
    pid: options.pid,
    work_dir_fd: options.workDirFd,
    log_file: options.logFile,
    log_level: options.logLevel,
    log_to_stderr: options.logToStderr,
    display_stats: options.displayStats,
    config_file: options.configFile,
    notify_scripts: options.notify,
    timeout: options.timeout,
    leave_running: options.leaveRunning,
    leave_stopped: options.leaveStopped,
    shell_job: options.shellJob,
    file_locks: options.fileLocks,
    ext_unix_sk: options.extUnixSk,
    evasive_devices: options.evasiveDevices,
    weak_sysctls: options.weakSysctls,
    tcp_established: options.tcpEstablished,
    tcp_close: options.tcpClose,
    tcp_skip_in_flight: options.tcpSkipInFlight,
    network_lock: options.networkLock && locks[options.networkLock],
    link_remap: options.linkRemap,
    ghost_limit: options.ghostLimit,
    force_irmap: options.forceIrmap,
    irmap_scan_paths: options.irmapScanPaths,
    skip_file_rwx_check: options.skipFileRwxCheck,
    root: options.root,
    veths: options.veths?.map(({ inside, outside }) => ({ if_in: inside, if_out: outside })),
    ext_mnt: options.externalMounts?.map(({ key, value }) => ({ key, val: value })),
    auto_ext_mnt: options.autoExternalMounts,
    ext_sharing: options.externalSharing,
    ext_masters: options.externalMasters,
    skip_mnt: options.skipMounts,
    enable_fs: options.enableFs,
    external: options.external,
    empty_ns: options.emptyNamespaces,
    join_ns: options.joinNamespaces?.map(({ namespace, file, extra }) =>
      withoutUndefined({ ns: namespace, ns_file: file, extra_opt: extra }),
    ),
    mntns_compat_mode: options.mountNamespaceCompat,
    manage_cgroups: options.manageCgroups && true,
    manage_cgroups_mode: options.manageCgroups && cgroupModes[options.manageCgroups],
    cg_root: options.cgroupRoots?.map(({ controller, path }) => withoutUndefined({ ctrl: controller, path })),
    cgroup_props: options.cgroupProps,
    cgroup_props_file: options.cgroupPropsFile,
    cgroup_dump_controller: options.cgroupDumpControllers,
    freeze_cgroup: options.freezeCgroup,
    cgroup_yard: options.cgroupYard,
    cpu_cap: options.cpuCap,
    lsm_profile: options.lsmProfile,
    lsm_mount_context: options.lsmMountContext,
    unprivileged: options.unprivileged,
    unix_sk_ino: options.unixSocketInodes?.map((inode) => ({ inode })),
    lazy_pages: options.lazyPages,
    ps: options.pageServer,
    parent_img: options.parentImg,
    track_mem: options.trackMem,
    auto_dedup: options.autoDedup,
    pre_dump_mode: options.preDumpMode && (options.preDumpMode === 'splice' ? PreDumpMode.SPLICE : PreDumpMode.VM_READ),
    pidfd_store_sk: options.pidfdStoreSocket,
    orphan_pts_master: options.orphanPtsMaster,
    status_fd: options.statusFd,
    inherit_fd: options.inheritFds,
    rst_sibling: options.restoreAsSibling,
    exec_cmd: options.execCommand,
    tls: options.tls && true,
    tls_cacert: options.tls?.caCert,
    tls_cacrl: options.tls?.caCrl,
    tls_cert: options.tls?.cert,
    tls_key: options.tls?.key,
    tls_no_cn_verify: options.tls?.noCnVerify,
  });
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

function withoutUndefined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}
