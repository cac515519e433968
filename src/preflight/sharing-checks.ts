/**
 * Things that live in the kernel and are also held by processes that stay (dangers.md 12): the dump and the restore go
 * well, and a second later the program writes into a pipe that nobody reads.
 */
import { isShared, isWritable } from '../host/mappings.js';
import type { Finding } from '../migration/ports.js';
import type { Look } from './look.js';
import { heldThing, mappedThing, type Outsider, type SeenFile } from './snapshot.js';
import { hasBothEnds, isNamedByOperator, isRewired } from './stdio.js';

const stdioRemedy =
  'start it with its input and output in files, or say --stdio null or --stdio file:PATH for descriptors 0-2';

/** Pipes, FIFOs, sockets, terminals and nameless files that an outsider holds too; each once. */
export function checkSharedFiles({ snapshot, order, say }: Look): Finding[] {
  const findings = new Map<string, Finding>();
  for (const file of snapshot.tasks.flatMap((task) => task.files)) {
    const thing = heldThing(file.target, () => file.stat);
    const outsider = thing === null ? undefined : snapshot.heldOutside.get(thing);
    if (thing === null || outsider === undefined || findings.has(thing)) continue;
    const rewired = isRewired(file, order) && !(file.target.startsWith('pipe:') && hasBothEnds(snapshot, file.target));
    if (rewired || isNamedByOperator(file, order.engine)) continue;
    const finding = sharedFile(file, outsider, say, order.shellJob);
    if (finding !== null) findings.set(thing, finding);
  }
  return [...findings.values()];
}

function sharedFile(file: SeenFile, outsider: Outsider, say: Look['say'], shellJob: boolean): Finding | null {
  const holder = `pid ${outsider.pid} (${outsider.comm}) holds it as descriptor ${outsider.fd}`;
  const refuse = (code: string, thing: string, remedy: string): Finding =>
    say(
      'blocker',
      code,
      {
        what: `Descriptor ${file.fd} of pid ${file.pid} is ${thing} that a process outside the tree also holds: ${holder}.`,
        why: 'That process stays here. On the destination its end would be missing, and the program would notice when it uses it.',
        remedy,
      },
      file,
    );
  if (file.target.startsWith('pipe:')) {
    return refuse(
      'pipe-shared',
      `a pipe (${file.target})`,
      `Move both ends in one tree, ${stdioRemedy}, or name it by --inherit-fd.`,
    );
  }
  if (file.target.startsWith('socket:')) {
    return refuse(
      'socket-shared',
      `a socket (${file.target})`,
      'Close it in one of the two, or move both in one tree.',
    );
  }
  if (file.target.startsWith('/dev/pts/')) {
    // The other end of a terminal is judged by checkTerminals.
    return shellJob
      ? null
      : refuse('terminal-shared', `a terminal (${file.target})`, `Use --shell-job, or ${stdioRemedy}.`);
  }
  if (file.stat?.isFIFO() === true) {
    return refuse('fifo-shared', `a FIFO (${file.target})`, 'Move both ends in one tree.');
  }
  // A deleted file on a disk is copied as a ghost: then there are two of it, which only matters to who writes.
  if (!file.target.startsWith('/memfd:') && (file.flags & 0o3) === 0) return null;
  return refuse(
    'memory-shared',
    `a nameless file (${file.target})`,
    'Close it in one of the two, or move both in one tree.',
  );
}

/** Memory that an outsider maps too. A file with a name is the outsider's to read; nameless memory and what both write to is lost. */
export function checkSharedMemory({ snapshot, say }: Look): Finding[] {
  const findings = new Map<string, Finding>();
  for (const { stat, mappings } of snapshot.tasks) {
    for (const mapping of mappings.filter(isShared)) {
      const thing = mappedThing(mapping);
      const outsider = snapshot.mappedOutside.get(thing);
      const nameless = mapping.path.endsWith(' (deleted)') || mapping.path.startsWith('/SYSV');
      if (outsider === undefined || findings.has(thing) || !(isWritable(mapping) || nameless)) continue;
      findings.set(
        thing,
        say(
          'blocker',
          'memory-shared',
          {
            what: `Pid ${stat.pid} shares memory (${mapping.path}) with a process outside the tree: pid ${outsider.pid} (${outsider.comm}).`,
            why: 'On two hosts they would write to two copies.',
            remedy: 'Move both in one tree, or end the other one.',
          },
          { pid: stat.pid, fd: null },
        ),
      );
    }
  }
  return [...findings.values()];
}

