/**
 * Clients of real programs, started inside the client host: `client.js KIND ADDRESS PORT CONNECTIONS`.
 *
 * Each connection asks again and again and knows which answer must come: a lost, doubled or forgotten request, or a server
 * that started anew, is a wrong answer. Prints JSON lines: `connected` when each had its first answer; on SIGUSR2 `mark`
 * with the answers of each connection since the last mark; on SIGTERM `summary` with all that was wrong.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Conversation, startConversation } from './conversations.js';

/** Answers that are due longer than this count as never coming, ms: far above any stall, TCP's back-off included. */
const patienceMs = 20_000;

interface Talker {
  readonly conversation: Conversation;
  answers: number;
  sinceMark: number;
}

const [kind = '', address = '', port = '', connections = '1'] = process.argv.slice(2);
const wrong: string[] = [];
let longestMs = 0;
let ending = false;

function say(line: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function askOnce(talker: Talker): Promise<void> {
  const patience = new AbortController();
  const tooLong = sleep(patienceMs, undefined, { signal: patience.signal }).then(
    () => Promise.reject(new Error(`no answer within ${patienceMs} ms`)),
    () => {},
  );
  const start = performance.now();
  try {
    await Promise.race([talker.conversation.ask(), tooLong]);
  } finally {
    patience.abort();
  }
  longestMs = Math.max(longestMs, performance.now() - start);
  talker.answers++;
  talker.sinceMark++;
}

async function keepAsking(number: number, talker: Talker): Promise<void> {
  try {
    while (!ending) {
      await askOnce(talker);
      await sleep(5);
    }
    await talker.conversation.finish();
  } catch (error) {
    wrong.push(
      `connection ${number} after ${talker.answers} answers: ${error instanceof Error ? error.message : error}`,
    );
  }
}

async function main(): Promise<void> {
  const talkers: Talker[] = [];
  for (let i = 0; i < Number(connections); i++) {
    const conversation = await startConversation(kind, address, Number(port));
    talkers.push({ conversation, answers: 0, sinceMark: 0 });
  }
  await Promise.all(talkers.map(askOnce));
  // Before `connected`, which invites signals. Not SIGUSR1: Node starts its debugger on it.
  process.on('SIGTERM', () => {
    ending = true;
  });
  process.on('SIGUSR2', () => {
    say({ event: 'mark', answers: talkers.map(({ sinceMark }) => sinceMark) });
    for (const talker of talkers) talker.sinceMark = 0;
  });
  say({ event: 'connected', connections: talkers.length });
  await Promise.all(talkers.map((talker, number) => keepAsking(number, talker)));
  const answers = talkers.map((talker) => talker.answers);
  say({ event: 'summary', answers, wrong, longest_ms: Math.round(longestMs) });
  process.exit(wrong.length === 0 ? 0 : 1);
}

await main();
