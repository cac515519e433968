/**
 * Programs as people run them, in a session of their own and with /dev/null for input and output: the checks must find
 * nothing against them. They listen on unix sockets only, so that nothing touches the machine's network.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { treeOf } from '../../src/host/tasks.js';
import { inspectTree } from '../../src/preflight/inspect-tree.js';
import { dumpableNode } from '../dumpable-node.js';
import { closingOthers, orderOf } from './preflight-actors.js';

let folder = '';
const started: ChildProcess[] = [];

beforeEach((context) => {
  if (process.getuid?.() !== 0) context.skip('the checks read /proc of other users: needs root');
  folder = mkdtempSync(join(tmpdir(), 'phaul-programs-'));
});

afterEach(async () => {
  for (const child of started.splice(0)) {
    const gone = child.exitCode === null && child.signalCode === null;
    for (const pid of treeOf(child.pid ?? 0)) process.kill(pid, 'SIGKILL');
    if (gone) await new Promise((resolve) => child.once('exit', resolve));
  }
  rmSync(folder, { recursive: true, force: true });
});

interface Program {
  readonly name: string;
  /** Must be there, or the case is skipped. */
  readonly binary: string;
  /** Its command line; `socket` is where it must listen. */
  command(socket: string): readonly string[];
  readonly prepare?: (socket: string) => void;
}

const postgresBinaries = '/usr/lib/postgresql/15/bin';

const programs: readonly Program[] = [
  {
    name: 'redis',
    binary: '/usr/bin/redis-server',
    command: (socket) => [
      'redis-server',
      '--port',
      '0',
      '--unixsocket',
      socket,
      '--dir',
      folder,
      '--appendonly',
      'yes',
    ],
  },
  {
    name: 'memcached',
    binary: '/usr/bin/memcached',
    command: (socket) => ['memcached', '-u', 'root', '-s', socket],
  },
  {
    name: 'nginx with two workers',
    binary: '/usr/sbin/nginx',
    prepare: (socket) =>
      writeFileSync(
        join(folder, 'nginx.conf'),
        `daemon off; user root; worker_processes 2; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
         events {} http { access_log ${folder}/access.log; server { listen unix:${socket}; } }`,
      ),
    command: () => ['nginx', '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')],
  },
  {
    name: 'node',
    binary: dumpableNode ?? 'node without io_uring',
    command: (socket) => [
      dumpableNode ?? '',
      '-e',
      `setInterval(() => require('fs').promises.stat('/'), 50); require('http').createServer((q, a) => a.end()).listen('${socket}')`,
    ],
  },
  {
    name: 'python with threads',
    binary: '/usr/bin/python3',
    command: (socket) => [
      'python3',
      '-c',
      `import asyncio, threading, time
for _ in range(4): threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
async def main():
    await (await asyncio.start_unix_server(lambda r, w: w.close(), '${socket}')).serve_forever()
asyncio.run(main())`,
    ],
  },
  {
    name: 'java',
    binary: '/usr/bin/java',
    prepare: () =>
      writeFileSync(
        join(folder, 'Server.java'),
        `import java.net.*; import java.nio.channels.*; import java.nio.file.Path;
         public class Server { public static void main(String[] words) throws Exception {
           var server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
           server.bind(UnixDomainSocketAddress.of(Path.of(words[0]))); while (true) server.accept().close(); } }`,
      ),
    command: (socket) => ['java', '-Xmx64m', join(folder, 'Server.java'), socket],
  },
  {
    name: 'PostgreSQL as its own user, in an IPC namespace of its own',
    binary: join(postgresBinaries, 'postgres'),
    prepare: () => {
      mkdirSync(join(folder, 'data'));
      const [uid, gid] = ['-u', '-g'].map((what) => Number(spawnSync('id', [what, 'postgres']).stdout));
      for (const each of [folder, join(folder, 'data')]) chownSync(each, uid ?? 0, gid ?? 0);
      const made = asPostgres(join(postgresBinaries, 'initdb'), '-N', '-D', join(folder, 'data'));
      const [program = '', ...words] = made;
      const { status, stderr } = spawnSync(program, words);
      if (status !== 0) throw new Error(`initdb: ${stderr}`);
    },
    command: () => [
      'unshare',
      '-i',
      ...asPostgres(
        join(postgresBinaries, 'postgres'),
        '-D',
        join(folder, 'data'),
        '-k',
        folder,
        '-c',
        'listen_addresses=',
      ),
    ],
  },
];

function asPostgres(...command: string[]): string[] {
  return ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--clear-groups', ...command];
}

test.for(programs)('nothing stands against $name', { timeout: 60_000 }, async (program, context) => {
  const { binary, command, prepare } = program;
  if (!existsSync(binary)) context.skip(`no ${binary} here`);
  const listening = program.name.startsWith('PostgreSQL') ? join(folder, '.s.PGSQL.5432') : join(folder, 'socket');
  prepare?.(listening);
  const child = spawn('bash', ['-c', closingOthers, 'bash', ...command(listening)], {
    detached: true,
    stdio: 'ignore',
    cwd: folder,
  });
  started.push(child);
  await expect.poll(() => existsSync(listening), { timeout: 40_000, interval: 50 }).toBe(true);

  await using inspection = await inspectTree(orderOf(child.pid ?? 0), 'here', new AbortController().signal);

  const against = inspection.findings.filter((finding) => finding.weight !== 'note');
  expect(against.map(({ weight, code, what }) => `${weight} ${code}: ${what}`)).toEqual([]);
  expect(inspection.tree.tasks.map((task) => task.pid)).toEqual(treeOf(child.pid ?? 0));
  expect(inspection.memoryBytes).toBeGreaterThan(1024 * 1024);
});
