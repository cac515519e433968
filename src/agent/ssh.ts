import type { AgentConfig } from './config.js';
import type { PeerLink } from './peer-link.js';
export async function dialSsh(
  _to: { user: string; host: string; port: number },
  _config: AgentConfig,
  _signal?: AbortSignal,
): Promise<PeerLink> {
  throw new Error('not yet');
}
