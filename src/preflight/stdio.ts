/** What `--stdio` replaces, and what the operator has named to the engine by hand: both lift the checks of sharing. */
import type { EngineOptions, MigrationOrder } from '../migration/order.js';
import type { SeenFile, Snapshot } from './snapshot.js';

/** O_ACCMODE of open(2); 2 is O_RDWR. */
const accessMode = 0o3;

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

/** A pipe or terminal at descriptors 0-2 whose other end stays here; `--stdio` gives it another one on the destination. */
export interface StdioEnd {
  /** CRIU's name for it: `pipe:[INODE]`, or `tty[RDEV:DEV]` in hexadecimal digits. */
  readonly key: string;
  readonly kind: 'pipe' | 'terminal';
  /** Every descriptor of the tree through which it is written to. */
  readonly writers: readonly { readonly pid: number; readonly fd: number }[];
}

/** What `--stdio null|file:PATH` rewires. With --shell-job the engine itself brings the terminal of a job. */
export function stdioEnds(snapshot: Snapshot, order: MigrationOrder): StdioEnd[] {
  if (order.stdio.kind === 'keep') return [];
  const files = snapshot.tasks.flatMap((task) => task.files);
  const masters = new Set(files.flatMap((file) => file.ttyIndex ?? []));
  const ends = new Map<string, StdioEnd>();
  for (const file of files) {
    if (ends.has(file.target) || !isRewired(file, order) || isNamedByOperator(file, order.engine)) continue;
    const pipe = file.target.startsWith('pipe:[');
    const index = Number(/^\/dev\/pts\/(\d+)$/.exec(file.target)?.[1] ?? -1);
    if (pipe ? hasBothEnds(snapshot, file.target) : order.shellJob || masters.has(index)) continue;
    const key = pipe ? file.target : engineNamesOf(file).find((name) => name.startsWith('tty['));
    if (key === undefined) continue;
    const same = files.filter((other) => other.target === file.target);
    const writers = same.filter((other) => (other.flags & accessMode) !== 0).map(({ pid, fd }) => ({ pid, fd }));
    ends.set(file.target, { key, kind: pipe ? 'pipe' : 'terminal', writers });
  }
  return [...ends.values()];
}

/** True for a pipe that the tree both writes to and reads from: it moves, whoever else holds it. */
export function hasBothEnds(snapshot: Snapshot, target: string): boolean {
  const ends = snapshot.tasks.flatMap((task) => task.files.filter((file) => file.target === target));
  return (
    new Set(ends.map((file) => file.flags & accessMode)).size > 1 ||
    ends.some((file) => (file.flags & accessMode) === 2)
  );
}
