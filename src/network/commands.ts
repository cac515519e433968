/** The two programs that this folder runs, `ip` and `nft`; never in the window (a start costs 1-5 ms). */
import { runCommand } from '../host/command.js';

// Both answer within milliseconds; RTNL held by somebody else is what can delay them.
const timeoutMs = 10_000;

/** Runs `ip` with these words. Every word must come from a parsed type (dangers.md 15). */
export async function ip(words: readonly string[], signal: AbortSignal): Promise<string> {
  const { stdout } = await runCommand(['ip', ...words], { input: null, timeoutMs, signal });
  return stdout;
}

/** Runs a script as one nft transaction: all of it or nothing. Every word must come from a parsed type (dangers.md 15). */
export async function nft(script: string, signal: AbortSignal): Promise<void> {
  await runCommand(['nft', '-f', '-'], { input: script, timeoutMs, signal });
}

/** Answer of `nft -j` with these words. */
export async function nftJson(words: readonly string[], signal: AbortSignal): Promise<unknown> {
  const { stdout } = await runCommand(['nft', '-j', ...words], { input: null, timeoutMs, signal });
  return JSON.parse(stdout);
}
