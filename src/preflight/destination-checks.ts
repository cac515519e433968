/** What this host would have to have for a tree that wants to come. */
import type { Finding, LandingRequest } from '../migration/ports.js';

export interface TreeCheckPlace {
  readonly host: string;
  readonly stateFolder: string;
  readonly signal: AbortSignal;
}

export async function checkTreeHere(_factsJson: string, _request: LandingRequest, { signal }: TreeCheckPlace): Promise<Finding[]> {
  signal.throwIfAborted();
  return [];
}
