/**
 * Runs tutorials as they stand in docs/tutorials:
 *
 *     node dist/test/tutorials/run.js [NAME...]            all of them, or these
 *     node dist/test/tutorials/run.js --record [NAME...]   and keeps the terminal's output as docs/tutorials/NAME.cast
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeCast } from './cast.js';
import { hindrance, tutorialFolder, tutorials } from './catalog.js';
import { perform } from './stage.js';

const record = process.argv.includes('--record');
const names = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const unknown = names.find((name) => !tutorials.some((tutorial) => tutorial.name === name));
if (unknown !== undefined) {
  process.stderr.write(`there is no tutorial ${unknown}: ${tutorials.map(({ name }) => name).join(', ')}\n`);
  process.exit(2);
}

for (const tutorial of tutorials.filter(({ name }) => names.length === 0 || names.includes(name))) {
  const why = hindrance(tutorial);
  if (why !== null) {
    process.stdout.write(`skipped: ${tutorial.name}: ${why}\n`);
    continue;
  }
  process.stdout.write(`\n==== ${tutorial.name}\n`);
  const { exitCode, cast, privatePaths } = await perform(tutorial, (text) => process.stdout.write(text));
  const text = encodeCast(cast);
  const shown = privatePaths.find((path) => text.includes(path));
  if (exitCode !== 0 || shown !== undefined) {
    const what = exitCode === 0 ? `it shows ${shown}, which is of this machine` : `it ended with exit code ${exitCode}`;
    process.stderr.write(`${tutorial.name}: ${what}; nothing was recorded\n`);
    process.exitCode = 1;
  } else if (record) {
    writeFileSync(join(tutorialFolder, `${tutorial.name}.cast`), text);
  }
}
