/**
 * Runs the tests: `node scripts/test.ts fast|api|durability|e2e|all [name…]`. `fast` is what `npm run check` runs, under a minute:
 * everything beside the code, tidy and docs. `api` drives whole gateways over HTTP, `durability` kills them, `e2e` starts them
 * as a user does.
 * Names select files that contain them.
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';

const suites: Record<string, string[]> = {
  fast: ['{src,client,sdk,runtimes}/**/*.test.ts', 'test/*.test.ts'],
  api: ['test/api/*.test.ts'],
  durability: ['test/durability/*.test.ts'],
  e2e: ['test/e2e/*.test.ts'],
};
suites.all = Object.values(suites).flat();

const [suite = 'all', ...names] = process.argv.slice(2);
const patterns = suites[suite];
if (patterns === undefined) {
  console.error(`no suite ${suite}; there are ${Object.keys(suites).join(', ')}`);
  process.exit(2);
}
const files = globSync(patterns, { exclude: path => path.includes('node_modules') })
  .filter(file => names.length === 0 || names.some(name => file.includes(name)))
  .sort();
const result = spawnSync(
  process.execPath,
  [
    '--test',
    `--test-reporter=${process.env.CI ? 'spec' : 'dot'}`,
    '--test-reporter-destination=stdout',
    '--test-concurrency=2',
    ...files,
  ],
  { stdio: 'inherit' },
);
process.exit(result.status ?? 1);