/** Unix sockets whose other end stays. Streams cannot move; datagrams are connected again by path (`--ext-unix-sk`). */
export function checkUnixPeers({ snapshot, order, say }: Look): Finding[] {
  const inside = new Set(snapshot.tasks.flatMap((task) => task.files.flatMap((file) => socketInode(file) ?? [])));
  const judged = new Set<number>();
  return snapshot.tasks.flatMap((task) =>
    task.files.flatMap((file): Finding[] => {
      const socket = snapshot.unix.get(socketInode(file) ?? -1);
      if (socket === undefined || judged.has(socket.inode)) return [];
      judged.add(socket.inode);
      if (socket.peer === 0 || inside.has(socket.peer) || isNamedByOperator(file, order.engine)) return [];
      const peer = snapshot.unix.get(socket.peer);
      const name = peer?.name ?? null;
      const outsider = snapshot.heldOutside.get(`socket:[${socket.peer}]`);
      const other =
        name ?? (outsider === undefined ? `socket ${socket.peer}` : `pid ${outsider.pid} (${outsider.comm})`);
      if (socket.type === 'datagram' && name?.startsWith('/') === true) {
        return [
          say(
            'note',
            'external-unix-socket',
            {
              what: `Descriptor ${file.fd} of pid ${file.pid} sends datagrams to ${other}, outside the tree.`,
              why: 'It is connected to the same path on the destination: --ext-unix-sk is set.',
              remedy: 'Nothing to do.',
            },
            file,
          ),
        ];
      }
      return [
        say(
          'blocker',
          'unix-peer-outside',
          {
            what: `Descriptor ${file.fd} of pid ${file.pid} is a unix ${socket.type} socket to ${other}, outside the tree.`,
            why: 'That process stays here, and a connection through the kernel of this host cannot reach the other one.',
            remedy: 'Close the connection, or move the process on its other end in the same tree.',
          },
          file,
        ),
      ];
    }),
  );
}

/** Inode of a socket by what /proc/PID/fd says, or null. */
export function socketInode(file: { readonly target: string }): number | null {
  const inode = /^socket:\[(\d+)\]$/.exec(file.target)?.[1];
  return inode === undefined ? null : Number(inode);
}

/**
 * Pipes with one kind of end only: the other one is closed, or held where this host cannot see it. In the first pid
 * namespace nothing is hidden (proc_ns.h PROC_PID_INIT_INO).
 */
export function checkUnseenPipeEnds({ snapshot, order, say }: Look): Finding[] {
  if (snapshot.own.pid === 'pid:[4026531836]') return [];
  const byPipe = new Map<string, SeenFile[]>();
  for (const file of snapshot.tasks.flatMap((task) => task.files)) {
    if (file.target.startsWith('pipe:[')) byPipe.set(file.target, [...(byPipe.get(file.target) ?? []), file]);
  }
  return [...byPipe].flatMap(([pipe, files]): Finding[] => {
    const [file] = files;
    const oneKind = new Set(files.map((each) => each.flags & 0o3)).size === 1 && (file?.flags ?? 2) % 4 !== 2;
    if (file === undefined || !oneKind || snapshot.heldOutside.has(pipe) || isRewired(file, order)) return [];
    if (isNamedByOperator(file, order.engine)) return [];
    return [
      say(
        'warning',
        'pipe-end-unseen',
        {
          what: `Nobody who can be seen here holds the other end of the pipe at descriptor ${file.fd} of pid ${file.pid} (${pipe}).`,
          why: 'It is closed, or held outside of this pid namespace; then the program would be cut off from it.',
          remedy: `If it is still in use, ${stdioRemedy}.`,
        },
        file,
      ),
    ];
  });
}
