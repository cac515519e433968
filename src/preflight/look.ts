/** What a check of the source sees. */
import type { MigrationOrder } from '../migration/order.js';
import type { Say } from './finding.js';
import type { Snapshot } from './snapshot.js';

export interface Look {
  readonly snapshot: Snapshot;
  readonly order: MigrationOrder;
  readonly say: Say;
}
