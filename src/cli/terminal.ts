/** What goes to the terminal: one status line that is overwritten, lines that stay, and nothing that could steer it. */

/** ESC, CSI and other controls of a text that came from elsewhere, shown instead of obeyed. Line feeds stay. */
export function harmless(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

/** Lines to stderr, with one status line below them when it is a terminal. */
export class Terminal {
  readonly #out: NodeJS.WriteStream;
  #status = '';

  constructor(out: NodeJS.WriteStream = process.stderr) {
    this.#out = out;
  }

  line(text: string): void {
    const status = this.#status;
    this.status('');
    this.#out.write(`${harmless(text)}\n`);
    this.status(status);
  }

  /** Replaces the status line; without a terminal there is none. */
  status(text: string): void {
    if (!this.#out.isTTY || text === this.#status) return;
    // Carriage return, erase to the end of the line (ECMA-48 EL).
    this.#out.write(`\r\u001b[K${harmless(text).slice(0, (this.#out.columns ?? 80) - 1)}`);
    this.#status = text;
  }
}

/** Columns aligned by two spaces; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function milliseconds(ms: number): string {
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(1)} ms`;
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = count / 1024;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value.toFixed(1)} ${units[unit]}`;
}
