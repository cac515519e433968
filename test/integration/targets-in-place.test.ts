/** Each target is moved in place by plain CRIU: what fails here is the target's or the engine's, not phaul's. */
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { listTargets } from '../targets/catalog.js';
import { findCriu, moveInPlace } from '../targets/in-place.js';

const criu = findCriu();

describe.each(listTargets().map((target) => ({ name: target.name, target })))('target $name', ({ target }) => {
  test('verifies itself after dump and restore by plain criu', { timeout: 130_000 }, async (context) => {
    if (process.getuid?.() !== 0) return context.skip('needs root');
    if (criu === null) return context.skip('no criu: see ./phaul engine');
    if (!existsSync(target.program)) return context.skip('not built: make -C test/targets');
    const { result, details } = await moveInPlace(target, criu);
    if (result === 'skipped') return context.skip(details);
    if (result === 'failed' && target.knownLimit) return context.skip(`known limit of the engine: ${details}`);
    expect(result, details).toBe('passed');
  });
});
