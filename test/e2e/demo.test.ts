/** `./phaul demo` as a user runs it, small. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cgroup2Mount } from '../../src/lab/lab-cgroup.js';
import { packageRoot } from '../../src/native/addon.js';

interface DemoRun {
  readonly code: number | null;
  readonly output: string;
  /** In the name of all that the run has made. */
  readonly labId: string;
}

async function demo(onLine: (line: string, pid: number) => void = () => {}): Promise<DemoRun> {
  const child = spawn(process.execPath, [join(packageRoot, 'dist', 'src', 'demo', 'main.js'), '--mib', '8'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      for (const line of text.split('\n')) onLine(line, child.pid ?? 0);
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output, labId: /phaul-demo-[0-9a-f]+/.exec(output)?.[0] ?? 'none' };
}

const devices = (): string[] => readdirSync('/sys/class/net').sort();

function leftBehind(labId: string): string[] {
  const folders = [tmpdir(), cgroup2Mount() ?? tmpdir()];
  return folders.flatMap((folder) => readdirSync(folder)).filter((name) => name.includes(labId));
}

describe.skipIf(process.getuid?.() !== 0)('./phaul demo (needs root)', () => {
  it('ends well twice in a row, side by side with another, and leaves nothing behind', async () => {
    const before = devices();
    const runs = [await demo(), ...(await Promise.all([demo(), demo()]))];
    for (const run of runs) {
      expect(run.code, run.output).toBe(0);
      expect(run.output).toContain('20 of 20 kept, same ports');
      expect(run.output).toContain('0 bad pages');
      expect(leftBehind(run.labId)).toEqual([]);
    }
    expect(new Set(runs.map((run) => run.labId)).size).toBe(3);
    expect(devices()).toEqual(before);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('ended by %s it cleans up, and says that it was ended', async (signal) => {
    const run = await demo((line, pid) => {
      if (line.startsWith('A server on host a')) process.kill(pid, signal);
    });
    expect(run.output).toContain(`interrupted by ${signal}`);
    expect(run.code).toBe(1);
    expect(leftBehind(run.labId)).toEqual([]);
  });

  it('refuses wrong arguments', async () => {
    const child = spawn(process.execPath, [join(packageRoot, 'dist', 'src', 'demo', 'main.js'), '--mib', 'lots']);
    expect((await once(child, 'exit'))[0]).toBe(2);
  });
});
