/** The rules of biome.json, tried on source that breaks them: an exception there that goes too far fails here. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/native/addon.js';

/** From top to bottom; folders of one line do not know each other. */
const layers = [
  ['cli', 'demo'],
  ['lab'],
  ['agent'],
  ['migration', 'criu', 'pages', 'preflight', 'network', 'hooks'],
  ['images'],
  ['host'],
  ['native'],
  ['failure'],
] as const;
/** Interfaces and values that belong to everyone. */
const common = ['ports', 'order', 'lifetime', 'report'];

const folders = layers.flat();
const depth = (folder: string): number => layers.findIndex((layer) => (layer as readonly string[]).includes(folder));

function allowed(from: string, to: string): boolean {
  if (from === 'migration') return to === 'failure';
  return depth(from) < depth(to);
}

/** Lines at which Biome sees a forbidden import, were these sources files of the project. */
function forbiddenLines(sources: ReadonlyMap<string, string>): Map<string, number[]> {
  const project = mkdtempSync(join(tmpdir(), 'phaul-direction-'));
  try {
    const rules = JSON.parse(readFileSync(join(packageRoot, 'biome.json'), 'utf8')) as Record<string, unknown>;
    const { $schema: _schema, vcs: _vcs, ...ours } = rules;
    writeFileSync(join(project, 'biome.json'), JSON.stringify(ours));
    for (const [path, source] of sources) {
      mkdirSync(dirname(join(project, path)), { recursive: true });
      writeFileSync(join(project, path), source);
    }
    const biome = join(packageRoot, 'node_modules', '@biomejs', 'biome', 'bin', 'biome');
    const args = [biome, 'lint', '--only=style/noRestrictedImports', '--max-diagnostics=none', '--colors=off', '.'];
    const run = spawnSync(process.execPath, args, { cwd: project, encoding: 'utf8' });
    const lines = new Map([...sources.keys()].map((path) => [path, [] as number[]]));
    for (const report of `${run.stdout}${run.stderr}`.matchAll(/^(\S+):(\d+):\d+ lint\/style\/noRestrictedImports/gm)) {
      lines.get(report[1] ?? '')?.push(Number(report[2]));
    }
    for (const list of lines.values()) list.sort((one, other) => one - other);
    return lines;
  } finally {
    rmSync(project, { recursive: true });
  }
}

/** One import of each target, a line each. */
const imports = (targets: readonly string[]): string =>
  targets.map((target, index) => `import { x${index} } from '../${target}.js';\n`).join('');

describe('dependency direction', () => {
  it('knows every folder of src', () => {
    const present = readdirSync(join(packageRoot, 'src')).filter((name) => name !== 'gen');
    expect(folders).toEqual(expect.arrayContaining(present));
  });

  it('lets no folder import upwards or sideways', () => {
    const othersOf = (folder: string): string[] => folders.filter((other) => other !== folder);
    const sources = folders.map((folder): [string, string] => {
      return [`src/${folder}/probe.ts`, imports(othersOf(folder).map((other) => `${other}/thing`))];
    });
    const expected = folders.map((folder): [string, number[]] => {
      const lines = othersOf(folder).flatMap((other, index) => (allowed(folder, other) ? [] : [index + 1]));
      return [`src/${folder}/probe.ts`, lines];
    });
    expect(forbiddenLines(new Map(sources))).toEqual(new Map(expected));
  });

  it('lets every part know the ports of the migration, and nothing else of it', () => {
    const path = 'src/pages/probe.ts';
    const source = imports([...common, 'migrate'].map((name) => `migration/${name}`));
    expect(forbiddenLines(new Map([[path, source]]))).toEqual(new Map([[path, [common.length + 1]]]));
  });
});
