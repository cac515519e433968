/** Tables of the benchmarks, for people. */
import type { Report } from '../../src/migration/report.js';

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** NaN for no values at all. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** First column to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  for (const row of [head, ...rows]) {
    print(
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join('   '),
    );
  }
}

/** Both hosts are one machine here, so their clocks are one and their steps can be put in one order. */
export function printSteps(reports: readonly Report[]): void {
  const merged = reports.map((report) =>
    [
      ...report.timeline.source.map(({ step, at }) => ({ step: `source: ${step}`, at })),
      ...report.timeline.destination.map(({ step, at }) => ({ step: `destination: ${step}`, at })),
    ].sort((one, other) => one.at - other.at),
  );
  const steps = merged[0]?.map((each) => each.step) ?? [];
  const rows = steps.map((step) => {
    const spans = merged.flatMap((line) => {
      const index = line.findIndex((each) => each.step === step);
      const [here, before] = [line[index], line[index - 1]];
      return here && before ? [here.at - before.at] : [];
    });
    const since = merged.flatMap((line) => {
      const here = line.find((each) => each.step === step);
      return here && line[0] ? [here.at - line[0].at] : [];
    });
    return [step, spans.length === 0 ? '' : median(spans).toFixed(1), median(since).toFixed(1)];
  });
  table(['step', 'ms', 'since freeze'], rows);
}
