/** The decisions of deploy/setup.sh, with a PATH of stubs: what is missing is said in one line with its remedy. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/native/addon.js';

let root = '';

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'phaul-setup-'));
  mkdirSync(join(root, 'bin'));
  mkdirSync(join(root, '.phaul'));
  for (const tool of ['sort', 'tr', 'tail', 'sed', 'readlink', 'dirname', 'cat'])
    symlinkSync(`/usr/bin/${tool}`, join(root, 'bin', tool));
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

function stub(name: string, script: string): void {
  const path = join(root, 'bin', name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
}

/** Runs shell code after setup.sh has been read; only the stubs are on the PATH. */
function inSetup(code: string): { status: number | null; stdout: string; stderr: string } {
  const script = `set -eu; root=$1; PATH=$1/bin; . ${join(packageRoot, 'deploy', 'setup.sh')}; ${code}`;
  return spawnSync('/bin/sh', ['-c', script, 'sh', root], {
    encoding: 'utf8',
    env: { PHAUL_NODE_PREFIX: join(root, 'node') },
  });
}

describe('deploy/setup.sh', () => {
  it.each([
    ['5.13.0-1', 1],
    ['5.14.0', 0],
    ['6.1.0-37-amd64', 0],
    ['4.19', 1],
  ])('judges kernel %s', (release, status) => {
    stub('uname', `[ "$1" = -s ] && echo Linux || echo ${release}`);
    const run = inSetup('need_kernel');
    expect(run.status).toBe(status);
    if (status !== 0)
      expect(run.stderr).toBe(
        `phaul: kernel ${release} is too old; phaul needs Linux 5.14 or newer (cgroup.kill, pidfds)\n`,
      );
  });

  it.each([
    ['v18.20.4', '9.2.0', false],
    ['v20.19.0', '9.2.0', false],
    ['v20.18.1', '10.8.2', false],
    ['v20.19.0', '10.8.2', true],
    ['v22.1.0', '11.0.0', true],
  ])('node %s with npm %s serves: %s', (node, npm, serves) => {
    stub('node', `echo ${node}`);
    stub('npm', `echo ${npm}`);
    expect(inSetup('system_node_serves && echo yes || echo no').stdout.trim()).toBe(serves ? 'yes' : 'no');
  });

  it('asks for root in one line when something must be installed', () => {
    stub('id', 'echo 1000');
    stub('apt-get', 'echo must not be called; exit 9');
    const run = inSetup('need_packages');
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(
      /^phaul: root is needed to install .*build-essential.*; run it as root once: sudo \S+\/phaul setup\n$/,
    );
  });

  it('names what is missing where there is no apt', () => {
    stub('id', 'echo 0');
    const run = inSetup('need_packages');
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(/^phaul: missing: .*nftables.*; install them with this system's package manager\n$/);
  });

  it('shows the end of the log and a remedy when apt fails', () => {
    stub('id', 'echo 0');
    stub('apt-get', 'echo "E: no such mirror"; exit 100');
    const run = inSetup('need_packages');
    expect(run.status).toBe(1);
    expect(run.stderr).toContain('  | E: no such mirror\nphaul: apt-get update failed; check the network');
  });

  it('installs npm packages only when the lock file is newer', () => {
    writeFileSync(join(root, 'phaul'), '');
    mkdirSync(join(root, 'node_modules'));
    writeFileSync(join(root, 'package-lock.json'), '{}');
    writeFileSync(join(root, 'node_modules', '.package-lock.json'), '{}');
    stub('npm', 'echo must not be called >&2; exit 9');
    expect(inSetup('need_modules').status).toBe(0);
  });
});
