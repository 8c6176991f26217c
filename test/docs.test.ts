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
import { definitionSchema } from '../src/domain/function.ts';
import { resourceKinds, resourceRules } from '../src/domain/resource.ts';
import { keysAt } from '../src/domain/schema-keys.ts';
import { type ControlPlaneOptions, createControlPlane } from '../src/gateway/control-plane.ts';
import { openApi } from '../src/gateway/openapi.ts';

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
  'src/build/go.ts errorsMax': 'how much of a build log is in a message',
  'src/driver/process/warm.ts earlyBytesMax': 'output that is on its way to the log',
  'src/driver/http-operation.ts shownCharsMax': 'of a wrong answer, in a message',
  'src/domain/json-error.ts depthMax': 'where the search for a mistake in JSON gives up',
  'src/domain/suggest.ts wordCharsMax': 'a word for which a similar one is looked for',
  'src/invoke/invoke.ts rememberedBytesMax': 'a cache',
  'src/store/sqlite/jobs.ts promotedMax': 'the rest is next',
  'src/store/sqlite/queue.ts transactionOperationsMax': 'the rest is next',
  'src/store/sqlite/queue.ts startedOperationsMin': 'how a batch begins',
  'src/store/sqlite/queue.ts batchesMax': 'how a batch begins',
  'src/queue/calls.ts rememberedInputsMax': 'a cache',
  'src/queue/calls.ts rememberedBytesMax': 'a cache',
  'src/queue/queue.ts claimedJobsMax': 'the rest is next',
  'src/queue/queue.ts sweptJobsMax': 'the rest is next',
  'src/queue/queue.ts jumpMsMin': 'what is told of',
  'src/queue/queue.ts wakeMsMax': 'between two looks',
  'src/queue/payloads.ts inlineBytesMax': 'where bytes lie',
  'src/store/jobs.ts orderKeyCharsMax': 'of what triggers bring; nobody can give one yet',
  'src/store/records/series.ts partitionsMin': 'how files are cut',
  'src/store/records/series.ts spanMsMax': 'how files are cut',
  'src/store/records/sqlite.ts batchBytesMax': 'how bytes are written',
  'src/store/records/sqlite.ts copiedBytesMax': 'how bytes are written',
  'src/store/records/sqlite.ts itemBytesMax': 'the longest of what other limits allow',
  'src/gateway/headers.ts headerNamesMax': 'a cache',
  'src/gateway/headers.ts mediaTypesMax': 'a cache',
  'src/gateway/parse.ts pathCharsMax': 'where the search for a lost key gives up',
  'src/gateway/request-head.ts kindsMax': 'a cache',
  'src/gateway/fast-reader.ts copyBytesMax': 'how bytes are written',
  'src/link/frames.ts copyBytesMax': 'how bytes are written',
  'src/link/link.ts aloneCallsMin': 'how bytes are written',
  'src/link/frames.ts typeMax': 'of the protocol',
  'src/driver/process/child.ts outputAfterExitMsMax': 'a wait for output that is on its way',
  'src/driver/process/cgroup.ts adoptTriesMax': 'as many rounds as find all but a fork bomb',
  'src/cli/replay.ts recordTriesMax': 'a wait for what is on its way',
  'src/auth/masks.ts cutCharsMin': 'how much of a text makes it one that may be cut',
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
  const needless = Object.keys(noLimits).filter(place => !names.some(name => name.place === place));
  assert.deepEqual(needless, [], 'exceptions for what is not there');
  const lost = names
    .filter(({ place }) => noLimits[place] === undefined)
    .filter(({ name }) => !page.includes(`\`${alias[name] ?? name}\``))
    .map(({ place }) => place);
  assert.deepEqual(lost, []);
});

