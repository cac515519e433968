import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ensureDaemon } from '../../src/agent/control/daemon.js';
import { packageRoot } from '../../src/native/addon.js';
import { codeOf, Folder } from './control-support.js';

const listener = `
  const { createServer } = require('node:net');
  console.error('pid ' + process.pid);
  createServer((socket) => socket.destroy()).listen(process.argv[2]);
`;

function plan(folder: Folder, script: string) {
  const program = join(folder.path, 'agent.cjs');
  const socketPath = join(folder.path, 'agent.sock');
  writeFileSync(program, script);
  return { socketPath, stateDirectory: join(folder.path, 'state'), argv: [program, socketPath] };
}

describe('a daemonised agent', () => {
  it('danger 6: has a session of its own and a private log, and is started once', async () => {
    using folder = new Folder();
    const daemon = plan(folder, listener);
    expect(await ensureDaemon(daemon)).toBe(true);
    const log = join(daemon.stateDirectory, 'agent.log');
    const pid = Number(/^pid (\d+)$/m.exec(readFileSync(log, 'utf8'))?.[1]);
    try {
      expect(await ensureDaemon(daemon)).toBe(false);
      expect(statSync(log).mode & 0o777).toBe(0o600);
      expect(statSync(daemon.stateDirectory).mode & 0o777).toBe(0o700);
      // Fields 6 and 7 of proc(5) stat: session, controlling terminal (0: none).
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ');
      expect([Number(fields[3]), Number(fields[4])]).toEqual([pid, 0]);
      expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toContain('UV_THREADPOOL_SIZE=');
      const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
      if (cgroup !== readFileSync('/proc/self/cgroup', 'utf8')) expect(cgroup).toContain('/phaul-agent');
    } finally {
      process.kill(pid, 'SIGKILL');
    }
  });

  it('that does not come up is told with the end of its log', async () => {
    using folder = new Folder();
    const failing = plan(folder, 'console.error("no such luck"); process.exit(1);');
    const started = ensureDaemon(failing);
    await expect(started).rejects.toThrow(/no such luck/);
    expect(await codeOf(started)).toBe('agent-not-started');
  });
});

describe('the systemd unit', () => {
  it('danger 10: ends the agent alone, leaves its cgroups to it, and starts it again', () => {
    const path = join(packageRoot, 'deploy', 'systemd', 'phaul-agent.service');
    expect(existsSync(path)).toBe(true);
    const lines = readFileSync(path, 'utf8').split('\n');
    for (const setting of [
      'KillMode=process',
      'Delegate=yes',
      'Restart=always',
      'RuntimeDirectoryMode=0700',
      'RuntimeDirectoryPreserve=yes',
    ]) {
      expect(lines).toContain(setting);
    }
  });
});
