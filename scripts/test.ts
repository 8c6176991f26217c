/**
 * Runs the tests: `node scripts/test.ts fast|all|e2e [name…]`. `fast` is what `npm run check` runs, under a minute:
 * everything beside the code, api and tidy. `e2e` starts real gateways. Names select files that contain them.
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';

const suites: Record<string, string[]> = {
  fast: ['{src,client,sdk,runtimes}/**/*.test.ts', 'test/*.test.ts', 'test/api/*.test.ts'],
  e2e: ['test/e2e/*.test.ts'],
};
suites.all = [...suites.fast!, ...suites.e2e!];

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
    '--test-reporter=dot',
    '--test-reporter-destination=stdout',
    '--test-concurrency=2',
    ...files,
  ],
  { stdio: 'inherit' },
);
process.exit(result.status ?? 1);
