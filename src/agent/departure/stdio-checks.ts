/** Can what `--stdio` and `--inherit-fd` name be opened on this host? Looks only; stdio-ends.ts opens. */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { PhaulError } from '../../failure/phaul-error.js';
import type { MigrationOrder } from '../../migration/order.js';
import type { Finding } from '../../migration/ports.js';
import { parseInheritFd } from '../arrival/stdio-inherit.js';

export function checkStdio({ stdio, engine }: MigrationOrder, host: string): Finding[] {
  const refuse = (code: string, what: string, why: string, remedy: string): Finding => ({
    ...{ code, weight: 'blocker', host, what, why, remedy, pid: null, fd: null },
  });
  const findings = engine.inheritFd.flatMap((word) => {
    try {
      const { path } = parseInheritFd(word);
      if (statSync(path, { throwIfNoEntry: false }) !== undefined) return [];
      const what = `There is no ${path} on ${host}, which --inherit-fd names.`;
      return [
        refuse('inherit-fd-wrong', what, 'It cannot be opened for the process.', 'Name a path that exists there.'),
      ];
    } catch (thrown) {
      if (!(thrown instanceof PhaulError)) throw thrown;
      return [refuse(thrown.code, `${thrown.message}.`, 'The engine could not be told.', thrown.remedy)];
    }
  });
  if (stdio.kind !== 'file' || canTakeOutput(stdio.path)) return findings;
  const what = `The output of the process cannot go to ${stdio.path} on ${host}.`;
  const remedy = 'Name a file in a folder that exists on the destination: --stdio file:PATH.';
  return [...findings, refuse('stdio-file-wrong', what, 'It is no file, and none can be made there.', remedy)];
}

/** A file or a device, or a name for one; a FIFO would only begin with a reader. */
function canTakeOutput(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat !== undefined) return stat.isFile() || stat.isCharacterDevice();
  return statSync(dirname(path), { throwIfNoEntry: false })?.isDirectory() === true;
}
