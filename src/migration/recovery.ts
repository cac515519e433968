/**
 * Who owns the process after a crash: pure decisions over journals and a look at the tasks (dangers.md 1, 3, 4).
 * The actions are carried out by the agent; nothing here touches anything.
 */
import type { JournalState } from './journal.js';

/** What is left of the source's tree. `another-boot`: the host has rebooted, so all of it is gone. */
export type TreeCondition = 'whole' | 'partly-dead' | 'all-dead' | 'another-boot';

/** What the other host's journal says; `unreachable` is not an answer. */
export type DestinationWord = 'ready' | 'committed' | 'running' | 'nothing' | 'unreachable';

export type SourceAction =
  | { readonly do: 'nothing' }
  /** Abort there without waiting for an answer, end repair mode, lift the fence, thaw, move the tasks back. */
  | { readonly do: 'resume-source' }
  /** Kill what is left, send COMMIT until answered, delete the address, then the fence. */
  | { readonly do: 'go-forward' }
  /** Everything is decided and dead here; only tidy up. */
  | { readonly do: 'tidy-up' }
  /** Tasks died before the line and no copy is ready: what lives goes on, the loss is told. */
  | { readonly do: 'resume-rest' }
  /** The other host must be asked first; the tree stays frozen. */
  | { readonly do: 'ask-again' };

export function decideSource(journal: JournalState, tree: TreeCondition, destination: DestinationWord): SourceAction {
  if (journal.closed !== null) return { do: 'nothing' };
  const theirs = destination === 'committed' || destination === 'running';
  // Their journal has COMMIT: it was sent behind our line, whatever we remember.
  if (theirs) return { do: 'go-forward' };
  if (tree === 'whole') return { do: 'resume-source' };
  if (journal.sourceDead && destination === 'nothing') return { do: 'tidy-up' };
  // The kill is only ever sent after READY, but tasks can die of other hands too; then the ready copy is the only whole one.
  if (destination === 'ready') return { do: 'go-forward' };
  if (destination === 'unreachable') return { do: 'ask-again' };
  return tree === 'partly-dead' ? { do: 'resume-rest' } : { do: 'tidy-up' };
}

/** What became of the copy on the destination. `held`: half-built, or complete but not let go. */
export type CopyCondition = 'none' | 'held' | 'running';

/**
 * What the source's journal says of the migration. `unknown` (no such journal) is no proof that the tree lives:
 * a state folder can be lost, and then the ready copy may be the only one.
 */
export type SourceWord = 'undecided' | 'killed' | 'undone' | 'unknown' | 'unreachable';

export type DestinationAction =
  | { readonly do: 'nothing' }
  /** Kill the half-built copy, remove the address, then the fence, then the images. */
  | { readonly do: 'undo' }
  /** COMMIT is in the journal and no copy runs: restore again from the images and let it go. */
  | { readonly do: 'restore-again' }
  /** The copy runs: write it down, take the fence away, never kill. */
  | { readonly do: 'adopt' }
  /** READY without COMMIT and nobody to ask: images stay, the fence and the address go until the source has spoken. */
  | { readonly do: 'wait-for-source' };

export function decideDestination(
  journal: JournalState,
  copy: CopyCondition,
  source: SourceWord,
  sourceIsDead: boolean,
): DestinationAction {
  if (journal.closed !== null) return { do: 'nothing' };
  if (journal.runningPid !== null) return { do: 'adopt' };
  const ours = journal.committed || (journal.ready && (sourceIsDead || source === 'killed'));
  if (ours) return copy === 'running' ? { do: 'adopt' } : { do: 'restore-again' };
  if (!journal.ready) return { do: 'undo' };
  return source === 'undone' ? { do: 'undo' } : { do: 'wait-for-source' };
}
