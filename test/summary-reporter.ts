/** Writes each result as one JSON line as soon as it is known, so that a run that had to be ended still counts. */
import { appendFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestCase, TestModule } from 'vitest/node';

export interface ResultLine {
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** Why it was skipped, or what failed. */
  readonly note: string;
}

export class SummaryReporter implements Reporter {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  onTestCaseResult(testCase: TestCase): void {
    const result = testCase.result();
    if (result.state === 'pending') return;
    const name = `${testCase.module.relativeModuleId} > ${testCase.fullName}`;
    const note = result.state === 'skipped' ? (result.note ?? '') : (result.errors?.[0]?.message ?? '');
    this.#write({ name, state: result.state, note });
  }

  /** A file that could not be loaded, or whose hooks failed, has no failed test of its own. */
  onTestModuleEnd(testModule: TestModule): void {
    for (const error of testModule.errors()) {
      this.#write({ name: testModule.relativeModuleId, state: 'failed', note: error.message });
    }
    for (const suite of testModule.children.allSuites()) {
      for (const error of suite.errors()) {
        this.#write({
          name: `${testModule.relativeModuleId} > ${suite.fullName}`,
          state: 'failed',
          note: error.message,
        });
      }
    }
  }

  onTestRunEnd(_modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    for (const error of unhandled) this.#write({ name: 'outside of any test', state: 'failed', note: error.message });
  }

  #write(line: ResultLine): void {
    appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
  }
}
