/**
 * Goal: whether a source is written for the functions framework, and where its functions are, is told from its files and
 * its definition. Method: tables of small trees.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FrameworkFacts, frameworkFacts } from './framework.ts';
import { treeFromFiles } from './source.ts';

const name = '@google-cloud/functions-framework';
const node = {
  framework: { package: name, entries: ['index.js', 'function.js'] },
  dependencies: 'package.json',
  entries: ['handler.ts'],
};
const python = {
  framework: { package: 'functions-framework', entries: ['main.py'] },
  dependencies: 'requirements.txt',
  entries: ['handler.py', 'main.py'],
};
const plain = { env: {} };
const needs = JSON.stringify({ dependencies: { [name]: '^3.0.0' } });

function factsOf(
  files: Record<string, string>,
  spec: Parameters<typeof frameworkFacts>[1] = plain,
  runtime: Parameters<typeof frameworkFacts>[2] = node,
): FrameworkFacts | undefined {
  return frameworkFacts(treeFromFiles(files), spec, runtime);
}

test('packages, the setting and the environment each make a function of the framework', () => {
  const used = ['index.js', 'function.js', 'handler.ts'];
  assert.deepEqual(factsOf({ 'package.json': needs }), { use: 'used', entries: used });
  const development = needs.replace('dependencies', 'devDependencies');
  assert.equal(factsOf({ 'package.json': development })?.use, 'used');
  assert.equal(factsOf({ a: '' }, { env: {}, signature: 'http' })?.use, 'used');
  for (const key of ['FUNCTION_TARGET', 'FUNCTION_SIGNATURE_TYPE'])
    assert.equal(factsOf({ a: '' }, { env: { [key]: 'x' } })?.use, 'used');
});

test('code that names the package may register, and everything else has nothing to do with it', () => {
  for (const file of ['index.js', 'lib/a.mjs', 'b.cts', 'c.tsx'])
    assert.deepEqual(factsOf({ [file]: `require('${name}')` }), {
      use: 'mentioned',
      entries: node.entries,
    });
  assert.equal(factsOf({ 'README.md': name, 'index.js': '' }), undefined);
  assert.equal(factsOf({ 'lib/package.json': needs, 'index.js': '' }), undefined);
  assert.equal(factsOf({ 'package.json': '{"dependencies":' }), undefined);
  for (const manifest of [
    'null',
    '7',
    '{"dependencies":null}',
    '{"dependencies":{"toString":"1"}}',
  ])
    assert.equal(factsOf({ 'package.json': manifest }), undefined);
  const without = { dependencies: 'package.json', entries: ['x'] };
  assert.equal(factsOf({ 'package.json': needs }, plain, without), undefined);
});

test('main is looked for as Node does, before the rest', () => {
  const mains: Array<[main: unknown, expected: string[]]> = [
    ['./lib/app.js', ['lib/app.js', 'lib/app.js.js', 'lib/app.js/index.js']],
    ['lib/', ['lib', 'lib.js', 'lib/index.js']],
    ['', []],
    [7, []],
  ];
  for (const [main, expected] of mains) {
    const manifest = JSON.stringify({ main, dependencies: { [name]: '1' } });
    assert.deepEqual(factsOf({ 'package.json': manifest })?.entries, [
      ...expected,
      ...['index.js', 'function.js', 'handler.ts'],
    ]);
  }
});

test('a list of requirements names it in any spelling, and nothing that only looks like it', () => {
  for (const line of [
    'functions-framework',
    'Functions_Framework==3.*',
    ' functions.framework >= 3',
    'functions-framework[x]; python_version > "3"',
  ])
    assert.equal(
      factsOf({ 'requirements.txt': `flask\n${line}\n` }, plain, python)?.use,
      'used',
      line,
    );
  for (const line of [
    'functions-framework-extra',
    'my-functions-framework',
    '# functions-framework',
    '-r functions-framework',
  ])
    assert.equal(factsOf({ 'requirements.txt': line }, plain, python), undefined, line);
  assert.deepEqual(
    factsOf({ 'requirements.txt': 'functions-framework' }, plain, python)?.entries[0],
    'main.py',
  );
});
