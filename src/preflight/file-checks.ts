/** On the destination: are the files that the tree needs here, and the same? (dangers.md 11, 43) */
import { type BigIntStats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf } from '../failure/phaul-error.js';
import { bootId } from '../host/tasks.js';
import type { MigrationOrder } from '../migration/order.js';
import type { Finding } from '../migration/ports.js';
import type { Destination } from './destination-checks.js';
import { hashFile, openToRead, readBuildId } from './file-proof.js';
import { findingsOf, type Say } from './finding.js';
import { provedFolders } from './nonces.js';
import { type FileFact, isWritten, type TreeFacts } from './tree-facts.js';
import { frozenHashBudget } from './written-files.js';

interface Scene {
  readonly facts: TreeFacts;
  readonly order: MigrationOrder;
  readonly proved: ReadonlySet<string>;
  readonly sameKernel: boolean;
  readonly signal: AbortSignal;
  readonly say: Say;
}

export async function checkFiles(
  facts: TreeFacts,
  order: MigrationOrder,
  destination: Destination,
  signal: AbortSignal,
): Promise<Finding[]> {
  const say = findingsOf(destination.host);
  const scene: Scene = {
    facts,
    order,
    proved: await provedFolders(facts.nonces),
    sameKernel: facts.bootId === bootId(),
    signal,
    say,
  };
  const findings: Finding[] = [];
  const unproved: FileFact[] = [];
  for (const fact of facts.files) {
    const verdict = await judge(fact, scene);
    if (verdict === 'unproved') unproved.push(fact);
    else if (verdict !== null) findings.push(verdict);
  }
  return [
    ...findings,
    ...checkNameless(scene),
    ...(order.filesAreSame ? [] : judgeUnproved(unproved, destination.comparesFrozenFiles, say)),
  ];
}

/** Code of the finding that says so of a file: the source then sends hashes from the freeze. */
export const comparedWhenFrozen = 'file-compared-when-frozen';

/** Files that are written to and could not be proved to be one file: their hashes must be compared while the tree is frozen. */
export async function writtenFilesToCompare(facts: TreeFacts): Promise<FileFact[]> {
  const proved = await provedFolders(facts.nonces);
  const sameKernel = facts.bootId === bootId();
  return facts.files.filter((fact) => {
    const here = look(fact.path);
    return fact.kind === 'file' && isWritten(fact) && (here === null || !isTheSame(fact, here, { proved, sameKernel }));
  });
}

async function judge(fact: FileFact, scene: Scene): Promise<Finding | 'unproved' | null> {
  const { say, order } = scene;
  const here = look(fact.path);
  const refuse = (code: string, what: string, why: string, remedy: string): Finding =>
    say('blocker', code, { what, why, remedy }, { pid: fact.pid, fd: fact.fd });
  if (here === null) {
    const what = `${fact.path} does not exist here (${describeUse(fact)}).`;
    return refuse('file-missing', what, 'The engine opens it again by its name.', remedyFor(fact));
  }
  const kind = kindOf(here);
  if (kind !== fact.kind || (fact.kind === 'device' && String(here.rdev) !== fact.deviceNumber)) {
    return refuse(
      'file-differs',
      `${fact.path} is another kind of file here (${kind}).`,
      'The engine opens it by its name.',
      remedyFor(fact),
    );
  }
  if (fact.kind === 'fifo') return judgeFifo(fact, here, scene, refuse);
  if (fact.kind !== 'file' || isTheSame(fact, here, scene)) return null;
  if (Number(here.mode) !== fact.mode) {
    const [there, mine] = [fact.mode & 0o7777, Number(here.mode) & 0o7777].map((mode) => mode.toString(8));
    return refuse(
      'file-differs',
      `${fact.path} has mode ${mine} here and ${there} on the source.`,
      'The engine compares the mode and refuses.',
      `chmod ${there} ${fact.path}`,
    );
  }
  if (order.filesAreSame) return null;
  if (Number(here.size) !== fact.bytes) {
    const what = `${fact.path} has ${here.size} bytes here and ${fact.bytes} on the source (${describeUse(fact)}).`;
    return refuse('file-differs', what, 'The process would go on with another file than it has open.', remedyFor(fact));
  }
  return isWritten(fact) ? 'unproved' : await compareContent(fact, scene.signal, refuse);
}

/** dangers.md 43: on one kernel a FIFO with one inode is one pipe; its data would double, or the restore would fail. */
function judgeFifo(
  fact: FileFact,
  here: BigIntStats,
  { sameKernel }: Scene,
  refuse: (code: string, what: string, why: string, remedy: string) => Finding,
): Finding | null {
  if (!sameKernel || String(here.dev) !== fact.device || String(here.ino) !== fact.inode) return null;
  return refuse(
    'fifo-on-one-kernel',
    `Both hosts run on one kernel and share the FIFO ${fact.path}.`,
    'It is one pipe for both: what is in it would be there twice, or the restore would fail.',
    'Give each host a folder of its own for it.',
  );
}

