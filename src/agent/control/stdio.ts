/** `phaul agent --stdio`: a relay between the ssh connection and the agent of this host, and nothing else (dangers.md 6). */
import { connect } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { messageOf, PhaulError } from '../../failure/phaul-error.js';

/** Ends when either side does. Throws `no-agent`. */
export function relay(socketPath: string, input: Readable, output: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path: socketPath });
    socket.once('error', (cause) => {
      reject(
        new PhaulError({
          code: 'no-agent',
          what: `no agent answers on ${socketPath}: ${messageOf(cause)}`,
          remedy: 'start one with `phaul agent --daemon`',
          cause,
        }),
      );
    });
    socket.once('connect', () => {
      socket.once('close', () => resolve());
      // The ssh connection is gone: so is this relay, not the agent.
      output.once('error', () => socket.destroy());
      input.once('error', () => socket.destroy());
      input.pipe(socket).pipe(output);
    });
  });
}
