/** What whoever recovers a migration has at hand. */
import type { Engine } from '../../criu/engine.js';
import type { AgentConfig } from '../config.js';

export interface RecoveryMeans {
  /** The operator's word that the source will not come back. */
  readonly sourceIsDead: boolean;
  readonly config: AgentConfig;
  readonly engine: () => Promise<Engine>;
}
