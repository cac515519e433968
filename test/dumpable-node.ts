/**
 * A Node.js that CRIU can dump, as a program to move. From libuv 1.49 or so on (Node 22) each event loop keeps io_uring
 * descriptors on a new kernel, whatever UV_USE_IO_URING says, and CRIU cannot dump those. The program is asked, not its version.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const countRings = `setTimeout(() => {
  const { readdirSync, readlinkSync } = require('fs');
  const targets = readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync('/proc/self/fd/' + fd); } catch { return ''; } });
  process.exit(targets.some((target) => target.includes('io_uring')) ? 3 : 0);
}, 20)`;

/** This node, else Debian's; null where neither can be dumped. */
export const dumpableNode: string | null =
  [process.execPath, '/usr/bin/node'].find(
    (program) => existsSync(program) && spawnSync(program, ['-e', countRings]).status === 0,
  ) ?? null;
