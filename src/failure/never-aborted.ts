/** For work that must end by itself: undoing, recovery, what follows the line. */
export const neverAborted: AbortSignal = new AbortController().signal;
