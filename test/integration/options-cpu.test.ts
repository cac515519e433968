/** The check of CPUs with a real engine: the same CPU passes, one that lacks an instruction does not. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';
import { checkCpu, describeCpu, ignoresCpu } from '../../src/agent/departure/cpu-check.js';
import { type Engine, findEngine } from '../../src/criu/engine.js';
import { messageOf } from '../../src/failure/phaul-error.js';

let engine: Engine | null = null;
let reason = '';
const cache = mkdtempSync(join(tmpdir(), 'phaul-cpu-test-'));
beforeAll(async () => {
  try {
    engine = await findEngine(cache);
  } catch (thrown) {
    reason = messageOf(thrown);
  }
});
afterAll(() => rmSync(cache, { recursive: true }));

function found(context: TestContext): Engine {
  context.skip(engine === null, reason);
  return engine as Engine;
}

/** The same image of a CPU that can more: every whole capability word (field 6, a varint of 5 bytes) has all its bits. */
function withEveryCapability(cpuInfo: string): string {
  const image = Buffer.from(cpuInfo, 'base64');
  let words = 0;
  for (let at = 0; at + 6 <= image.length; at++) {
    const [key = 0, ...varint] = image.subarray(at, at + 6);
    const last = varint.pop() ?? 0;
    if (key !== 0x30 || last < 1 || last > 15 || varint.some((byte) => byte < 0x80)) continue;
    image.set([0xff, 0xff, 0xff, 0xff, 0x0f], at + 1);
    words++;
  }
  expect(words).toBeGreaterThan(1);
  return image.toString('base64');
}

test('the same CPU can run it', async (context) => {
  const criu = found(context);
  expect(await checkCpu(await describeCpu(criu), criu, null, 'b')).toEqual([]);
});

test('a CPU that lacks instructions of the source is a blocker', async (context) => {
  const criu = found(context);
  const findings = await checkCpu(withEveryCapability(await describeCpu(criu)), criu, null, 'b');
  expect(findings).toMatchObject([{ code: 'cpu-incompatible', weight: 'blocker', host: 'b' }]);
});

test('what is compared is the operator to say', async (context) => {
  const criu = found(context);
  const more = withEveryCapability(await describeCpu(criu));
  // CPU_CAP_CPU: every bit must be the same.
  expect(await checkCpu(more, criu, 0b10, 'b')).toMatchObject([{ code: 'cpu-incompatible' }]);
  expect([ignoresCpu(0), ignoresCpu(null), ignoresCpu(5)]).toEqual([true, false, false]);
});

test('what is no image of a CPU is a blocker too', async (context) => {
  const criu = found(context);
  const garbage = Buffer.from('no image').toString('base64');
  expect(await checkCpu(garbage, criu, null, 'b')).toMatchObject([{ code: 'cpu-incompatible' }]);
});
