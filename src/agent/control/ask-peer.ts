/** A host that does not know asks: what does the other host's journal say? Unreachable is no answer. */
import type { DestinationWord, SourceWord } from '../../migration/recovery.js';
import type { AgentConfig } from '../config.js';
import { dial } from './dial.js';
import { destinationWordFromWire, sourceWordFromWire } from './messages.js';
import type { PeerLink } from './peer-link.js';
import { rpc } from './rpc-service.js';

const askMs = 3000;

/** Null when the other host cannot be reached: that is a word too, and the decision knows what to do with it. */
export async function dialOrNull(peer: string, config: AgentConfig): Promise<PeerLink | null> {
  try {
    return await dial(peer, config, { signal: AbortSignal.timeout(askMs) });
  } catch {
    return null;
  }
}

export async function askDestination(link: PeerLink | null, id: string): Promise<DestinationWord> {
  const word = await outcome(link, id, 'destination');
  return link === null || word === null ? 'unreachable' : destinationWordFromWire(word, link.name);
}

export async function askSource(link: PeerLink | null, id: string): Promise<SourceWord> {
  const word = await outcome(link, id, 'source');
  return link === null || word === null ? 'unreachable' : sourceWordFromWire(word, link.name);
}

async function outcome(link: PeerLink | null, id: string, role: 'source' | 'destination'): Promise<string | null> {
  if (link === null) return null;
  try {
    return (await link.rpc.call(rpc.outcome, { id, role }, { timeoutMs: askMs })).word;
  } catch {
    return null;
  }
}
