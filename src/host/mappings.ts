/** Memory mappings of a task: /proc/PID/maps (proc_pid_maps(5)). */
import { isClosedToUs, readProc } from './tasks.js';

export interface Mapping {
  /** `start-end` as in /proc/PID/map_files. */
  readonly range: string;
  /** `rwxp`, `r--s`. */
  readonly permissions: string;
  /** `major:minor` in hex, of the superblock: on btrfs and overlayfs not what stat(2) says. */
  readonly device: string;
  readonly inode: string;
  /** A path (`(deleted)` behind it when its name is gone), `[heap]`, or empty. */
  readonly path: string;
}

/** All mappings of a file or of shared memory; none when the task is gone or has more rights than we (`isClosedToUs`). */
export function fileMappingsOf(pid: number): Mapping[] {
  try {
    return parseMaps(readProc(`/proc/${pid}/maps`) ?? '').filter((mapping) => mapping.inode !== '0');
  } catch (thrown) {
    if (isClosedToUs(thrown)) return [];
    throw thrown;
  }
}

export function parseMaps(text: string): Mapping[] {
  return text.split('\n').flatMap((line) => {
    const match = /^([0-9a-f]+-[0-9a-f]+) (\S{4}) [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+)\s*(.*)$/.exec(line);
    if (match === null) return [];
    const [, range = '', permissions = '', device = '', inode = '', path = ''] = match;
    // Only newlines are escaped (seq_path with "\n").
    return [{ range, permissions, device, inode, path: path.replaceAll('\\012', '\n') }];
  });
}

export function isShared(mapping: Mapping): boolean {
  return mapping.permissions[3] === 's';
}

export function isWritable(mapping: Mapping): boolean {
  return mapping.permissions[1] === 'w';
}
