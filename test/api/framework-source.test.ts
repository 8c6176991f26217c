/**
 * Goal: a directory that is written for the npm functions framework deploys without a change, and functions that are not
 * stay what they are. Method: real gateways and sources of every kind; packages are local, so that no registry is needed.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import {
  javascript,
  makeDataDirectory,
  python,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  env: { PATH: process.env.PATH! },
  settings: { bufferedBodyBytesMax: '1Mi' },
});
const { put, call, client } = gateway;
const textOf = async (path: string) => (await call(path)).text();

const packageName = '@google-cloud/functions-framework';
const register = `const functions = require('${packageName}');\n`;

function source(files: Record<string, string>, more: FunctionDefinition = {}): FunctionDefinition {
  return { runtime: 'node', source: { files }, ...more };
}

/** Why the version of such a function failed. */
async function failureOf(name: string, definition: FunctionDefinition): Promise<string> {
  const { function: view } = await client.putFunction(name, definition, { wait: '30s' });
  assert.equal(view.state, 'failed');
  return view.latestVersion.failure!.message;
}

test('a package.json that needs the framework is enough, and ours answers in place of its own', async () => {
  const files = {
    'package.json': JSON.stringify({
      main: './lib/app',
      dependencies: { [packageName]: 'file:./framework' },
    }),
    'framework/package.json': JSON.stringify({ name: packageName, version: '5.0.5' }),
    'framework/index.js': 'throw new Error("the real one was loaded");',
    'lib/app.js': `${register}functions.http('function', (req, res) => res.send('by main'));`,
    'index.js': 'throw new Error("not the entry");',
  };
  await put('by-package', source(files));
  assert.equal(await textOf('/function/by-package'), 'by main');
});

test('without an entry the file is found as the framework finds it', async () => {
  const env = { FUNCTION_TARGET: 'f' };
  const says = (text: string) => `exports.f = (req, res) => res.send('${text}');`;
  const trees: Array<[files: Record<string, string>, expected: string]> = [
    [{ 'index.js': says('index'), 'function.js': says('function') }, 'index'],
    [{ 'function.js': says('function'), 'handler.js': says('handler') }, 'function'],
    [
      { 'package.json': '{"main":"lib"}', 'lib/index.js': says('lib'), 'index.js': says('index') },
      'lib',
    ],
    [{ 'package.json': '{"main":"gone.js"}', 'index.js': says('index') }, 'index'],
    [
      { 'index.ts': `export const f = (req: any, res: any) => res.send('typescript');` },
      'typescript',
    ],
  ];
  for (const [files, expected] of trees) {
    await put('found', source(files, { env }));
    assert.equal(await textOf('/function/found'), expected);
  }
});

test('functions register from modules of each kind', async () => {
  const handler = `(req, res) => res.send(req.method)`;
  const modules: Array<[file: string, code: string]> = [
    ['index.js', `${register}functions.http('f', ${handler});`],
    ['index.cjs', `const { http } = require('${packageName}');\nhttp('f', ${handler});`],
    ['index.mjs', `import { http } from '${packageName}';\nhttp('f', ${handler});`],
    ['index.mjs', `import functions from '${packageName}';\nfunctions.http('f', ${handler});`],
    ['index.mjs', `import * as functions from '${packageName}';\nfunctions.http('f', ${handler});`],
    [
      'index.ts',
      `import { http, type Request } from '${packageName}';\nimport { f } from './f.ts';\nhttp('f', f);`,
    ],
  ];
  const more = {
    'f.ts': `export const f = ${handler.replace('(req, res)', '(req: any, res: any)')};`,
  };
  for (const [file, code] of modules) {
    await put('registers', source({ [file]: code, ...more }, { entry: `${file}:f` }));
    assert.equal(await textOf('/function/registers'), 'GET', file);
  }
});

