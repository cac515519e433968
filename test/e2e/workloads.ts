/**
 * The real programs that every release must move: source to destination and back again, with clients attached that know
 * the one right answer to each request.
 */

import { chownSync, copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StartOrder } from '../../src/lab/lab-host.js';
import { packageRoot } from '../../src/native/addon.js';
import { dumpableNode } from '../dumpable-node.js';
import { ClientWitness, NumberedFileWitness, TargetWitness } from './workloads/witnesses.js';
import { type Place, programOf, type Workload } from './workloads/workload.js';

const programs = join(packageRoot, 'test', 'e2e', 'workloads', 'programs');

/** Clients of one workload: enough to have several at every stage of a request. */
const connections = 8;

/** Starts a program whose output is a file of its folder, and waits until its port answers. */
async function startListening(place: Place, argv: readonly string[], order: StartOrder = {}): Promise<number> {
  const output = join(place.folder, 'output');
  const pid = await place.host.startAtHighPid(argv, { pid: place.pid, output, folder: place.folder, ...order });
  const probe = `for i in $(seq 600); do (exec 3<>/dev/tcp/$1/$2) 2>/dev/null && exit 0; sleep 0.05; done; exit 1`;
  const { exitCode } = await place.host.run(['bash', '-c', probe, 'bash', place.address, String(place.port)]);
  if (exitCode !== 0) throw new Error(`${argv[0]} does not listen: ${readFileSync(output, 'utf8').slice(-800)}`);
  return pid;
}

const redis: Workload = {
  name: 'redis-server',
  needs: [{ program: 'redis-server', apt: 'redis-server' }],
  flags: [],
  hasAddress: true,
  async start(place) {
    const options = {
      port: place.port,
      bind: place.address,
      dir: place.folder,
      appendonly: 'yes',
      save: '',
      'protected-mode': 'no',
    };
    const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    return await startListening(place, [programOf('redis-server'), ...words]);
  },
  attend: (place, client) => ClientWitness.start(client, 'redis', place, connections),
};

const nginx: Workload = {
  name: 'nginx',
  needs: [{ program: 'nginx', apt: 'nginx-light' }],
  flags: [],
  hasAddress: true,
  async start(place) {
    const config = join(place.folder, 'nginx.conf');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    writeFileSync(
      config,
      `daemon off; pid ${place.folder}/nginx.pid; error_log ${place.folder}/error.log; worker_processes 2;
       events { worker_connections 256; }
       http {
         access_log ${place.folder}/access.log;
         ${temporary.map((name) => `${name}_temp_path ${place.folder}/${name};`).join(' ')}
         keepalive_requests 1000000; keepalive_timeout 600s;
         server { listen ${place.address}:${place.port}; location / { return 200 "$remote_port $connection_requests\\n"; } }
       }`,
    );
    return await startListening(place, [programOf('nginx'), '-p', place.folder, '-c', config]);
  },
  attend: (place, client) => ClientWitness.start(client, 'http', place, connections),
};

const memcached: Workload = {
  name: 'memcached',
  needs: [{ program: 'memcached', apt: 'memcached' }],
  flags: [],
  hasAddress: true,
  start: (place) =>
    startListening(place, [
      ...[programOf('memcached'), '-u', 'root', '-l', place.address, '-p', String(place.port), '-m', '16'],
    ]),
  attend: (place, client) => ClientWitness.start(client, 'memcached', place, connections),
};

const node: Workload = {
  name: 'node',
  needs: dumpableNode === null ? [{ program: 'a node without io_uring', apt: 'nodejs' }] : [],
  flags: [],
  hasAddress: true,
  start: (place) => startListening(place, [dumpableNode ?? '', join(programs, 'counter.mjs'), ...whereTo(place)]),
  attend: (place, client) => ClientWitness.start(client, 'http', place, connections),
};

/** Public: the case with separate file systems uses it, too. */
export const pythonAsyncio: Workload = {
  name: 'python3 asyncio',
  needs: [{ program: 'python3', apt: 'python3' }],
  flags: [],
  hasAddress: true,
  async start(place) {
    // Its program is a file of its own host: it must be there on both.
    const program = join(place.folder, 'counter.py');
    copyFileSync(join(programs, 'counter.py'), place.host.outside(program));
    return await startListening(place, [programOf('python3'), program, ...whereTo(place)], { output: '/dev/null' });
  },
  attend: (place, client) => ClientWitness.start(client, 'http', place, connections),
};

