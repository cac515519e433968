/** What a tree is made of and every reason on this host not to touch it. Reads /proc only: the real process is never dumped to find out (dangers.md 17d). */
import type { MigrationOrder } from '../migration/order.js';
import type { Finding, TreeIdentity } from '../migration/ports.js';
import { readStat, treeIdentity } from '../host/tasks.js';

/** What CRIU must be told for this tree; set by itself because it is harmless. */
export interface TreeNeeds {
  readonly fileLocks: boolean;
  readonly linkRemap: boolean;
  /** Bytes; null: CRIU's own limit. */
  readonly ghostLimit: number | null;
  readonly extUnixSk: boolean;
}

export interface TreeInspection {
  readonly tree: TreeIdentity;
  /** Sum of RSS, bytes. */
  readonly memoryBytes: number;
  readonly needs: TreeNeeds;
  /** For the destination's checks: JSON. */
  readonly facts: string;
  readonly findings: readonly Finding[];
}

export async function inspectTree(order: MigrationOrder, host: string, signal: AbortSignal): Promise<TreeInspection> {
  signal.throwIfAborted();
  const tree = treeIdentity(order.pid);
  const memoryBytes = tree.tasks.reduce((sum, task) => sum + (readStat(task.pid)?.residentPages ?? 0) * 4096, 0);
  const findings: Finding[] = [];
  if (tree.tasks.length === 0) {
    findings.push({ code: 'pid-not-found', weight: 'blocker', host, what: `there is no process ${order.pid}`, why: 'nothing can be moved', remedy: 'check the pid', pid: order.pid, fd: null });
  }
  return { tree, memoryBytes, needs: { fileLocks: true, linkRemap: true, ghostLimit: null, extUnixSk: true }, facts: '{}', findings };
}