test('a registration beats the setting, the setting the environment, and http is the rest', async () => {
  const code = `${register}
    functions.cloudEvent('registered', event => ({ cloudevent: event.id }));
    exports.plain = (a, b) => b.status ? b.send('http') : { event: b.eventType ?? null, cloudevent: a.id };`;
  const cases: Array<[target: string, more: FunctionDefinition, expected: RegExp]> = [
    ['registered', { signature: 'http' }, /"cloudevent":"i"/],
    ['plain', { signature: 'event', env: { FUNCTION_SIGNATURE_TYPE: 'http' } }, /"event":"e"/],
    ['plain', { env: { FUNCTION_SIGNATURE_TYPE: 'event' } }, /"event":"e"/],
    ['plain', { env: { FUNCTION_TARGET: 'registered' } }, /^http$/],
    ['plain', { signature: 'http' }, /^http$/],
  ];
  for (const [target, more, expected] of cases) {
    await put('precedence', source({ 'index.js': code }, { entry: `:${target}`, ...more }));
    const response = await call('/function/precedence', {
      method: 'POST',
      body: JSON.stringify({ id: 'i', data: {}, context: { eventType: 'e' } }),
      headers: { 'content-type': 'application/json' },
    });
    assert.match(await response.text(), expected);
  }
});

test('functions of neither style nor setting stay what they are', async () => {
  await put(
    'web',
    javascript('export default request => new Response(new URL(request.url).pathname)'),
  );
  assert.equal(await textOf('/function/web/x'), '/x');
  await put('event', javascript('export const handle = event => ({ body: event.path });'));
  assert.equal(await textOf('/function/event/x'), '/x');
  // Asked for, and nothing registered: types and tools of the framework make nobody one of its functions.
  await put(
    'asks',
    javascript(`import '${packageName}';\nexport default () => new Response('web');`),
  );
  assert.equal(await textOf('/function/asks'), 'web');
});

test('mistakes are named, with what could be meant', async () => {
  const files = {
    'index.js': `${register}functions.http('one', () => {});\nexports.two = () => {};`,
  };
  const missing = await failureOf('mistaken', source(files, { signature: 'http' }));
  assert.match(
    missing,
    /Function 'function' is not defined.*one is registered, two is exported.*index\.js:NAME/,
  );
  const typescript = source({ 'index.ts': 'export const a = () => {};' }, { signature: 'http' });
  assert.match(await failureOf('mistaken', typescript), /a is exported.*entry: index\.ts:NAME/);
  const bad = source({ 'index.js': 'exports.f = {};' }, { entry: ':f', signature: 'http' });
  assert.match(await failureOf('mistaken', bad), /'f' needs to be of type function. Got: object/);
  const typed = source(
    { 'index.js': 'exports.f = () => {};' },
    { entry: ':f', signature: 'typed' },
  );
  assert.match(
    await failureOf('mistaken', typed),
    /must be one of: http, event, cloudevent; it is typed/,
  );
  const named = source({ 'index.js': `${register}functions.http('1', () => {});` });
  assert.match(await failureOf('mistaken', named), /Invalid function name: 1/);
  const response = await gateway.control('/v1/namespaces/default/functions/mistaken', {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      runtime: 'shell',
      source: { files: { 'main.sh': 'date' } },
      signature: 'http',
    }),
  });
  assert.deepEqual(
    [response.status, ((await response.json()) as { code: string }).code],
    [422, 'DEFINITION_INVALID'],
  );
});

test('node and python functions have the environment of the platform, from warm processes', async () => {
  const names = ['K_SERVICE', 'K_REVISION', 'PORT', 'FUNCTION_TARGET', 'FUNCTION_SIGNATURE_TYPE'];
  const show = `JSON.stringify(${JSON.stringify(names)}.map(name => process.env[name] ?? null))`;
  const seen = async (name: string) => JSON.parse(await textOf(`/function/${name}`));
  await put('env-web', javascript(`export default () => new Response(${show})`));
  assert.deepEqual(await seen('env-web'), ['env-web', 'env-web-00001', '8080', null, null]);
  await put(
    'env-python',
    python(
      `import os, json\ndef handle(event, context):\n    return json.dumps([os.environ.get(n) for n in ${JSON.stringify(names)}])`,
    ),
  );
  assert.deepEqual(await seen('env-python'), [
    'env-python',
    'env-python-00001',
    '8080',
    null,
    null,
  ]);
  const shows = source({ 'index.js': `exports.f = (req, res) => res.send(${show});` });
  await put('env-framework', { ...shows, entry: ':f', signature: 'http' });
  const given = ['env-framework', 'env-framework-00001', '8080', 'f', 'http'];
  assert.deepEqual(await seen('env-framework'), given);
  const own = { K_SERVICE: 's', K_REVISION: 'r', PORT: '1', FUNCTION_TARGET: 'f' };
  await put('env-framework', { ...shows, env: own });
  assert.deepEqual(await seen('env-framework'), ['s', 'r', '1', 'f', 'http']);
  // A process that is started for one function has its environment from its start.
  const started = gateway.processes().flatMap(pid => environmentOf(pid) ?? []);
  assert.ok(started.length > 0, 'no process could be looked at');
  const late = started.filter(text => /\0(?:K_SERVICE|FUNCTION_TARGET)=/.test(text));
  assert.deepEqual(late, []);
});

