/** What `--stdio` replaces, and what the operator has named to the engine by hand: both lift the checks of sharing. */
import type { EngineOptions, MigrationOrder } from '../migration/order.js';
import type { SeenFile } from './snapshot.js';

/** True for a pipe or terminal at descriptor 0-2 that `--stdio null|file:PATH` gives another end. */
export function isRewired(file: SeenFile, order: MigrationOrder): boolean {
  if (order.stdio.kind === 'keep' || file.fd > 2) return false;
  return file.target.startsWith('pipe:[') || file.target.startsWith('/dev/pts/');
}

/** True when `--external` or `--inherit-fd` names this thing (formats of criu(8)): then the operator answers for it. */
export function isNamedByOperator(file: SeenFile, engine: EngineOptions): boolean {
  const words = [...engine.external, ...engine.inheritFd];
  const names = engineNamesOf(file);
  return words.some((word) => names.some((name) => word === name || word.endsWith(`:${name}`)));
}

/** What CRIU calls an open file: key of `--inherit-fd`, and for some kinds of `--external`. */
export function engineNamesOf({ target, stat, mountId }: SeenFile): string[] {
  const names = [target];
  const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
  if (inode !== undefined) names.push(`unix[${inode}]`, `socket[${inode}]`);
  const pipe = /^pipe:\[(\d+)\]$/.exec(target)?.[1];
  if (pipe !== undefined) names.push(`pipe[${pipe}]`);
  if (stat !== null && target.startsWith('/dev/'))
    names.push(`tty[${stat.rdev.toString(16)}:${stat.dev.toString(16)}]`);
  if (stat !== null && target.startsWith('/')) names.push(`file[${mountId.toString(16)}:${stat.ino.toString(16)}]`);
  return names;
}
