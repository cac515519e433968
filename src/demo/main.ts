/** Entry of `./phaul demo`. */
import { runDemo } from './demo.js';

process.exitCode = await runDemo(process.argv.slice(2), (line) => process.stdout.write(`${line}\n`));
