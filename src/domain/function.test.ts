/**
 * Goal: every rule of a definition holds, and what makes a version is told from what does not. Method: tables of one
 * change each against a valid definition; properties of canonicalJson.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  canonicalJson,
  definitionLimits,
  definitionSchema,
  isName,
  splitDefinition,
} from './function.ts';

const valid = { runtime: 'node', source: { files: { 'handler.ts': 'x' } } };
const { source: _, runtime: __, ...none } = valid;

const refused: Array<[why: string, definition: unknown, path: string]> = [
  ['nothing at all', {}, ''],
  ['two kinds', { ...valid, script: 'date' }, ''],
  ['source without a runtime', { source: valid.source }, 'runtime'],
  ['a runtime without source', { ...none, script: 'date', runtime: 'node' }, 'runtime'],
  ['an unknown key', { ...valid, memroy: '1Gi' }, ''],
  ['an entry above the source', { ...valid, entry: '../x.js' }, 'entry'],
  ['an absolute entry', { ...valid, entry: '/x.js' }, 'entry'],
  ['a timeout of nothing', { ...valid, timeout: '0s' }, 'timeout'],
  ['a timeout of more than a day', { ...valid, timeout: '2d' }, 'timeout'],
  ['a timeout that is a number', { ...valid, timeout: 30 }, 'timeout'],
  ['little memory', { ...valid, memory: '1Mi' }, 'memory'],
  ['concurrency 0', { ...valid, concurrency: 0 }, 'concurrency'],
  ['more than one million at once', { ...valid, concurrency: 1e6 }, 'concurrency'],
  ['min above max', { ...valid, instances: { min: 3, max: 2 } }, 'instances'],
  ['min above the default max', { ...valid, instances: { min: 9 } }, 'instances'],
  [
    'too many instances',
    { ...valid, instances: { max: definitionLimits.instancesMax + 1 } },
    'instances.max',
  ],
  ['an unknown auth', { ...valid, auth: 'iam' }, 'auth'],
  ['a variable with a dash', { ...valid, env: { 'A-B': 'x' } }, 'env.A-B'],
  ['a reserved variable', { ...valid, env: { FNWAY_URL: 'x' } }, 'env'],
  ['a variable with NUL', { ...valid, env: { A: '\0' } }, 'env.A'],
  ['an http address that is none', { http: { url: 'ftp://x' } }, 'http.url'],
  ['buildEnv of a script', { script: 'date', buildEnv: { A: 'b' } }, 'buildEnv'],
  ['a signature of a script', { script: 'date', signature: 'http' }, 'signature'],
  ['a signature that is none', { ...valid, signature: 'grpc' }, 'signature'],
  ['a port of a script', { script: 'date', port: 80 }, 'port'],
  ['no file', { runtime: 'node', source: { files: {} } }, 'source'],
  ['a digest that is none', { runtime: 'node', source: { digest: 'md5:x' } }, 'source'],
  ['a long description', { ...valid, description: 'x'.repeat(1025) }, 'description'],
  ['a long script', { script: 'x'.repeat(definitionLimits.scriptBytesMax + 1) }, 'script'],
  [
    'a script of many bytes in few letters',
    { script: 'é'.repeat(definitionLimits.scriptBytesMax / 2 + 1) },
    'script',
  ],
  [
    'a variable of many bytes in few letters',
    { ...valid, env: { A: 'é'.repeat(definitionLimits.envBytesMax / 2) } },
    'env',
  ],
  [
    'files of many bytes in few letters',
    {
      runtime: 'node',
      source: { files: { a: 'é'.repeat(definitionLimits.sourceTextBytesMax / 2 + 1) } },
    },
    'source',
  ],
  ['env of a server that runs already', { http: { url: 'http://a' }, env: { A: 'b' } }, 'env'],
  ['memory of a server that runs already', { http: { url: 'http://a' }, memory: '64Mi' }, 'memory'],
  [
    'many variables',
    { ...valid, env: Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`A${i}`, ''])) },
    'env',
  ],
  [
    'many labels',
    { ...valid, labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`a${i}`, ''])) },
    'labels',
  ],
  ['a project that is no name', { ...valid, project: 'A b' }, 'project'],
];

for (const [why, definition, path] of refused) {
  test(`a definition with ${why} is refused at ${path || 'its top'}`, () => {
    const result = definitionSchema.safeParse(definition);
    assert.equal(result.success, false);
    const paths = result.error!.issues.map(issue => issue.path.join('.'));
    assert.ok(
      paths.some(found => found === path || found.startsWith(`${path}.`)),
      paths.join(),
    );
  });
}

test('names are lower case, short, and begin and end with a letter or digit', () => {
  for (const name of ['a', 'a-b', '0', 'x'.repeat(63)]) assert.ok(isName(name), name);
  for (const name of ['', 'A', '-a', 'a-', 'a_b', 'a.b', 'x'.repeat(64), 'é', 'a\n'])
    assert.ok(!isName(name), name);
});

test('defaults are filled in, and settings stay apart from the version', () => {
  const { spec, settings } = splitDefinition(
    definitionSchema.parse({ ...valid, entry: 'a.ts:b', env: { N: 1, T: true } }),
    'sha256:x',
  );
  assert.deepEqual([spec.entry, spec.handler, spec.source], ['a.ts', 'b', 'sha256:x']);
  assert.deepEqual(spec.env, { N: '1', T: 'true' });
  assert.deepEqual([spec.timeoutMs, spec.memoryBytes], [60_000, 268_435_456]);
  assert.deepEqual(settings, {
    auth: 'token',
    instances: { min: 0, max: 4, idleMs: 300_000 },
    labels: {},
    description: '',
  });
});

test('auth, instances, concurrency, labels and description make no version', () => {
  const more = {
    auth: 'none',
    concurrency: 3,
    instances: { min: 1 },
    labels: { a: 'b' },
    description: 'x',
    project: 'p',
  } as const;
  const plain = splitDefinition(definitionSchema.parse(valid), 'd').spec;
  const other = splitDefinition(definitionSchema.parse({ ...valid, ...more }), 'd').spec;
  assert.equal(canonicalJson(plain), canonicalJson(other));
});

test('canonicalJson is one text for equal values, whatever the order of keys', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), value => {
      const turned = Object.fromEntries(Object.entries(value).reverse());
      assert.equal(canonicalJson(turned), canonicalJson(value));
      assert.deepEqual(JSON.parse(canonicalJson(value)), JSON.parse(JSON.stringify(value)));
    }),
  );
});
