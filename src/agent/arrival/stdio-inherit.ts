/** `--inherit-fd PATH:KEY`: the destination opens PATH, CRIU uses it for what the dump calls KEY (criu(8), --inherit-fd). */
import { PhaulError } from '../../failure/phaul-error.js';

export interface InheritedFile {
  readonly path: string;
  /** `pipe:[INODE]`, `tty[RDEV:DEV]`, `socket:[INODE]`, `file[MNT:INODE]` or a path without its first slash. */
  readonly key: string;
}

/** Throws `inherit-fd-wrong`. */
export function parseInheritFd(text: string): InheritedFile {
  const match = /^(\/[^:]*):(.+)$/.exec(text);
  const [, path, key] = match ?? [];
  if (path !== undefined && key !== undefined) return { path, key };
  throw new PhaulError({
    code: 'inherit-fd-wrong',
    what: `${text} does not say which file of the destination takes the place of what`,
    remedy: 'write --inherit-fd PATH:KEY, for instance /var/log/job.log:pipe:[12345] (KEY as in criu(8))',
  });
}
