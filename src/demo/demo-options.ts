/** Arguments of `./phaul demo`. */
import { parseArgs } from 'node:util';
import { messageOf, PhaulError } from '../failure/phaul-error.js';

export interface DemoOptions {
  /** Memory of the server, MiB. */
  readonly memoryMib: number;
  readonly connections: number;
  readonly help: boolean;
}

export const demoUsage = `./phaul demo [--mib N] [--connections N]

Makes two isolated hosts on this machine, starts a TCP server with clients on host a, moves it to host b with
\`phaul migrate\`, and reports what the clients have seen. Nothing of it stays.

  --mib N           memory of the server, verified page by page after the move (default 256)
  --connections N   clients with a live connection; one more keeps connecting anew (default 20)
`;

/** Throws `demo-usage`. */
export function parseDemoOptions(args: readonly string[]): DemoOptions {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        mib: { type: 'string', default: '256' },
        connections: { type: 'string', default: '20' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    return {
      memoryMib: whole('--mib', values.mib, 1, 65_536),
      connections: whole('--connections', values.connections, 1, 1000),
      help: values.help,
    };
  } catch (cause) {
    throw new PhaulError({ code: 'demo-usage', what: messageOf(cause), remedy: 'see ./phaul demo --help', cause });
  }
}

function whole(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new Error(`${option} takes a whole number from ${least} to ${most}, not ${text}`);
}
