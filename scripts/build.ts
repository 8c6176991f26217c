/**
 * Makes `dist/`: the CLI, the library and the client as plain JavaScript, and their types. Runs before `npm pack`.
 * Dependencies stay imports; the package's own code is bundled so that a start reads few files.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');

rmSync(dist, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: {
    cli: 'src/cli/cli.ts',
    index: 'src/index.ts',
    client: 'client/index.ts',
    function: 'sdk/function.ts',
  },
  outdir: dist,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  packages: 'external',
  chunkNames: 'chunks/[name]-[hash]',
});
chmodSync(join(dist, 'cli.js'), 0o755);

// `npm start` needs no types, and starts a second earlier without them.
if (!process.argv.includes('--no-types')) {
  const types = spawnSync(
    process.execPath,
    [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'],
    { cwd: root, stdio: 'inherit' },
  );
  process.exitCode = types.status ?? 1;
}
