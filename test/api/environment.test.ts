/**
 * Goal: a function sees its own environment and nothing of the gateway's, also the variables that act when a process
 * starts; and packages that a source names are there when it runs. Method: canaries in the gateway's own environment;
 * functions of each runtime that show theirs; local packages, so that no registry is needed.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import { packTree } from '../../src/build/archive.ts';
import { treeFromFiles } from '../../src/build/source.ts';
import {
  javascript,
  makeDataDirectory,
  python,
  startTestGateway,
} from '../../src/testing/index.ts';

const canaries = {
  CANARY: 'canary-plain',
  FNWAY_CANARY: 'canary-fnway',
  AWS_SECRET_ACCESS_KEY: 'canary-secret',
  NODE_CANARY: 'canary-node',
  PYTHONCANARY: 'canary-python',
};
Object.assign(process.env, canaries);
after(() => {
  for (const name of Object.keys(canaries)) delete process.env[name];
});

const gateway = await startTestGateway({
  shared: true,
  env: { ...canaries, PATH: process.env.PATH! },
});
const { call, put, client } = gateway;
const textOf = async (path: string) => (await call(path)).text();

/** Functions that show their environment, and that of what they start, by runtime. */
const shows: Record<string, (more: FunctionDefinition) => FunctionDefinition> = {
  node: more =>
    javascript(
      `import { execFileSync } from 'node:child_process';
export default () => Response.json({ ...process.env,
  child: execFileSync('/usr/bin/env', { encoding: 'utf8' }) });`,
      more,
    ),
  python: more =>
    python(
      `import os, subprocess
def handle(event, context):
    return {**os.environ, "child": subprocess.check_output(["/usr/bin/env"], text=True)}`,
      more,
    ),
  script: more => ({
    script: `exec python3 -c 'import os, json; print(json.dumps(dict(os.environ)))'`,
    ...more,
  }),
};

test('a function has a home of its own, which it keeps and no other may enter', async () => {
  await put('settles', { script: 'cd && pwd && touch kept && ls -A' });
  await put('visits', {
    script: 'cd && pwd && ls -A && stat -c %a . && ls -A "$(cat)" 2>&1; true',
  });
  const [home, kept] = (await textOf('/function/settles')).split('\n');
  assert.deepEqual([kept, home!.endsWith('/home')], ['kept', true]);
  const visit = await call('/function/visits', { method: 'POST', body: home! });
  const text = await visit.text();
  const isRoot = process.getuid?.() === 0;
  if (isRoot) assert.match(text, /^\/.*\/home\n700\n.*ermission denied/);
  assert.notEqual(text.split('\n')[0], home);
  await put('settles', { script: 'ls -A "$HOME"' });
  assert.equal(await textOf('/function/settles'), 'kept\n');
});

test("a function's environment is its own, with what the gateway names, and nothing else", async () => {
  const env = { GREETING: 'Hi ü', EMPTY: '', NUMBER: 1, TRUTH: true };
  for (const [runtime, definition] of Object.entries(shows)) {
    await put(
      `shows-${runtime}`,
      definition({ env, ...(runtime !== 'script' && { buildEnv: { BUILD: 'b' } }) }),
    );
    const text = await textOf(`/function/shows-${runtime}`);
    assert.doesNotMatch(text, /canary/, runtime);
    assert.ok(!text.includes(gateway.adminToken));
    const seen = JSON.parse(text) as Record<string, string>;
    const own = ['GREETING', 'EMPTY', 'NUMBER', 'TRUTH'].map(name => seen[name]);
    assert.deepEqual(own, ['Hi ü', '', '1', 'true'], runtime);
    assert.equal(seen.BUILD, undefined);
    assert.deepEqual(
      [seen.FNWAY_FUNCTION, seen.FNWAY_NAMESPACE, seen.FNWAY_VERSION],
      [`shows-${runtime}`, 'default', '1'],
    );
    assert.match(seen.PATH!, /\/usr\/bin/);
    // No secret of the link, by which a function could speak in another's name.
    assert.equal(seen.FNWAY_LINK_SECRET, undefined, runtime);
  }
});

test('variables that act when a process starts act', async () => {
  await put(
    'node-options',
    javascript(
      `export default () => Response.json([process.execArgv, process.env.NODE_OPTIONS, process.title, typeof gc]);`,
      { env: { NODE_OPTIONS: '--expose-gc --title=mine' } },
    ),
  );
  const [, options, , gc] = JSON.parse(await textOf('/function/node-options')) as string[];
  assert.deepEqual([options, gc], ['--expose-gc --title=mine', 'function']);
  // What the loader of programs reads cannot be given to one that runs already.
  await put(
    'loader',
    javascript(
      `import { readFileSync } from 'node:fs';
       const started = readFileSync('/proc/self/environ', 'latin1').split('\\0');
       export default () => Response.json(started.filter(line => line.startsWith('LD_')));`,
      { env: { LD_LIBRARY_PATH: '/nowhere' } },
    ),
  );
  assert.deepEqual(JSON.parse(await textOf('/function/loader')), ['LD_LIBRARY_PATH=/nowhere']);
  const code = `import sys, os
def handle(event, context):
    return [sys.flags.utf8_mode, sys.flags.dont_write_bytecode, os.environ.get("PYTHONUTF8")]`;
  await put(
    'python-start',
    python(code, { env: { PYTHONUTF8: '1', PYTHONDONTWRITEBYTECODE: '1' } }),
  );
  assert.deepEqual(JSON.parse(await textOf('/function/python-start')), [1, 1, '1']);
  await put('python-plain', python(code));
  const [, , plain] = JSON.parse(await textOf('/function/python-plain')) as unknown[];
  assert.equal(plain, null, 'no other function has it');
});

