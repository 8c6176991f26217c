/**
 * Goal: a user's mistake is found when it is deployed, in an instance and never in the gateway, and reported with file
 * and line. Method: a table of mistakes in each language, deployed one after the other to a whole gateway.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FunctionDefinition, VersionFailure } from '../../client/api.ts';
import { javascript, python, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, client } = gateway;

const node = (
  files: Record<string, string>,
  more: FunctionDefinition = {},
): FunctionDefinition => ({ runtime: 'node', source: { files }, ...more });

/** Deploys what must fail; answers why. */
async function failureOf(definition: FunctionDefinition): Promise<VersionFailure> {
  const { function: view } = await client.putFunction('mistake', definition, { wait: '30s' });
  assert.equal(view.state, 'failed', JSON.stringify(definition));
  return view.latestVersion.failure!;
}

/** What is wrong, the source, and what the failure must say. */
const mistakes: Array<[string, FunctionDefinition, Partial<VersionFailure>, RegExp]> = [
  [
    'ts syntax',
    node({ 'handler.ts': 'const a = 1;\nexport default (;' }),
    { file: 'handler.ts', line: 2 },
    /./,
  ],
  [
    'ts import',
    node({ 'handler.ts': '\nimport "./gone.ts";' }),
    { file: 'handler.ts', line: 2 },
    /gone/,
  ],
  [
    'ts imported syntax',
    node({ 'handler.ts': 'import "./b.ts";', 'b.ts': '\n\nlet = ;' }),
    { file: 'b.ts', line: 3 },
    /./,
  ],
  [
    'ts throws',
    node({ 'handler.ts': 'type A = 1;\n\nthrow new Error("at load");' }),
    { file: 'handler.ts', line: 3 },
    /at load/,
  ],
  ['js throws', node({ 'handler.mjs': '\nnull.x;' }), { file: 'handler.mjs', line: 2 }, /null/],
  [
    'js cjs syntax',
    node({ 'handler.cjs': 'const a = 1;\nconst a = 2;' }, { entry: 'handler.cjs' }),
    { file: 'handler.cjs', line: 2 },
    /already been declared/,
  ],
  [
    'js module',
    node({ 'handler.mjs': '\nimport "left-pad";' }),
    { file: 'handler.mjs', line: 2 },
    /Cannot find package 'left-pad' imported from handler\.mjs; add it to package\.json/,
  ],
  [
    'an entry with =',
    node({ 'a=b.ts': 'export default 1;', 'b.ts': '' }, { entry: 'a=b.ts' }),
    { file: 'a=b.ts' },
    /rename it/,
  ],
  [
    'a directory for package.json',
    node({ 'handler.mjs': '', 'package.json/x': '' }),
    { file: 'package.json' },
    /is a directory/,
  ],
  [
    'a line that only names it',
    node({ 'handler.mjs': '// uses "left-pad"\nconst a = "left-pad";\nimport "left-pad";' }),
    { file: 'handler.mjs', line: 3 },
    /add it to package\.json/,
  ],
  [
    'cjs module',
    node({ 'handler.cjs': '\nrequire("left-pad");' }, { entry: 'handler.cjs' }),
    { file: 'handler.cjs', line: 2 },
    /Cannot find package 'left-pad' imported from handler\.cjs; add it to package\.json$/,
  ],
  [
    'a file that is none',
    node({ 'handler.mjs': 'await import("./gone" + ".mjs");' }),
    { file: 'handler.mjs' },
    /^Cannot find module 'gone\.mjs' imported from handler\.mjs$/,
  ],
  [
    'ts module',
    node({ 'handler.ts': '\n\nimport pad from "left-pad";\nexport default pad;' }),
    { file: 'handler.ts', line: 3 },
    /Cannot find package 'left-pad' imported from handler\.ts; add it to package\.json/,
  ],
  [
    'js file',
    node({ 'handler.mjs': 'import "./gone.mjs";' }),
    { file: 'handler.mjs' },
    /gone\.mjs/,
  ],
  [
    'js no export',
    node({ 'handler.mjs': 'export const other = 1;' }),
    { file: 'handler.mjs' },
    /it exports other/,
  ],
  [
    'js not callable',
    node({ 'handler.mjs': 'export const a = 1;' }, { entry: ':a' }),
    { file: 'handler.mjs' },
    /a is not a function/,
  ],
  [
    'js wrong handler',
    node({ 'handler.mjs': 'export const a = () => {};' }, { entry: ':b' }),
    { file: 'handler.mjs' },
    /exports no b; it exports a/,
  ],
  ['js wrong entry', node({ 'handler.mjs': '' }, { entry: 'main.mjs' }), {}, /main\.mjs/],
  ['js no entry', node({ 'other.mjs': '' }), {}, /handler\.ts/],
  ['js exits', node({ 'handler.mjs': 'console.error("bye"); process.exit(3);' }), {}, /./],
  [
    'bad package.json',
    node({ 'handler.mjs': '', 'package.json': '{\n"dependencies": {' }),
    { file: 'package.json' },
    /./,
  ],
  [
    'py syntax',
    python('def handle(event, context):\n    return (\n'),
    { file: 'handler.py', line: 2 },
    /./,
  ],
  [
    'py indent',
    python('def handle(event, context):\nreturn 1'),
    { file: 'handler.py', line: 2 },
    /./,
  ],
  [
    'py module',
    python('import os\nimport gone_module'),
    { file: 'handler.py', line: 2 },
    /No module named 'gone_module'; add its package to requirements\.txt/,
  ],
  [
    'py throws',
    python('\nraise ValueError("at load")'),
    { file: 'handler.py', line: 2 },
    /at load/,
  ],
  ['py no handler', python('def other(event, context): pass'), { file: 'handler.py' }, /handle/],
  ['py wrong handler', python('handle = 1'), { file: 'handler.py' }, /handle/],
  ['py wrong entry', python('', { entry: 'main.py:bar' }), {}, /main\.py/],
  ['py exits', python('import sys\nsys.exit(3)'), {}, /./],
  ['sh syntax', { script: 'echo a\nif true; then\n' }, { file: 'script.sh', line: 3 }, /./],
  [
    'sh interpreter',
    { script: '#!/usr/bin/gone-sh\necho' },
    { file: 'script.sh', line: 1 },
    /gone-sh/,
  ],
];