async function compareContent(
  fact: FileFact,
  signal: AbortSignal,
  refuse: (code: string, what: string, why: string, remedy: string) => Finding,
): Promise<Finding | 'unproved' | null> {
  if (fact.buildId === null && fact.hash === null) return 'unproved';
  await using file = await openToRead(fact.path);
  const stat = await file?.stat();
  const same =
    file !== null &&
    stat?.isFile() === true &&
    (fact.buildId !== null
      ? (await readBuildId(file)) === fact.buildId
      : (await hashFile(file, fact.bytes, signal)) === fact.hash);
  if (same) return null;
  const what = `${fact.path} has another ${fact.buildId === null ? 'content' : 'build id'} here (${describeUse(fact)}).`;
  return refuse('file-differs', what, 'The process would go on with another file than it has open.', remedyFor(fact));
}

/** Names that CRIU makes again: for deleted files their folder must be here, for linked ones the file itself. */
function checkNameless({ facts, say, proved, sameKernel }: Scene): Finding[] {
  const lacking = new Set([...facts.ghosts.map((ghost) => ghost.path)].map((path) => dirname(path)));
  const findings = [...lacking].flatMap((folder) => {
    const here = look(folder);
    if (here?.isDirectory() === true) return [];
    return [
      say('blocker', 'file-missing', {
        what: `There is no folder ${folder} here, where the tree has a deleted file open.`,
        why: 'The engine makes the file there again before it deletes it.',
        remedy: `mkdir -p ${folder}`,
      }),
    ];
  });
  const unlinked = facts.linkRemaps.filter(
    (path) => !proved.has(dirname(path)) && !(sameKernel && look(dirname(path)) !== null),
  );
  return [
    ...findings,
    ...unlinked.map((path) =>
      say('blocker', 'linked-file-elsewhere', {
        what: `${path} was deleted or replaced while open, lives on under another name, and its folder is not shared with this host.`,
        why: 'The engine gives it a name on the source and looks for that name here.',
        remedy: 'Let the program open the file again (reload or restart it), or use a shared file system.',
      }),
    ),
  ];
}

function judgeUnproved(unproved: readonly FileFact[], comparesFrozenFiles: boolean, say: Say): Finding[] {
  const bytes = unproved.reduce((sum, fact) => sum + fact.bytes, 0);
  const later = comparesFrozenFiles && bytes <= frozenHashBudget && unproved.every(isWritten);
  return unproved.map((fact) =>
    later
      ? say('note', comparedWhenFrozen, {
          what: `${fact.path} is written to and lies on different file systems.`,
          why: 'Its content is compared while the tree is frozen; if it differs then, the process goes on at the source.',
          remedy: 'Nothing to do.',
        })
      : say(
          'blocker',
          'file-unproved',
          {
            what: `${fact.path} could not be proved to be the same file on both hosts (${describeUse(fact)}).`,
            why: "If only name and size are the same, the process writes into a stranger's file.",
            remedy: 'Put it on a shared file system, or use --files-are-same if you know that it is.',
          },
          { pid: fact.pid, fd: fact.fd },
        ),
  );
}

/** One kernel with one device and inode, or a nonce seen beside it: the very same file. */
function isTheSame(
  fact: FileFact,
  here: BigIntStats,
  { proved, sameKernel }: Pick<Scene, 'proved' | 'sameKernel'>,
): boolean {
  if (sameKernel && String(here.dev) === fact.device && String(here.ino) === fact.inode) return true;
  return proved.has(dirname(fact.path));
}

function look(path: string): BigIntStats | null {
  try {
    return statSync(path, { bigint: true });
  } catch (thrown) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'ENAMETOOLONG', 'ENXIO'].includes(errnoOf(thrown) ?? '')) return null;
    throw thrown;
  }
}

function kindOf(stat: BigIntStats): FileFact['kind'] | 'another' {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'folder';
  if (stat.isFIFO()) return 'fifo';
  return stat.isCharacterDevice() ? 'device' : 'another';
}

function describeUse(fact: FileFact): string {
  const words: Readonly<Record<FileFact['uses'][number], string>> = {
    exe: 'the program itself',
    mapped: 'mapped into memory',
    'mapped-shared-writable': 'mapped and written to',
    read: 'open for reading',
    write: 'open for writing',
    folder: 'used as a folder',
  };
  return fact.uses.map((use) => words[use]).join(', ');
}

function remedyFor(fact: FileFact): string {
  if (fact.kind === 'folder') return `mkdir -p ${fact.path} here.`;
  if (fact.kind === 'fifo') return `mkfifo ${fact.path} here.`;
  if (isWritten(fact))
    return 'Put it on a file system that both hosts share, or copy it while the process does not write.';
  return `Copy it from the source (rsync -a), or install the same version of its package on both hosts.`;
}