test('a variable that breaks the start fails that version only', async () => {
  const broken = javascript('export default () => new Response("x");', {
    env: { NODE_OPTIONS: '--no-such-option' },
  });
  const result = await client.putFunction('unstartable', broken, { wait: '60s' });
  assert.equal(result.function.state, 'failed');
  assert.match(JSON.stringify(result.function.latestVersion.failure), /no-such-option/);
  await put('startable', javascript('export default () => new Response("fine");'));
  assert.equal(await textOf('/function/startable'), 'fine');
});

test('two functions on one gateway do not see what the other one sets', async () => {
  const code = `export default request => {
  if (request.url.endsWith('/set')) { process.env.LEAK = 'leak'; globalThis.leak = 'leak'; }
  return Response.json([process.env.LEAK ?? null, globalThis.leak ?? null]);
};`;
  await put('neighbour-1', javascript(code));
  await put('neighbour-2', javascript(code));
  await call('/function/neighbour-1/set');
  assert.equal(await textOf('/function/neighbour-2'), '[null,null]');
});

test('packages of package.json are there, and their install scripts have not run', async () => {
  const files = {
    'handler.ts': `import { word } from 'local-x';
import { existsSync } from 'node:fs';
export default () => Response.json([word, existsSync(new URL('./ran', import.meta.url))]);`,
    'package.json': JSON.stringify({ dependencies: { 'local-x': 'file:./pkg' } }),
    'pkg/package.json': JSON.stringify({
      name: 'local-x',
      version: '1.0.0',
      type: 'module',
      exports: './index.js',
      scripts: { postinstall: 'touch ../ran' },
    }),
    'pkg/index.js': `export const word = 'installed';`,
  };
  await put('npm', { runtime: 'node', source: { files } });
  assert.equal(await textOf('/function/npm'), '["installed",false]');
  const { buildLog } = await client.getVersion('npm', 1);
  assert.match(buildLog!, /npm|added/);
  const gone = { ...files, 'package.json': '{ "dependencies": { "local-x": "workspace:*" } }' };
  const failed = await client.putFunction(
    'npm',
    { runtime: 'node', source: { files: gone }, auth: 'none' },
    { wait: '60s' },
  );
  assert.equal(failed.function.state, 'failed');
  assert.equal(failed.function.latestVersion.failure?.file, 'package.json');
  assert.equal(await textOf('/function/npm'), '["installed",false]', 'the old version answers');
});

/** A wheel made by hand. */
function makeWheel(): Uint8Array {
  const code = `
import io, sys, zipfile
out = io.BytesIO()
with zipfile.ZipFile(out, 'w') as wheel:
    info = 'wheel_x-1.0.dist-info/'
    wheel.writestr('wheel_x.py', 'word = "installed"\\n')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: wheel-x\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL',
        'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
sys.stdout.buffer.write(out.getvalue())`;
  return execFileSync('python3', ['-c', code]);
}

test('packages of requirements.txt are there, or their lack is named', async t => {
  const tree = treeFromFiles({
    'handler.py': 'import wheel_x\ndef handle(event, context):\n    return wheel_x.word',
    'requirements.txt': './wheel_x-1.0-py3-none-any.whl\n',
  });
  tree.set('wheel_x-1.0-py3-none-any.whl', { mode: 0o644, bytes: makeWheel() });
  const { digest } = await client.putSource(await packTree(tree));
  const definition: FunctionDefinition = { runtime: 'python', source: { digest }, auth: 'none' };
  const result = await client.putFunction('pip', definition, { wait: '60s' });
  const { failure } = result.function.latestVersion;
  if (failure?.code === 'BUILD_TOOL_MISSING') {
    assert.match(failure.message, /pip/);
    return t.skip('no pip that the function of a user can run');
  }
  assert.equal(failure, undefined);
  assert.equal(await textOf('/function/pip'), 'installed');
  const files = { 'handler.py': '', 'requirements.txt': '# first\n./gone-1.0-py3-none-any.whl\n' };
  const failed = await client.putFunction(
    'pip',
    { runtime: 'python', source: { files }, auth: 'none' },
    { wait: '60s' },
  );
  const { failure: lacks } = failed.function.latestVersion;
  assert.deepEqual([lacks?.code, lacks?.file], ['BUILD_FAILED', 'requirements.txt']);
  assert.equal(await textOf('/function/pip'), 'installed', 'the old version answers');
});

test('a package that only a directory above the data directory has is missing', async () => {
  const above = makeDataDirectory();
  mkdirSync(join(above, 'node_modules/stray'), { recursive: true });
  writeFileSync(join(above, 'node_modules/stray/index.js'), 'module.exports = "found";');
  const inside = await startTestGateway({ data: join(above, 'data') });
  try {
    const uses = {
      esm: 'import stray from "stray"; export default () => new Response(stray);',
      cjs: 'const stray = require("stray"); module.exports = () => new Response(stray);',
    };
    for (const [name, code] of Object.entries(uses)) {
      const source = { files: { [`handler.${name === 'esm' ? 'mjs' : 'cjs'}`]: code } };
      const entry = Object.keys(source.files)[0]!;
      const definition = { runtime: 'node', source, entry, auth: 'none' } as const;
      const { function: view } = await inside.client.putFunction(name, definition, { wait: '30s' });
      assert.equal(view.state, 'failed', name);
      assert.match(view.latestVersion.failure!.message, /stray/);
    }
    const files = {
      'handler.mjs': uses.esm.replace('"stray"', '"./lib/stray.cjs"'),
      'lib/stray.cjs': 'module.exports = "own";',
    };
    await inside.put('relative', { runtime: 'node', source: { files } });
    assert.equal(await (await inside.call('/function/relative')).text(), 'own');
  } finally {
    await inside.stop();
    rmSync(above, { recursive: true });
  }
});