test("a user's mistake fails the version with file and line, and never the gateway", async () => {
  const wrong: string[] = [];
  for (const [what, definition, place, said] of mistakes) {
    const failure = await failureOf(definition);
    const found = Object.fromEntries(Object.keys(place).map(key => [key, failure[key as 'file']]));
    try {
      assert.deepEqual(found, place);
      assert.match(failure.message, said);
      assert.doesNotMatch(failure.message, new RegExp(gateway.data), 'a path of the gateway');
      assert.match(failure.code, /^(?:BUILD_FAILED|LOAD_FAILED)$/);
    } catch (error) {
      wrong.push(`${what}: ${JSON.stringify(failure)}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.equal((await call('/healthz')).status, 200);
});

test('a syntax error in an ES module of JavaScript is named with file and line', async () => {
  const files = { 'handler.mjs': 'import "./b.mjs";', 'b.mjs': 'const a = 1;\nexport default (;' };
  for (const [source, file] of [
    [{ 'handler.mjs': files['b.mjs'] }, 'handler.mjs'],
    [{ 'handler.js': files['b.mjs'] }, 'handler.js'],
    [files, 'b.mjs'],
  ] as const) {
    const failure = await failureOf(node({ ...source }));
    assert.deepEqual([failure.file, failure.line], [file, 2], JSON.stringify(failure));
  }
});

test('code that never finishes loading fails when its time is up', async () => {
  const impatient = await startTestGateway({ settings: { loadMsMax: '300ms' } });
  try {
    for (const code of ['await new Promise(r => setTimeout(r, 60000));', 'while (true) {}']) {
      const definition = javascript(`${code}\nexport default () => new Response();`);
      const result = await impatient.client.putFunction('slow', definition, { wait: '20s' });
      assert.equal(result.function.state, 'failed');
      assert.match(result.function.latestVersion.failure!.message, /300 ?ms/);
    }
  } finally {
    await impatient.stop();
  }
});