/** What a process had in its environment when it started; undefined of one that has just ended. */
function environmentOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return undefined;
  }
}

test('the setting is part of the version', async () => {
  const definition = source(
    { 'index.js': 'exports.f = (req, res) => res.send("f");' },
    { entry: ':f' },
  );
  await put('versioned', { ...definition, signature: 'http' });
  const same = await put('versioned', { ...definition, signature: 'http' });
  assert.equal(same.function.latestVersion.number, 1);
  assert.equal(same.function.latestVersion.signature, 'http');
  const other = await put('versioned', { ...definition, signature: 'cloudevent' });
  assert.equal(other.function.latestVersion.number, 2);
});

test('a body that is longer than a whole one may be is refused', async () => {
  await put(
    'long',
    source(
      { 'index.js': 'exports.f = (req, res) => res.send(String(req.rawBody.length));' },
      { entry: ':f', signature: 'http' },
    ),
  );
  const post = async (length: number) =>
    call('/function/long', { method: 'POST', body: 'x'.repeat(length) });
  assert.equal(await (await post(1024 ** 2)).text(), String(1024 ** 2));
  assert.equal((await post(1024 ** 2 + 1)).status, 413);
});

test('an answer is written no faster than it is read, and the function hears that the caller left', async () => {
  const code = `exports.f = (req, res) => {
    let bytes = 0;
    const end = what => console.log(what, bytes);
    req.abortController.signal.addEventListener('abort', () => end('aborted ' + req.abortController.signal.reason));
    res.on('close', () => end('closed'));
    const write = () => {
      while (!res.destroyed) {
        bytes += 65536;
        if (!res.write('x'.repeat(65536))) { console.log('waits', bytes); return res.once('drain', write); }
      }
    };
    write();
  };`;
  await put('endless', source({ 'index.js': code }, { entry: ':f', signature: 'http' }));
  const lines = async () => (await client.readLogs('endless')).map(({ text }) => text);
  const caller = new AbortController();
  const response = await call('/function/endless', { signal: caller.signal });
  assert.equal(response.status, 200);
  // Nobody reads: sooner or later it waits.
  await waitFor(async () => (await lines()).some(line => line.startsWith('waits')));
  caller.abort();
  const closed = await waitFor(async () => (await lines()).find(line => line.startsWith('closed')));
  assert.ok(Number(closed.split(' ')[1]) < 64 * 1024 ** 2, closed);
  assert.ok((await lines()).some(line => line.startsWith('aborted request closed')));
  await waitFor(async () => (await client.getFunction('endless')).running?.busy === 0);
});

test('a call that is not answered in time is 504, and its place is free again', async () => {
  const code = `let calls = 0;
    exports.f = (req, res) => {
      if (++calls > 1) return res.send(String(calls));
      res.on('close', () => console.log('closed'));
    };`;
  await put(
    'silent',
    source(
      { 'index.js': code },
      {
        entry: ':f',
        signature: 'http',
        timeout: '300ms',
        concurrency: 1,
        instances: { max: 1 },
      },
    ),
  );
  assert.equal((await call('/function/silent')).status, 504);
  assert.equal(await textOf('/function/silent'), '2');
  assert.ok((await client.readLogs('silent')).some(({ text }) => text === 'closed'));
});

test('a gateway that starts again answers, also when what it had bundled is gone', async () => {
  const data = makeDataDirectory();
  try {
    const definition = source({
      'index.js': `${register}functions.http('f', (req, res) => res.json(req.query));`,
    });
    const first = await startTestGateway({ data });
    await first.put('again', { ...definition, entry: ':f' });
    await first.stop();
    const code = join(data, 'code');
    const bundles = readdirSync(code).filter(name => /^express-.*\.cjs$/.test(name));
    assert.equal(bundles.length, 1);
    rmSync(join(code, bundles[0]!));
    const second = await startTestGateway({ data });
    assert.equal(await (await second.call('/function/again?a=b')).text(), '{"a":"b"}');
    await second.stop();
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
});
