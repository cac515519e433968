/**
 * Dumps and restores one target in place with plain CRIU, in namespaces of its own: shows that the target itself can be
 * moved, before phaul has any part in it.
 */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../src/native/addon.js';
import type { Target } from './catalog.js';

export interface Outcome {
  readonly result: 'passed' | 'failed' | 'skipped';
  /** The target's report after the restore, or what went wrong. */
  readonly details: string;
  readonly ms: number;
}

/** One target moves well within this; a hang must not stop the others. */
const timeLimitMs = 120_000;

/** The engine that the tests use; null: there is none. */
export function findCriu(): string | null {
  const places = [process.env.PHAUL_CRIU, '/opt/phaul-criu/bin/criu'];
  return places.find((place) => place !== undefined && place !== '' && existsSync(place)) ?? null;
}

/** Dumps and restores the target once; never throws for what the target or CRIU do. */
export async function moveInPlace(target: Target, criu: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), `phaul-target-${target.name}-`));
  chmodSync(folder, 0o755); // A target that gives root up must still reach its report.
  const start = performance.now();
  const ended = (result: Outcome['result'], details: string): Outcome => ({
    result,
    details: details.trim(),
    ms: Math.round(performance.now() - start),
  });
  try {
    const { code, output } = await runScript(target, criu, folder);
    if (code === 0) return ended('passed', output);
    if (code === 77) return ended('skipped', output);
    return ended('failed', output === '' ? `no answer within ${timeLimitMs / 1000} s` : output);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runScript(
  target: Target,
  criu: string,
  folder: string,
): Promise<{ code: number | null; output: string }> {
  const preload = join(packageRoot, 'build', 'prlimit-preload.so');
  const unshare = spawn(
    'unshare',
    [
      ...['--fork', '--kill-child=KILL', '--pid', '--mount', '--net', '--propagation', 'private'],
      ...['bash', '-c', script, 'bash', target.program, criu, folder],
      ...[target.ownIpcNamespace ? 'unshare -i' : '', existsSync(preload) ? preload : ''],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeLimitMs, killSignal: 'SIGKILL' },
  );
  let output = '';
  for (const stream of [unshare.stdout, unshare.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    unshare.once('error', reject);
    unshare.once('close', resolve);
  });
  return { code, output };
}

/**
 * Pid 1 of the namespaces: reaps, as bash does. CRIU's own nftables lock keeps loopback connections of the tree quiet until
 * all their ends are there (danger 17a).
 */
const script = `
program=$1 criu=$2 folder=$3 unshare=$4 preload=$5
mount -t proc proc /proc
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
ip link set lo up
mkdir "$folder/work" "$folder/images"
cd "$folder/work"
exec 2>"$folder/stderr" # where bash says of each child that it was killed

await() { for i in $(seq 600); do [ -e "$1" ] && return 0; alive || return 1; sleep 0.05; done; return 1; }
alive() { [ -z "$pid" ] || grep -qs '^State:.[^Z]' "/proc/$pid/status"; }
ask() {
  rm -f "$folder/work/report"
  kill -USR1 "$pid"
  await "$folder/work/report" || { echo "$1: no report"; tail -n 3 "$folder/output"; exit 1; }
  grep -q '^ok ' "$folder/work/report" || { echo "$1: $(cat "$folder/work/report")"; exit 1; }
}
blame() { echo "$1 failed"; grep -h Error "$folder/images/$1.log" | head -n 8; exit 1; }
run_criu() { LD_PRELOAD=$preload "$criu" "$@" >>"$folder/images/criu.out" 2>&1 </dev/null; }

echo 4999 > /proc/sys/kernel/ns_last_pid
setsid $unshare "$program" --control "$folder/work/ready" --report "$folder/work/report" </dev/null >>"$folder/output" 2>&1 &
pid=$!
await "$folder/work/ready" || { wait $pid; code=$?; cat "$folder/output"; [ $code = 77 ] && exit 77; exit 1; }
ask before
flags="-v2 -D $folder/images --tcp-established --file-locks --link-remap --ext-unix-sk --ghost-limit 67108864"
flags="$flags --network-lock nftables --manage-cgroups=ignore"
run_criu dump -t $pid $flags -o dump.log || blame dump
wait $pid 2>/dev/null
run_criu restore -d $flags -o restore.log || blame restore
nft flush ruleset
ask after
ask again
kill -TERM "$pid"
cut -c4- "$folder/work/report"
`;
