/** Sessions and terminals: what a tree started from a shell has and a service has not. */
import type { Finding } from '../migration/ports.js';
import type { Look } from './look.js';
import { isNamedByOperator, isRewired } from './stdio.js';

const shellJob =
  'Use --shell-job (it then gets a new terminal), or start it with setsid and its input and output in files.';

/** Without --shell-job the engine takes only a tree whose root leads its own session, and no part of another one's. */
export function checkSessions({ snapshot, order, say }: Look): Finding[] {
  if (order.shellJob) return [];
  const root = snapshot.tasks.find((task) => task.stat.pid === snapshot.root);
  if (root === undefined || root.stat.session === root.stat.pid) return [];
  return [
    say(
      'blocker',
      'session-outside',
      {
        what: `Process ${root.stat.pid} belongs to the session of pid ${root.stat.session}, which does not move.`,
        why: 'A session cannot be on two hosts.',
        remedy: shellJob,
      },
      { pid: root.stat.pid, fd: null },
    ),
  ];
}

/** Terminals whose master is outside; those whose master is in the tree move with it. */
export function checkTerminals({ snapshot, order, say }: Look): Finding[] {
  if (order.shellJob) return [];
  const masters = new Set(snapshot.tasks.flatMap((task) => task.files.flatMap((file) => file.ttyIndex ?? [])));
  const judged = new Set<string>();
  return snapshot.tasks.flatMap((task) =>
    task.files.flatMap((file): Finding[] => {
      const index = /^\/dev\/pts\/(\d+)$/.exec(file.target)?.[1];
      if (index === undefined || masters.has(Number(index)) || judged.has(file.target)) return [];
      if (isRewired(file, order) || isNamedByOperator(file, order.engine)) return [];
      judged.add(file.target);
      return [
        say(
          'blocker',
          'terminal-outside',
          {
            what: `Descriptor ${file.fd} of pid ${file.pid} is the terminal ${file.target}, which another process shows.`,
            why: 'The terminal window stays here.',
            remedy: `${shellJob.slice(0, -1)}, or say --stdio null or --stdio file:PATH.`,
          },
          file,
        ),
      ];
    }),
  );
}

/** Numbers of the ptys whose master is in the tree; the destination must have them free. */
export function ptysInside({ snapshot }: Pick<Look, 'snapshot'>): number[] {
  return [...new Set(snapshot.tasks.flatMap((task) => task.files.flatMap((file) => file.ttyIndex ?? [])))];
}
