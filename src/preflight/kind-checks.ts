/** Kinds of descriptors and mappings that the engine cannot dump (criu.md 10), by what it supports. */
import type { Finding } from '../migration/ports.js';
import type { Look } from './look.js';
import type { SeenFile } from './snapshot.js';
import { isNamedByOperator } from './stdio.js';

/** As /proc prints them, with and without brackets. */
const supportedAnonymous = new Set(['eventfd', 'eventpoll', 'signalfd', 'inotify', 'fanotify', 'timerfd', 'pidfd']);
/** major:minor of null, zero, full, random, urandom, tty, console, ptmx (Documentation/admin-guide/devices.txt). */
const supportedDevices = new Set(['1:3', '1:5', '1:7', '1:8', '1:9', '5:0', '5:1', '5:2']);
/** Slaves of ptys. */
const ptyMajors = new Set([136, 137, 138, 139, 140, 141, 142, 143]);
const words = {
  why: 'The engine cannot dump this kind of descriptor: its state lives in this kernel only.',
  remedy:
    'Let the program close it first (many programs can be told not to use it), or name it by --external if a plugin of the engine takes it.',
};

export function checkDescriptorKinds({ snapshot, order, say }: Look): Finding[] {
  return snapshot.tasks.flatMap((task) =>
    task.files.flatMap((file): Finding[] => {
      const kind = unsupportedKind(file);
      if (kind === null || isNamedByOperator(file, order.engine)) return [];
      const what = `Descriptor ${file.fd} of pid ${file.pid} is ${kind}.`;
      return [say('blocker', 'unsupported-descriptor', { what, ...words }, file)];
    }),
  );
}

/** What it is, in words, or null when the engine takes it. */
export function unsupportedKind({ target, stat }: Pick<SeenFile, 'target' | 'stat'>): string | null {
  const anonymous = /^anon_inode:\[?([^\]]+)\]?$/.exec(target)?.[1];
  if (anonymous !== undefined) return supportedAnonymous.has(anonymous) ? null : `an ${anonymous} object`;
  if (/^(pipe|socket|pidfd):\[/.test(target)) return null;
  // `net:[N]` and the like: namespaces held open.
  if (!target.startsWith('/')) return /^\w+:\[\d+\]$/.test(target) ? null : `of an unknown kind (${target})`;
  if (target.startsWith('/secretmem')) return 'secret memory (memfd_secret)';
  if (stat === null) return null;
  if (stat.isBlockDevice()) return `the block device ${target}`;
  if (!stat.isCharacterDevice()) return null;
  const [major, minor] = deviceNumbers(stat.rdev);
  return supportedDevices.has(`${major}:${minor}`) || ptyMajors.has(major) ? null : `the device ${target}`;
}

export function checkMappingKinds({ snapshot, say }: Look): Finding[] {
  return snapshot.tasks.flatMap(({ stat, mappings, namespaces }) => {
    const refuse = (code: string, what: string, why: string, remedy: string): Finding =>
      say('blocker', code, { what: `Pid ${stat.pid} ${what}`, why, remedy }, { pid: stat.pid, fd: null });
    const findings: Finding[] = [];
    const paths = new Set(mappings.map((mapping) => mapping.path));
    for (const path of paths) {
      if (path.startsWith('/SYSV') && namespaces.ipc === snapshot.own.ipc) {
        findings.push(
          refuse(
            'sysv-shared-memory',
            `has System V shared memory (${path}).`,
            'Its key belongs to the whole IPC namespace, of which other processes are members.',
            'Start the tree in an IPC namespace of its own.',
          ),
        );
      } else if (/^anon_inode:(?!\[?(aio|eventfd))|^\/secretmem|^\/dev\/(?!zero|shm\/|hugepages\/|null)/.test(path)) {
        findings.push(
          refuse(
            'unsupported-mapping',
            `has mapped ${path}.`,
            'The engine cannot dump this mapping: it is memory of a device or of this kernel.',
            'Let the program close it first.',
          ),
        );
      }
    }
    return findings;
  });
}

/** Major and minor as the kernel encodes them in st_rdev (makedev(3)). */
export function deviceNumbers(device: bigint): [number, number] {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return [Number(major), Number(minor & 0xffff_ffffn)];
}
