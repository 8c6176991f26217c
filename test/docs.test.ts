/**
 * Goal: docs cannot drift. Method: generated pages are compared with what the code says now; codes are looked for where
 * they are thrown and where a test provokes them; links must lead somewhere.
 */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { errorCodes } from '../client/errors.ts';
import { pages } from '../scripts/docs.ts';

const root = join(import.meta.dirname, '..');
const read = (file: string) => readFileSync(join(root, file), 'utf8');

test('generated reference pages are up to date', () => {
  for (const [name, page] of Object.entries(pages)) {
    assert.equal(read(`docs/reference/${name}`), page(), `run node scripts/docs.ts (${name})`);
  }
});

/** Numbers that bound something, but nothing that a user could run into. */
const noLimits: Record<string, string> = {
  'src/build/tool.ts outputBytesMax': 'of one tool, read for its errors',
  'src/telemetry/output.ts removedMax': 'how many removed functions are remembered',
  'src/domain/json-error.ts depthMax': 'where the search for a mistake in JSON gives up',
  'src/domain/suggest.ts wordCharsMax': 'a word for which a similar one is looked for',
  'src/gateway/headers.ts headerNamesMax': 'a cache',
  'src/gateway/request-head.ts kindsMax': 'a cache',
  'src/gateway/fast-reader.ts copyBytesMax': 'how bytes are written',
  'src/link/frames.ts copyBytesMax': 'how bytes are written',
  'src/link/frames.ts typeMax': 'of the protocol',
  'src/driver/process/child.ts outputAfterExitMsMax': 'a wait for output that is on its way',
  'src/driver/process/cgroup.ts removeTriesMax': 'tidying up',
  'src/cli/completion.ts namesMsMax': 'completion leaves names out',
  'src/driver/contract.ts testMsMax': 'of tests',
};

test('every limit of the source is on the page of limits', () => {
  const page = read('docs/reference/limits.md');
  const names = globSync('src/**/*.ts', { cwd: root })
    .filter(file => !file.endsWith('.test.ts'))
    .flatMap(file =>
      [
        ...read(file).matchAll(/^(?:export const |const | {2})(\w+(?:Max|Min))(?: = |: )[\d]/gm),
      ].map(([, name]) => ({ place: `${file} ${name}`, name: name! })),
    );
  assert.ok(names.length > 30);
  const alias: Record<string, string> = { buildTimeoutMsMax: 'buildMsMax' };
  const lost = names
    .filter(({ place }) => noLimits[place] === undefined)
    .filter(({ name }) => !page.includes(`\`${alias[name] ?? name}\``))
    .map(({ place }) => place);
  assert.deepEqual(lost, []);
});

test('every error code is made somewhere in the source', () => {
  const sources = globSync('{src,client}/**/*.ts', { cwd: root })
    .filter(
      file => !file.endsWith('.test.ts') && file !== 'src/errors.ts' && file !== 'client/errors.ts',
    )
    .map(read)
    .join('\n');
  assert.deepEqual(
    errorCodes.filter(code => !sources.includes(`'${code}'`)),
    [],
  );
});

test('every error code is provoked by a test', () => {
  const tests = globSync('{src,client,test,runtimes}/**/*.test.ts', { cwd: root })
    .filter(file => file !== 'test/docs.test.ts')
    .map(read)
    .join('\n');
  // INTERNAL is a bug by definition; its answer is checked in src/errors.test.ts.
  assert.deepEqual(
    errorCodes.filter(code => !tests.includes(code)),
    [],
  );
});

test('links between documents lead somewhere', () => {
  const documents = globSync(['*.md', 'docs/**/*.md', 'bench/*.md', 'examples/**/*.md'], {
    cwd: root,
    exclude: path => path.includes('node_modules'),
  });
  const broken: string[] = [];
  for (const document of documents) {
    for (const [, target] of read(document).matchAll(/\]\((?!https?:|#)([^)#\s]+)[^)]*\)/g)) {
      if (!existsSync(join(root, dirname(document), target!)))
        broken.push(`${document} → ${target}`);
    }
  }
  assert.deepEqual(broken, []);
});

test('paths that the documents name exist', () => {
  const missing: string[] = [];
  for (const document of ['ARCHITECTURE.md', 'README.md', 'CONTRIBUTING.md']) {
    for (const [, path] of read(document).matchAll(
      /`((?:src|client|docs|runtimes|test|examples|bench|sdk|scripts)\/[\w./-]+)`/g,
    )) {
      if (!existsSync(join(root, path!))) missing.push(`${document} → ${path}`);
    }
  }
  assert.deepEqual(missing, []);
});
