/**
 * A program that dumps itself: `node criu-self-dump.js IMAGES ENGINE-JSON`. It counts up to the dump, and when it wakes up
 * again it writes what it has been told and what it remembers to IMAGES/told.
 */
import { appendFileSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Engine } from '../../src/criu/engine.js';
import { EngineSession } from '../../src/criu/session.js';

const [folder = '', engineText = ''] = process.argv.slice(2);
const engine = JSON.parse(engineText) as Engine;
const memory = Math.random();
const tell = (what: object): void => appendFileSync(join(folder, 'told'), `${JSON.stringify({ ...what, memory })}\n`);

const images = openSync(folder, 'r');
const session = await EngineSession.startApart({ engine, cgroup: null, inherit: [images], logFolder: folder });
await session.featureCheck();
tell({ dumping: true });
const answer = await session.selfDump({
  imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`,
  logFile: 'dump.log',
  logLevel: 2,
  networkLock: 'skip',
  manageCgroups: 'ignore',
});
tell(answer);
process.exit(0);
