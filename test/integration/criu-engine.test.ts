/** Which engine is taken, and what keeps one from being taken. */
import { chmodSync, chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { canRestore, findEngine, parseVersion } from '../../src/criu/engine.js';
import { Folder } from './criu-support.js';

const before = process.env['PHAUL_CRIU'];

afterEach(() => {
  if (before === undefined) delete process.env['PHAUL_CRIU'];
  else process.env['PHAUL_CRIU'] = before;
});

/** A program that answers VERSION with the given bytes of criu_version, and leaves at the next request. */
function pretender(folder: Folder, version: number[]): string {
  const path = join(folder.path, 'criu');
  const response = [0x08, 10, 0x10, 1, 0x52, version.length, ...version].map(
    (byte) => `\\x${byte.toString(16).padStart(2, '0')}`,
  );
  writeFileSync(
    path,
    `#!/usr/bin/perl\nopen(S, "+<&=", $ARGV[1]) or die; sysread(S, $r, 65536); syswrite(S, "${response.join('')}"); sysread(S, $r, 65536);\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

describe('an engine is refused', () => {
  test('when it is older than the kernel needs', async () => {
    using folder = new Folder();
    process.env['PHAUL_CRIU'] = pretender(folder, [0x08, 3, 0x10, 17, 0x20, 1]);
    await expect(findEngine(null)).rejects.toMatchObject({
      code: 'no-engine',
      message: expect.stringMatching(/version 3\.17\.1, but kernel \S+ needs >= 4\./),
      remedy: expect.stringMatching(/unset/),
    });
  });

  test('when its version is right but a trial dump does not work', async () => {
    using folder = new Folder();
    process.env['PHAUL_CRIU'] = pretender(folder, [0x08, 4, 0x10, 99]);
    await expect(findEngine(null)).rejects.toMatchObject({ code: 'no-engine' });
  });

  test('when it is no CRIU, or is not there', async () => {
    process.env['PHAUL_CRIU'] = '/bin/true';
    await expect(findEngine(null)).rejects.toThrow(/\/bin\/true: CRIU has ended without an answer/);
    process.env['PHAUL_CRIU'] = '/nonexistent/criu';
    await expect(findEngine(null)).rejects.toThrow(/\/nonexistent\/criu: .*(ENOENT|executed)/);
  });
});

test('an engine that is found is remembered, and a spoilt memory is made anew', async (context) => {
  using folder = new Folder();
  const found = await findEngine(null).catch((thrown: unknown) => String(thrown));
  if (typeof found === 'string') return context.skip(found);
  expect(found.version.major).toBeGreaterThanOrEqual(4);
  const run = join(folder.path, 'run');
  expect(await findEngine(run)).toEqual(found);
  expect(existsSync(join(run, 'engine.json'))).toBe(true);
  expect(await findEngine(run)).toEqual(found);
  for (const spoilt of ['{"key"', '{"key":"of another boot","proof":{}}', '7']) {
    writeFileSync(join(run, 'engine.json'), spoilt);
    expect(await findEngine(run)).toEqual(found);
    expect(readFileSync(join(run, 'engine.json'), 'utf8')).toContain(found.path);
  }
});

test('a proof that somebody else could have written is not believed', async (context) => {
  using folder = new Folder();
  const found = await findEngine(folder.path).catch((thrown: unknown) => String(thrown));
  if (typeof found === 'string') return context.skip(found);
  const cache = join(folder.path, 'engine.json');
  writeFileSync(cache, readFileSync(cache, 'utf8').replaceAll(String(found.pageServerHeaderBytes), '99'));
  chownSync(cache, 65534, 65534);
  expect((await findEngine(folder.path)).pageServerHeaderBytes).toBe(found.pageServerHeaderBytes);
});

describe('versions', () => {
  test('of a destination are the same or newer, and speak the same page protocol', () => {
    const version = (text: string) => parseVersion(text) ?? { major: 0, minor: 0, sublevel: 0 };
    expect(canRestore(version('4.2.1'), version('4.2'))).toBe(true);
    expect(canRestore(version('4.3'), version('4.2.1'))).toBe(true);
    expect(canRestore(version('4.2'), version('4.2.1'))).toBe(false);
    expect(canRestore(version('4.2.1'), version('4.1.1'))).toBe(false);
    expect(canRestore(version('4.1.1'), version('4.1'))).toBe(true);
  });

  test('that are none are refused', () => {
    for (const text of ['', '4', '4.2.1.1', '4.x', ' 4.2', '4.2\n', '99999.1']) expect(parseVersion(text)).toBeNull();
  });
});
