/** Terminal recordings as asciicast v2 (docs.asciinema.org, manual/asciicast/v2): a header line, then `[seconds, "o", text]`. */
import { z } from 'zod';

export interface Frame {
  /** Since the start. */
  readonly seconds: number;
  readonly text: string;
}

export interface Cast {
  readonly title: string;
  readonly columns: number;
  readonly rows: number;
  readonly frames: readonly Frame[];
}

const header = z.object({ version: z.literal(2), width: z.number(), height: z.number(), title: z.string() });
const frame = z.tuple([z.number().nonnegative(), z.literal('o'), z.string()]);

/** Pieces of output that came this close together are one frame. Seconds. */
const together = 0.02;

export function encodeCast({ title, columns, rows, frames }: Cast): string {
  // idle_time_limit: players shorten the waits, the recording keeps them.
  const head = { version: 2, width: columns, height: rows, title, idle_time_limit: 2 };
  const lines = merged(frames).map(({ seconds, text }) => [Number(seconds.toFixed(3)), 'o', text]);
  return `${[head, ...lines].map((line) => JSON.stringify(line)).join('\n')}\n`;
}

/** Throws on anything that is no recording, and on times that go backwards. */
export function decodeCast(text: string): Cast {
  const [first = '', ...rest] = text.trimEnd().split('\n');
  const { title, width, height } = header.parse(JSON.parse(first));
  const frames = rest.map((line) => {
    const [seconds, , output] = frame.parse(JSON.parse(line));
    return { seconds, text: output };
  });
  frames.forEach(({ seconds }, at) => {
    if (seconds < (frames[at - 1]?.seconds ?? 0)) throw new Error(`frame ${at} is earlier than the one before`);
  });
  return { title, columns: width, rows: height, frames };
}

/** What stays on the screen, without colours and without lines that were overwritten. */
export function plainText(frames: readonly Frame[]): string {
  const text = frames.map((each) => each.text).join('');
  // ECMA-48: erase line after a carriage return, select graphic rendition.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  const kept = text.replace(/\r\u001b\[K/g, '\r').replace(/\u001b\[[0-9;]*m/g, '');
  return kept
    .split('\n')
    .map((line) => line.replace(/\r+$/, '').split('\r').at(-1) ?? '')
    .join('\n');
}

function merged(frames: readonly Frame[]): Frame[] {
  const result: { seconds: number; text: string }[] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const { seconds, text } of frames) {
    const current = result.at(-1);
    if (current !== undefined && seconds - last < together) current.text += text;
    else result.push({ seconds, text });
    last = seconds;
  }
  return result;
}