const java: Workload = {
  name: 'java',
  needs: [
    { program: 'java', apt: 'openjdk-17-jre-headless' },
    { program: 'javac', apt: 'openjdk-17-jdk-headless' },
  ],
  flags: [],
  hasAddress: true,
  async start(place) {
    await place.host.check([programOf('javac'), '-d', place.folder, join(programs, 'Counter.java')]);
    const argv = [programOf('java'), '-Xmx64m', '-cp', place.folder, 'Counter', place.address, String(place.port)];
    return await startListening(place, argv);
  },
  attend: (place, client) => ClientWitness.start(client, 'http', place, connections),
};

const udp: Workload = {
  name: 'UDP server',
  needs: [{ program: 'python3', apt: 'python3' }],
  flags: [],
  hasAddress: true,
  async start(place) {
    const argv = [programOf('python3'), join(programs, 'udp_counter.py'), place.address, String(place.port)];
    return await place.host.startAtHighPid(argv, { pid: place.pid, folder: place.folder });
  },
  attend: (place, client) => ClientWitness.start(client, 'udp', place, connections),
};

/** A job of an interactive shell: its terminal's master is outside the tree. */
const pipeline: Workload = {
  name: 'shell pipeline on a terminal',
  needs: [{ program: 'script', apt: 'bsdutils' }],
  flags: ['--shell-job'],
  hasAddress: false,
  async start(place) {
    const command = `exec sh ${join(programs, 'pipeline.sh')} ${join(place.folder, 'numbers')}`;
    const argv = [programOf('script'), '-qfc', command, '/dev/null'];
    const script = await place.host.startAtHighPid(argv, { pid: place.pid, folder: place.folder });
    await sleep(500);
    const children = place.host.outside(`/proc/${script}/task/${script}/children`);
    return Number(readFileSync(children, 'utf8').trim());
  },
  attend: async (place) => new NumberedFileWitness(join(place.folder, 'numbers')),
};

const postgresFolder = '/usr/lib/postgresql';

function postgresProgram(name: string): string {
  const versions = readdirSync(postgresFolder).map(Number).filter(Number.isFinite);
  return join(postgresFolder, String(Math.max(...versions)), 'bin', name);
}

const postgres: Workload = {
  name: 'PostgreSQL, open transactions',
  needs: [
    { program: `${postgresFolder}`, apt: 'postgresql' },
    { program: 'psql', apt: 'postgresql-client' },
  ],
  flags: [],
  hasAddress: true,
  async start(place) {
    const data = join(place.folder, 'data');
    const own = await place.host.check(['id', '-u', 'postgres']);
    mkdirSync(data, { mode: 0o700 });
    for (const folder of [data, place.folder]) chownSync(folder, Number(own), 0);
    const asPostgres = ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', '--no-new-privs'];
    const trust = ['--auth=trust', '--no-sync', '--username=postgres'];
    await place.host.check([...asPostgres, postgresProgram('initdb'), '-D', data, ...trust]);
    writeFileSync(join(data, 'pg_hba.conf'), 'host all all all trust\n');
    const settings = {
      listen_addresses: place.address,
      port: place.port,
      unix_socket_directories: place.folder,
      fsync: 'off',
      shared_buffers: '16MB',
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    // CRIU takes System V memory only along with its IPC namespace.
    const argv = ['unshare', '-i', ...asPostgres, postgresProgram('postgres'), '-D', data, ...options];
    return await startListening(place, argv);
  },
  attend: (place, client) => ClientWitness.start(client, 'postgres', place, 4),
};

const threadedServer: Workload = {
  name: 'multi-threaded C server',
  needs: [],
  flags: [],
  hasAddress: true,
  async start(place) {
    const server = join(packageRoot, 'build', 'targets', 'server');
    const argv = [server, '--bind', place.address, '--port', String(place.port), '--threads', '8', '--mib', '32'];
    return await startListening(place, [...argv, '--dirty-rate', '200', '--report', join(place.folder, 'report')]);
  },
  attend: (place, client) => TargetWitness.start(client, place, connections),
};

function whereTo(place: Place): string[] {
  return [place.address, String(place.port), place.folder];
}

export const workloads: readonly Workload[] = [
  redis,
  nginx,
  memcached,
  node,
  pythonAsyncio,
  java,
  udp,
  pipeline,
  postgres,
  threadedServer,
];