test('the routes of the control plane are those of the OpenAPI document', async () => {
  // None of it is asked for anything before a request comes.
  const app = await createControlPlane({} as ControlPlaneOptions);
  const real = app.ownRoutes.map(
    ({ method, url }) => `${method.toLowerCase()} ${url.replace(/:(\w+)/g, '{$1}')}`,
  );
  await app.close();
  const { paths } = openApi() as { paths: Record<string, object> };
  const told = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method} ${path}`),
  );
  assert.ok(real.length > 10);
  assert.deepEqual(real.sort(), [...told, 'get /v1/openapi.json'].sort());
});

test('the page of the HTTP surface lists the routes and parameters of the OpenAPI document', () => {
  const page = read('docs/reference/api.md').split('\nBeside it')[0]!;
  const told = [...page.matchAll(/^\| ([A-Z]+) (\/v1\/[^\s?]*)(?:\?(\S*))?/gm)].map(
    ([, method, path, query = '']) => {
      const names = query.split('&').map(pair => pair.split('=')[0]!);
      return `${method} ${path} ${names.filter(name => name !== '').sort()}`;
    },
  );
  const { paths } = openApi() as {
    paths: Record<string, Record<string, { parameters: Array<{ name: string; in: string }> }>>;
  };
  const real = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters }]) => {
      const names = parameters.filter(({ in: where }) => where === 'query').map(({ name }) => name);
      return `${method.toUpperCase()} ${path} ${names.sort()}`;
    }),
  );
  // The document does not list itself.
  assert.deepEqual(told.sort(), [...real, 'GET /v1/openapi.json '].sort());
});

test('the page of the manifest names every key that a definition may have', () => {
  const [functions, ...others] = read('docs/reference/manifest.md').split(/^\| key of a /m);
  const told = keysTold(functions!);
  for (const kind of resourceKinds) {
    const table = others.find(text => text.startsWith(`${kind} |`)) ?? '';
    assert.deepEqual(keysTold(table), keysAt(resourceRules[kind].schema, []).sort(), kind);
  }
  const nested = [
    'http.url',
    'http.convention',
    'source.files',
    'instances.min',
    'instances.max',
    'instances.idle',
    'queue.concurrency',
    'queue.waiting',
  ];
  const heads = new Set(nested.map(key => key.split('.')[0]!));
  const keys = Object.keys(definitionSchema.shape).filter(
    key => key === 'source' || !heads.has(key),
  );
  assert.deepEqual(told, [...keys, ...nested].sort());
});

/** Of the table at the start of a text: the names in its first column. */
function keysTold(text: string): string[] {
  const rows = text.matchAll(/^\| (`.*?`) \|/gm);
  const names = [...rows].flatMap(([, cell]) =>
    [...cell!.matchAll(/`([^`]+)`/g)].map(([, key]) => key!),
  );
  return [...new Set(names)].sort();
}

test('the page on observing names every metric', () => {
  const told = [...read('docs/operate/observe.md').matchAll(/^\| `(fnway_\w+)` \|/gm)];
  const code = ['src/telemetry/metrics.ts', 'src/gateway/gauges.ts'].map(read).join('\n');
  const made = code.matchAll(/(?:\.gauge\(|family\()(?:\s*lines,)?\s*'(fnway_\w+)'/g);
  assert.deepEqual(told.map(([, name]) => name).sort(), [...made].map(([, name]) => name).sort());
});

test('every dependency has a line that says what it is for', () => {
  const { dependencies, devDependencies } = JSON.parse(read('package.json'));
  const page = read('docs/internals/dependencies.md');
  const [table, development] = page.split('\nDevelopment: ') as [string, string];
  const firsts = [...table.matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell]) =>
    cell!.replace(/ \(.*\)/, '').split(', '),
  );
  assert.deepEqual(
    firsts.filter(name => !/^(?:package|-*)$/.test(name)).sort(),
    Object.keys(dependencies).sort(),
  );
  const missing = Object.keys(devDependencies).filter(name => !development.includes(name));
  assert.deepEqual(missing, []);
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

test('the commands of a page that says so are run', () => {
  const runs = read('test/e2e/docs.test.ts');
  const marked = globSync('docs/**/*.md', { cwd: root }).filter(page =>
    /^```sh test=/m.test(read(page)),
  );
  assert.ok(marked.length > 5);
  assert.deepEqual(
    marked.filter(page => !runs.includes(`outputsOf('${page}')`)),
    [],
  );
});
