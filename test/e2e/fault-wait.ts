/** Waiting for what must come. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Looks every 20 ms until it is so; fails with what it last saw. */
export async function eventually(
  what: string,
  ms: number,
  isSo: () => Promise<boolean>,
  seen: () => string = () => '',
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms / 1000} s: ${what}. ${seen()}`);
    await sleep(20);
  }
}
