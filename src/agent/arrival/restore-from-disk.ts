/** Behind COMMIT, after a crash: the process is made again from the images, which stay until it runs (dangers.md 4). */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine } from '../../criu/engine.js';
import { neverAborted } from '../../failure/never-aborted.js';
import { migrationFolder } from '../../host/state.js';
import type { JournalState } from '../../migration/journal.js';
import type { CaughtPackets, Running } from '../../migration/ports.js';
import { Timeline } from '../../migration/report.js';
import { parseLandingRequest } from '../control/order-schema.js';
import type { JournalFile } from '../recovery/journal-file.js';
import { parseTravellingFacts } from '../travelling-facts.js';
import { CopyMaker } from './copy-maker.js';
import { LandingSite } from './landing-site.js';

export interface RestoreMeans {
  readonly engine: Engine;
  readonly packets: CaughtPackets;
  readonly journal: JournalFile;
}

export async function restoreFromDisk(
  state: JournalState,
  { engine, packets, journal }: RestoreMeans,
): Promise<Running> {
  const { id } = state.opened;
  const request = parseLandingRequest(JSON.stringify(state.opened.request));
  const { loopbackPorts } = parseTravellingFacts(request.treeFacts).network;
  const imagesFolder = join(migrationFolder(id), 'images');
  const timeline = new Timeline();
  if (!state.committed) await journal.write({ record: 'committed' });
  const site = await LandingSite.survey({ id, addresses: request.order.addresses, loopbackPorts }, neverAborted);
  const maker = new CopyMaker({ request, engine, imagesFolder, site });
  const { pid, replayed, remarks } = await maker.letGo(packets, timeline).catch(async (thrown: unknown) => {
    // It is tried again every few seconds: neither CRIU nor a TUN of this try may stay.
    site.leave();
    await maker[Symbol.asyncDispose]();
    throw thrown;
  });
  await journal.write({ record: 'running', pid });
  await site.settle(neverAborted);
  if (!request.order.keepImages) await rm(imagesFolder, { recursive: true, force: true });
  await journal.write({ record: 'closed', outcome: 'moved', note: 'restored again by recovery' });
  return {
    pid,
    timeline: timeline.steps,
    replayedPackets: replayed,
    remarks: ['the copy was restored again from its images', ...remarks],
    imagesFolder: request.order.keepImages ? imagesFolder : null,
  };
}
