/** CRIU's error messages (4.1 to 4.3, collected from failures that were provoked) in plain words, with the remedy. */

export interface KnownCause {
  /** Found in a line of the log. */
  readonly pattern: RegExp;
  /** Stable, kebab-case. */
  readonly code: string;
  readonly what: string;
  readonly remedy: string;
}

/** Errors that CRIU logs in good runs too. */
export const harmless: readonly RegExp[] = [
  /Can't setup RLIMIT_NOFILE/,
  /Could not process rule: No such file/,
  /Will restore .* interrupted system call/,
  /Stale .*criu\.kdat/,
];

/** Warnings that tell the cause of the error that follows. */
export const tellingWarnings: readonly RegExp[] = [/Unable to interrupt task/];

/** More specific lines first: the first that matches any error line, read from the end, is the cause. */
export const knownCauses: readonly KnownCause[] = [
  {
    pattern: /Connected TCP socket, consider using/,
    code: 'tcp-connections',
    what: 'the process has live TCP connections',
    remedy: 'use --tcp-established or --tcp-close',
  },
  {
    pattern: /In-flight connection|in-flight/i,
    code: 'tcp-in-flight',
    what: 'a connection had not been accepted yet',
    remedy: 'try again: new connections are held back before the freeze',
  },
  {
    pattern: /Can't get 1:16 opt/,
    code: 'engine-too-old',
    what: 'this CRIU cannot dump sockets on this kernel',
    remedy: 'use CRIU >= 4.2 (`phaul engine`)',
  },
  {
    pattern: /Unexpected rt vDSO area bounds/,
    code: 'engine-too-old',
    what: 'this CRIU does not know this kernel',
    remedy: 'use CRIU >= 4.2 (`phaul engine`)',
  },
  {
    pattern: /Can't get rlimit \d+: Operation not permitted/,
    code: 'no-cap-sys-resource',
    what: "without CAP_SYS_RESOURCE the limits of another user's process cannot be read",
    remedy: 'give the agent CAP_SYS_RESOURCE, or use the private engine with its preload (`phaul engine`)',
  },
  {
    pattern: /splice: -1: Bad file descriptor/,
    code: 'pipe-too-small',
    what: 'a pipe of 4 MiB could not be had',
    remedy: 'give CAP_SYS_RESOURCE or set fs.pipe-max-size to 4194304',
  },
  {
    pattern: /Found dangling tty|without correspond master peer/,
    code: 'terminal-outside',
    what: 'the process uses a terminal that belongs to somebody else',
    remedy: 'use --shell-job',
  },
  {
    pattern: /session leader of .* is outside of its pid namespace/,
    code: 'session-outside',
    what: 'the session leader is in another pid namespace',
    remedy: 'start the program with setsid inside its namespace',
  },
  {
    pattern: /Can't lookup mount=/,
    code: 'file-of-another-mount',
    what: 'a file was opened in another mount namespace',
    remedy: 'start the program with its files opened inside its own mount namespace',
  },
  {
    pattern: /Some file locks are hold/,
    code: 'file-locks',
    what: 'the process holds file locks',
    remedy: 'use --file-locks',
  },
  {
    pattern: /Can't dump ghost file .* increase limit/,
    code: 'ghost-limit',
    what: 'a deleted file that is still open is too large',
    remedy: 'use a higher --ghost-limit',
  },
  {
    pattern: /Can't create link remap/,
    code: 'link-remap',
    what: 'a file was unlinked but has other names',
    remedy: 'use --link-remap',
  },
  {
    pattern: /External socket is used/,
    code: 'external-unix-socket',
    what: 'a unix socket is connected to a process that does not move',
    remedy: 'use --ext-unix-sk if it is a datagram socket (syslog)',
  },
  {
    pattern: /half of stream unix connection|Dangling connection/,
    code: 'unix-stream-outside',
    what: 'a unix stream is connected to a process that does not move',
    remedy: 'move both processes together, or close the connection',
  },
  {
    pattern: /send_fds failed|io_uring/,
    code: 'io-uring',
    what: 'the process uses io_uring, which CRIU cannot dump',
    remedy: 'start the program without io_uring',
  },
  {
    pattern: /Can't dump file .* of that type|Unknown shit/,
    code: 'unsupported-file',
    what: 'the process has a file of a kind that CRIU cannot dump',
    remedy: 'see the line of the log: close it, or name it with --external',
  },
  {
    pattern: /Unknown socket collected \(family 40\)/,
    code: 'vsock',
    what: 'the process has a vsock socket',
    remedy: 'CRIU cannot move it',
  },
  {
    pattern: /Unsupported proto 262/,
    code: 'mptcp',
    what: 'the process uses MPTCP',
    remedy: 'Go programs: start with GODEBUG=multipathtcp=0',
  },
  {
    pattern: /Net namespace is required to dump tun/,
    code: 'tun-device',
    what: 'the process has a TUN device',
    remedy: 'it can move only with its own network namespace',
  },
  {
    pattern: /SysVIPC shmem map .* doesn't live in IPC ns/,
    code: 'sysv-shared-memory',
    what: 'System V shared memory needs an IPC namespace of its own',
    remedy: 'start the program in its own IPC namespace (unshare -i)',
  },
  {
    pattern: /Can't dump nested/,
    code: 'nested-namespace',
    what: 'a task lives in a nested namespace',
    remedy: 'move the outer container as a whole',
  },
  {
    pattern: /doesn't have a proper root mount/,
    code: 'mount-namespace',
    what: 'a task has a mount namespace without a proper root',
    remedy: 'move the container as a whole with --root',
  },
  {
    pattern: /Unable to interrupt task: \d+ \(Operation not permitted\)|Unseizable non-zombie/,
    code: 'traced',
    what: 'a debugger or strace is attached',
    remedy: 'detach it',
  },
  {
    pattern: /Unable to interrupt task: \d+ \(No such process\)/,
    code: 'pid-not-found',
    what: 'the process is gone',
    remedy: 'check the pid',
  },
  {
    pattern: /BUG at criu\/mem\.c/,
    code: 'no-memory-tracking',
    what: 'this kernel cannot track memory for CRIU',
    remedy: 'do not pre-dump with CRIU here',
  },
  {
    pattern: /Tracking memory is not available/,
    code: 'no-memory-tracking',
    what: 'this kernel cannot track memory for CRIU',
    remedy: 'do not pre-dump with CRIU here',
  },
  {
    pattern: /No space left on device/,
    code: 'disk-full',
    what: 'the disk that holds the images is full',
    remedy: 'make room, or set the state folder to another file system',
  },
  {
    pattern: /Can't dump page with parasite/,
    code: 'pages-not-taken',
    what: 'the memory could not be handed over',
    remedy: 'see the failure of the page connection',
  },
  {
    pattern: /Can't fork for \d+: File exists/,
    code: 'pid-taken',
    what: 'a pid, process group or session of the tree is in use on this host',
    remedy: 'end that process, or give the tree a pid namespace of its own',
  },
  {
    pattern: /has bad size|has bad mode|has bad build-ID/,
    code: 'file-differs',
    what: 'a file differs between the hosts',
    remedy: 'copy it from the source',
  },
  {
    pattern: /Can't open file .* on restore: No such file|Can't open vma|Can't open cwd/,
    code: 'file-missing',
    what: 'a file of the process does not exist here',
    remedy: 'copy it from the source',
  },
  {
    pattern: /(Can't|Unable to) open .*ptmx/,
    code: 'terminal-index-taken',
    what: 'the terminal number is in use on this host',
    remedy: 'give the host a devpts of its own',
  },
  {
    pattern: /Can't bind inet socket .*Address already in use/,
    code: 'port-taken',
    what: 'a port of the process is in use on this host',
    remedy: 'end the program that listens there',
  },
  {
    pattern: /Can't bind inet socket back: Cannot assign requested address/,
    code: 'address-missing',
    what: 'an address of the connections is not on this host',
    remedy: 'use --move-address',
  },
  {
    pattern: /Can't restore not-sent send queue data/,
    code: 'loopback-order',
    what: 'a connection inside the tree came back before its other end',
    remedy: 'try again',
  },
  {
    pattern: /Can't restore sub-task in NS/,
    code: 'nested-network-namespace',
    what: 'a child has a network namespace of its own',
    remedy: 'move the container as a whole',
  },
  {
    pattern: /Abort restore of existing cgroups/,
    code: 'cgroup-exists',
    what: 'a cgroup of the process exists already',
    remedy: 'use --manage-cgroups ignore',
  },
  {
    pattern: /CPU instruction capabilities do not match|cpu: .*do not match/,
    code: 'cpu-incompatible',
    what: 'this CPU lacks instructions that the process may use',
    remedy: 'choose a host with the same or a newer CPU, or --cpu-cap',
  },
  {
    pattern: /ELF header magic mismatch/,
    code: 'engine-older-than-dump',
    what: 'the images were written by a newer CRIU',
    remedy: 'the destination needs at least the version of the source',
  },
  {
    pattern: /Can not set ofd lock|Can't set file lock|Can't set posix lock/i,
    code: 'lock-held',
    what: 'a file lock is held by another process',
    remedy: 'the file system is shared and the source still lives: report this',
  },
  {
    pattern: /Unexpected EOF on|bytes while .* expected|Can't read pages data/,
    code: 'image-damaged',
    what: 'an image is missing or cut off',
    remedy: 'migrate again; check the disk',
  },
  {
    pattern: /Can't open dir \/proc|Can't readlink/,
    code: 'images-dir',
    what: 'CRIU could not open the images folder',
    remedy: 'this is a bug of phaul or an engine that is too old',
  },
  {
    pattern: /tls: .*(Invalid certificate|does not match the expected)|double free or corruption/,
    code: 'tls-handshake',
    what: "CRIU's own TLS handshake failed",
    remedy: 'check the certificates given to CRIU',
  },
  {
    pattern: /Bad req|Neither images_dir_fd nor images_dir/,
    code: 'bad-request',
    what: 'CRIU refused the options',
    remedy: 'see the line of the log',
  },
  {
    pattern: /Killing processes because of failure on restore/,
    code: 'restore-failed-late',
    what: 'the copy failed in the last steps of its restore',
    remedy: "see CRIU's log",
  },
  {
    pattern: /RPC client reported script error|Aborting restore due to/,
    code: 'aborted',
    what: 'phaul has told CRIU to stop',
    remedy: 'see the failure that led to it',
  },
];
