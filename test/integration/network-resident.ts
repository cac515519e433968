/**
 * A process inside a namespace of network-lab.ts: runs the function bodies that a test sends, one JSON line each, with
 * all of src/network in `net`, and keeps what they put into `state`. Started by `ip netns exec`.
 */
import * as dgram from 'node:dgram';
import * as sockets from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import * as address from '../../src/network/address.js';
import * as addressChecks from '../../src/network/address-checks.js';
import * as announce from '../../src/network/announce.js';
import * as connectionChecks from '../../src/network/connection-checks.js';
import * as connections from '../../src/network/connections.js';
import * as destinationFence from '../../src/network/destination-fence.js';
import * as interfaces from '../../src/network/interfaces.js';
import * as leftovers from '../../src/network/leftovers.js';
import * as lockTable from '../../src/network/lock-table.js';
import * as movedAddress from '../../src/network/moved-address.js';
import * as packetChecksum from '../../src/network/packet-checksum.js';
import * as replayer from '../../src/network/replayer.js';
import * as procSockets from '../../src/network/sockets.js';
import * as sourceCatcher from '../../src/network/source-catcher.js';
import * as sourceFence from '../../src/network/source-fence.js';

const net = {
  ...address,
  ...addressChecks,
  ...announce,
  ...connectionChecks,
  ...connections,
  ...destinationFence,
  ...interfaces,
  ...leftovers,
  ...lockTable,
  ...movedAddress,
  ...replayer,
  ...procSockets,
  ...packetChecksum,
  ...sourceCatcher,
  ...sourceFence,
};
const world = { net, state: {}, sockets, dgram, sleep, signal: new AbortController().signal };

const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
  ...words: string[]
) => (...values: unknown[]) => Promise<unknown>;

for await (const line of createInterface({ input: process.stdin })) {
  const { body } = JSON.parse(line) as { body: string };
  try {
    const value = await new AsyncFunction(...Object.keys(world), body)(...Object.values(world));
    console.log(JSON.stringify({ value: value ?? null }));
  } catch (failure) {
    console.log(
      JSON.stringify({ error: failure instanceof Error ? (failure.stack ?? failure.message) : String(failure) }),
    );
  }
}
