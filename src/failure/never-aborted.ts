/** For work that must end by itself: undoing, recovery, what follows the line. */
import { setMaxListeners } from 'node:events';

export const neverAborted: AbortSignal = new AbortController().signal;
// Any amount of such work may go on at a time; each takes its listener away when it ends, so many are no leak.
setMaxListeners(0, neverAborted);
