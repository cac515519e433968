/** The tutorials do what they say: each script runs to its end, and its recording shows the script as it is today. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/native/addon.js';
import { decodeCast, encodeCast, plainText } from '../tutorials/cast.js';
import { hindrance, tutorialFolder, tutorials } from '../tutorials/catalog.js';
import { perform } from '../tutorials/stage.js';

/** Remarks and commands, as they stand at the prompts; pids differ from run to run. */
function commands(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => /^(# |(a|b|client)# )/.test(line))
    .map((line) => line.replace(/\b4\d{3}\b/g, 'PID'));
}

describe.each(tutorials)('tutorial $name', (tutorial) => {
  const castFile = join(tutorialFolder, `${tutorial.name}.cast`);

  test('runs, and its recording shows the same commands', { timeout: 120_000 }, async (ctx) => {
    const why = hindrance(tutorial);
    if (why !== null) return ctx.skip(why);
    const { exitCode, cast, privatePaths } = await perform(tutorial);
    const text = plainText(cast.frames);
    expect(exitCode, text).toBe(0);
    const encoded = encodeCast(cast);
    for (const path of privatePaths) expect(encoded).not.toContain(path);
    expect(commands(plainText(decodeCast(readFileSync(castFile, 'utf8')).frames))).toEqual(commands(text));
  });

  test('its recording is small and shows nothing of the machine that made it', () => {
    const recorded = readFileSync(castFile, 'utf8');
    expect(decodeCast(recorded).frames.length).toBeGreaterThan(10);
    expect(recorded.length).toBeLessThan(40_000);
    for (const place of ['/work', '/tmp', '/home', packageRoot]) expect(recorded).not.toContain(place);
  });

  test('has a text that names its script and its recording', () => {
    const text = readFileSync(join(tutorialFolder, `${tutorial.name}.md`), 'utf8');
    for (const file of [`${tutorial.name}.sh`, `${tutorial.name}.cast`]) {
      expect(text).toContain(`(${file})`);
      expect(existsSync(join(tutorialFolder, file))).toBe(true);
    }
  });
});
