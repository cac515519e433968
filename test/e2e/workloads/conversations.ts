/** What a client says to each kind of program, and which answer alone is right. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ByteStream } from './byte-stream.js';

export interface Conversation {
  /** One request and its answer. Throws when it is not the one that must come, or the connection is broken. */
  ask(): Promise<void>;
  /** Last words: what must hold for all requests together. */
  finish(): Promise<void>;
}

const kinds: Readonly<Record<string, (address: string, port: number) => Promise<Conversation>>> = {
  redis: startRedis,
  memcached: startMemcached,
  http: startHttp,
  udp: startUdp,
  postgres: startPostgres,
};

export async function startConversation(kind: string, address: string, port: number): Promise<Conversation> {
  const start = kinds[kind];
  if (start === undefined) throw new Error(`no client for ${kind}: ${Object.keys(kinds).join(', ')}`);
  return await start(address, port);
}

function mustBe(what: string, got: string, expected: string): void {
  if (got !== expected) throw new Error(`${what}: '${got}' instead of '${expected}'`);
}

/** A counter of this connection only: each answer is exactly one more than the last. */
async function startRedis(address: string, port: number): Promise<Conversation> {
  const stream = await ByteStream.connect(address, port);
  const key = `counter:${process.pid}:${stream.localPort}`;
  let count = 0;
  const command = async (...words: string[]): Promise<string> => {
    stream.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`);
    return await stream.line();
  };
  return {
    async ask() {
      count++;
      mustBe('INCR', await command('INCR', key), `:${count}`);
    },
    async finish() {
      mustBe('length of GET', await command('GET', key), `$${String(count).length}`);
      mustBe('GET', await stream.line(), String(count));
    },
  };
}

async function startMemcached(address: string, port: number): Promise<Conversation> {
  const stream = await ByteStream.connect(address, port);
  const key = `counter-${process.pid}-${stream.localPort}`;
  let count = 0;
  stream.write(`set ${key} 0 0 1\r\n0\r\n`);
  mustBe('set', await stream.line(), 'STORED');
  return {
    async ask() {
      count++;
      stream.write(`incr ${key} 1\r\n`);
      mustBe('incr', await stream.line(), String(count));
    },
    async finish() {},
  };
}

/** The server answers `PORT COUNT [TICKS]`: our port, the number of requests of this connection, a clock of its own. */
async function startHttp(address: string, port: number): Promise<Conversation> {
  const stream = await ByteStream.connect(address, port);
  let count = 0;
  let ticks = 0;
  return {
    async ask() {
      count++;
      stream.write('GET /count HTTP/1.1\r\nHost: moved\r\n\r\n');
      mustBe('status', await stream.line(), 'HTTP/1.1 200 OK');
      let length = 0;
      for (let head = await stream.line(); head !== ''; head = await stream.line()) {
        length = Number(/^content-length: *(\d+)/i.exec(head)?.[1] ?? length);
      }
      const [portSeen = '', countSeen = '', ticksSeen = '0'] = (await stream.bytes(length)).trim().split(' ');
      mustBe('our port', portSeen, String(stream.localPort));
      mustBe('requests of this connection', countSeen, String(count));
      if (Number(ticksSeen) < ticks) throw new Error(`the program's clock went back from ${ticks} to ${ticksSeen}`);
      ticks = Number(ticksSeen);
    },
    async finish() {},
  };
}

/** Datagrams may be lost and are sent again; what the server has counted may not be. */
async function startUdp(address: string, port: number): Promise<Conversation> {
  const socket: DatagramSocket = createSocket('udp4');
  let number = 0;
  let answer: string | null = null;
  socket.on('message', (message) => {
    const text = message.toString('latin1');
    if (text.startsWith(`${number} `)) answer = text;
  });
  socket.on('error', () => {}); // ICMP says that nobody listened: a lost datagram, sent again below
  socket.connect(port, address);
  await once(socket, 'connect');
  return {
    async ask() {
      number++;
      answer = null;
      for (let look = 0; answer === null; look++) {
        if (look % 100 === 0) socket.send(String(number), () => {});
        await sleep(2);
      }
      mustBe('numbers counted', answer, `${number} ${number}`);
    },
    async finish() {
      socket.close();
    },
  };
}

/** psql inside one open transaction: rows that nobody else can see are still there, under the same transaction number. */
async function startPostgres(address: string, port: number): Promise<Conversation> {
  const psql = spawn('psql', ['-h', address, '-p', String(port), '-U', 'postgres', '-XqAt', '-d', 'postgres'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, PGCONNECT_TIMEOUT: '10' },
  });
  const lines = createInterface({ input: psql.stdout })[Symbol.asyncIterator]();
  const query = async (sql: string): Promise<string> => {
    psql.stdin.write(`${sql}\n`);
    const line = await lines.next();
    if (line.done === true) throw new Error('psql has ended');
    return line.value;
  };
  const table = `moved_${process.pid}_${psql.pid}`;
  const transaction = await query(`BEGIN; CREATE TABLE ${table} (n int); SELECT txid_current();`);
  let count = 0;
  return {
    async ask() {
      count++;
      const sql = `INSERT INTO ${table} VALUES (${count}); SELECT count(*), sum(n), txid_current() FROM ${table};`;
      mustBe('rows', await query(sql), `${count}|${(count * (count + 1)) / 2}|${transaction}`);
    },
    async finish() {
      mustBe('rows after COMMIT', await query(`COMMIT; SELECT count(*) FROM ${table};`), String(count));
      await ended(psql);
    },
  };
}

async function ended(psql: ChildProcess): Promise<void> {
  psql.stdin?.end();
  if (psql.exitCode === null) await once(psql, 'exit');
}
