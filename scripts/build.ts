/**
 * Makes `dist/`: the CLI, the library and the client as plain JavaScript, and their types. Runs before `npm pack`.
 * With `--start` it makes `.start/` without types, which is what `npm start` runs: neither disturbs the other.
 * Dependencies stay imports; the package's own code is bundled so that a start reads few files.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');
const isForStart = process.argv.includes('--start');
const dist = join(root, isForStart ? '.start' : 'dist');

rmSync(dist, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: {
    cli: 'src/cli/cli.ts',
    index: 'src/index.ts',
    client: 'client/index.ts',
    function: 'sdk/function.ts',
    middleware: 'sdk/middleware.ts',
    testing: 'sdk/testing.ts',
    // A thread of its own: a file of its own.
    'records-worker': 'src/store/records/worker.ts',
    'queue-thread': 'src/store/sqlite/queue-thread.ts',
    'checkpoint-thread': 'src/store/sqlite/checkpoint-thread.ts',
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

if (!isForStart) {
  const types = spawnSync(
    process.execPath,
    [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'],
    { cwd: root, stdio: 'inherit' },
  );
  process.exitCode = types.status ?? 1;
}
