/** Runs a program without a shell, with bounded output and a time limit. */
import { spawn } from 'node:child_process';
import { errnoOf, PhaulError } from '../failure/phaul-error.js';

export interface CommandOptions {
  /** Standard input, or null for an empty one. */
  readonly input: string | null;
  /** ms; then the program is killed. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface CommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

// More than any answer that is parsed here; a program gone wild must not fill the memory.
const maxOutputBytes = 16 * 1024 * 1024;

/**
 * Runs `argv` and returns its output.
 * @throws PhaulError `command-missing` when there is no such program, `command-failed` when it cannot be started, ends with another code than 0, by a signal, too late,
 *   or prints more than 16 MiB; the reason of `signal` when that is aborted.
 */
export async function runCommand(argv: readonly string[], options: CommandOptions): Promise<CommandOutput> {
  const [program = '', ...words] = argv;
  options.signal.throwIfAborted();
  return await new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'] });
    const output = { stdout: [] as Buffer[], stderr: [] as Buffer[], bytes: 0 };
    let ended: string | null = null;
    const end = (why: string) => {
      ended ??= why;
      child.kill('SIGKILL');
    };
    const onAbort = () => end('ended');
    const timer = setTimeout(() => end(`took longer than ${options.timeoutMs} ms`), options.timeoutMs);
    options.signal.addEventListener('abort', onAbort, { once: true });
    const settle = () => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', onAbort);
    };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].on('data', (chunk: Buffer) => {
        output.bytes += chunk.length;
        if (output.bytes > maxOutputBytes) end('printed too much');
        else output[name].push(chunk);
      });
    }
    child.on('error', (cause) => {
      settle();
      reject(commandFailed(argv, `could not be started: ${cause.message}`, cause));
    });
    child.on('close', (code, signal) => {
      settle();
      const stdout = Buffer.concat(output.stdout).toString('utf8');
      const stderr = Buffer.concat(output.stderr).toString('utf8');
      if (options.signal.aborted) return reject(options.signal.reason as Error);
      if (ended === null && code === 0) return resolve({ stdout, stderr });
      const why = ended ?? (code === null ? `was killed by ${signal}` : `ended with code ${code}`);
      return reject(commandFailed(argv, `${why}${stderr === '' ? '' : `: ${stderr.trim().slice(0, 2000)}`}`));
    });
    // A program that does not read its input (EPIPE) tells by its exit code what was wrong.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** Debian packages of the programs that phaul runs. */
const packages: Readonly<Record<string, string>> = {
  nft: 'nftables',
  ip: 'iproute2',
  ss: 'iproute2',
  openssl: 'openssl',
  systemctl: 'systemd',
};

function commandFailed(argv: readonly string[], why: string, cause?: unknown): PhaulError {
  if (errnoOf(cause) === 'ENOENT') {
    const [program = ''] = argv;
    return new PhaulError({
      code: 'command-missing',
      what: `The program ${program} is not on this host.`,
      remedy: `Install it (apt-get install ${packages[program] ?? program}), or run ./phaul setup.`,
      cause,
    });
  }
  return new PhaulError({
    code: 'command-failed',
    what: `\`${argv.join(' ')}\` ${why}`,
    remedy: `Run it by hand on this host to see what it lacks.`,
    cause,
  });
}
