/** The two ways to move a tree in these tests: phaul, and plain CRIU in place as a control. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabHost } from '../../../src/lab/lab-host.js';
import { packageRoot } from '../../../src/native/addon.js';
import { findCriu } from '../../targets/in-place.js';

/** Runs `phaul migrate`; throws with what it said. */
export async function moveByPhaul(from: LabHost, to: LabHost, pid: number, flags: readonly string[]): Promise<void> {
  const finished = await from.phaul(['migrate', String(pid), to.name, '--json', ...flags], { timeoutMs: 90_000 });
  if (finished.exitCode === 0) return;
  const lines = finished.stdout.trim().split('\n').slice(-3).join('\n');
  throw new Error(`phaul migrate ended with ${finished.exitCode ?? finished.signal}: ${finished.stderr}\n${lines}`);
}

/** Dumps and restores on the same host. CRIU's own nftables lock keeps the clients' packets away in between. */
export async function moveByCriu(host: LabHost, pid: number, flags: readonly string[], images: string): Promise<void> {
  mkdirSync(images, { recursive: true });
  const words = ['-v2', '-D', images, '--tcp-established', '--file-locks', '--link-remap', '--ext-unix-sk', ...flags];
  words.push('--ghost-limit', '67108864', '--network-lock', 'nftables', '--manage-cgroups=ignore');
  const env = { LD_PRELOAD: join(packageRoot, 'build', 'prlimit-preload.so') };
  const criu = findCriu() ?? 'criu';
  // A job comes back to the terminal from which it is restored; that one stays until the host ends.
  const terminal = flags.includes('--shell-job') ? ['bash', '-c', onTerminal, 'bash', join(images, 'code')] : [];
  const steps = [
    [criu, 'dump', '-t', String(pid), ...words, '-o', 'dump.log'],
    [...terminal, criu, 'restore', '-d', ...words, '-o', 'restore.log'],
  ];
  for (const step of steps) {
    const finished = await host.run(step, { env, stdio: 'ignore', timeoutMs: 60_000 });
    if (finished.exitCode === 0) continue;
    const logs = readdirSync(images).filter((name) => name.endsWith('.log'));
    const lines = logs.flatMap((name) => readFileSync(join(images, name), 'utf8').split('\n'));
    throw new Error(`${step.join(' ')} failed: ${lines.filter((line) => line.includes('Error')).join('\n')}`);
  }
  await host.check(['nft', 'flush', 'ruleset']);
  await rm(images, { recursive: true });
}

const onTerminal = `
code=$1; shift
setsid script -qfc "$(printf '%q ' "$@"); echo \\$? >$code; exec sleep infinity" /dev/null </dev/null >/dev/null 2>&1 &
until [ -s "$code" ]; do sleep 0.02; done
exit "$(cat "$code")"
`;
