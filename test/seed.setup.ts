/** Runs before each test file: property tests take the seed of the run. */
import fc from 'fast-check';
import { count, seed } from './sample.js';

fc.configureGlobal({ seed, numRuns: count(100, 2000) });
