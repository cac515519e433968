/** The proof that an engine works: it dumps a child of ours that listens on TCP. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { asFailure, PhaulError } from '../failure/phaul-error.js';
import type { Engine } from './engine.js';
import { EngineSession } from './session.js';

// In a network namespace of its own, so that no port of the host is used; its loopback must be up, because a CRIU that
// starts in there probes the kernel over it. 0x8914 is SIOCSIFFLAGS (netdevice(7)), 1 is IFF_UP.
const listening = `
  use Socket;
  my $up = pack("a16 s x14", "lo", 1);
  socket(S, PF_INET, SOCK_STREAM, 0) && ioctl(S, 0x8914, $up) or die "lo: $!";
  bind(S, sockaddr_in(0, INADDR_LOOPBACK)) && listen(S, 1) or die "listen: $!";
  syswrite(STDOUT, "listening");
  open(STDOUT, ">", "/dev/null");
  open(STDERR, ">", "/dev/null");
  sleep 60 while 1;`;

/** The child dies with its dump, the images are removed. Throws the CriuError, `no-trial` or `trial-dump-failed`. */
export async function trialDump(engine: Engine): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'phaul-trial-'));
  const child = spawn('unshare', ['--net', 'perl', '-e', listening], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
    env: { PATH: process.env['PATH'] },
  });
  try {
    const pid = await untilListening(child);
    await using images = await open(folder, 'r');
    await using session = EngineSession.start({
      engine,
      cgroup: null,
      inherit: [images.fd],
      logFolder: folder,
      launcher: ['nsenter', `--net=/proc/${pid}/ns/net`],
    });
    await session.featureCheck();
    await session.dump(
      {
        pid,
        imagesDir: `/proc/self/fd/${session.inheritedFd(0)}`,
        logFile: 'dump.log',
        logLevel: 2,
        networkLock: 'skip',
        manageCgroups: 'ignore',
      },
      () => ({ success: true }),
    );
  } catch (thrown) {
    throw asFailure(thrown, { code: 'trial-dump-failed', what: 'its trial dump failed', remedy: 'use another CRIU' });
  } finally {
    child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
}

/** Resolves with the pid when the child listens and has closed its pipes to us, which CRIU could not dump. */
async function untilListening({ pid, stdout, stderr }: ChildProcessByStdio<null, Readable, Readable>): Promise<number> {
  const [said, complaint] = await Promise.all([text(stdout), text(stderr)]);
  if (pid === undefined || said !== 'listening') {
    throw new PhaulError({
      code: 'no-trial',
      what: `the process for the trial dump could not be started: ${complaint.trim() || 'no perl or unshare'}`,
      remedy: 'install perl-base and util-linux, and run as root',
    });
  }
  return pid;
}
