/**
 * Goal: what was an operation elsewhere is a function here: a server that takes and answers a flat map of strings, a script
 * whose arguments are keys of the body and whose result is a map, and a source given as a map of files. Method: whole gateway,
 * real scripts, a server that answers as its path says and counts what it was sent.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import { problemOf, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, client, control, put } = gateway;
const mebibyte = 1024 ** 2;

const received: Array<{ method: string; url: string; type: string; body: string }> = [];
const answers: Record<string, { status?: number; body: string }> = {
  '/list': { body: '[1]' },
  '/number': { body: '{"a":"1","b":1}' },
  '/text': { body: 'ok' },
  '/created': { status: 201, body: '{"a":"1"}' },
  '/broken': { status: 500, body: 'no such node\n' },
  '/longest': { body: JSON.stringify({ a: 'x'.repeat(2 * mebibyte - 8) }) },
  '/longer': { body: JSON.stringify({ a: 'x'.repeat(2 * mebibyte - 7) }) },
};
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', chunk => chunks.push(chunk));
  request.on('end', () => {
    const { method = '', url = '', headers } = request;
    const body = Buffer.concat(chunks).toString();
    received.push({ method, url, type: headers['content-type'] ?? '', body });
    if (url === '/silent') return;
    const answer = answers[url] ?? { body };
    response.writeHead(answer.status ?? 200, { 'x-own': 'dropped' }).end(answer.body);
  });
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
after(() => {
  server.closeAllConnections();
  server.close();
});

const operation = (path: string): FunctionDefinition => ({
  http: { url: `${address}${path}`, convention: 'operation' },
});
const post = (name: string, body: string, init: RequestInit = {}) =>
  call(`/function/${name}`, { method: 'POST', body, ...init });

describe('an http function with the convention of operations', () => {
  test('gets a POST with the caller’s own bytes, and answers with the server’s', async () => {
    await put('op', operation('/echo'));
    const body = '{ "a":"1",\n"ü":"" }';
    const response = await post('op', body, { method: 'PUT', headers: { 'content-type': 'x/y' } });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'application/json');
    assert.equal(response.headers.get('x-own'), null);
    assert.equal(await response.text(), body);
    assert.deepEqual(received.at(-1), {
      method: 'POST',
      url: '/echo',
      type: 'application/json',
      body,
    });
    assert.equal(await (await call('/function/op')).text(), '{}', 'no parameters are an empty map');
    assert.equal(received.at(-1)!.method, 'POST');
  });

  test('refuses what is no flat map of strings before anything is sent', async () => {
    await put('strict', operation('/echo'));
    const before = received.length;
    const cases: Array<[string, string, RegExp]> = [
      ['{"a":"1","b":2}', 'b', /b: expected text, not a number/],
      ['{"a":{"c":"d"}}', 'a', /not an object/],
      ['{"a":null}', 'a', /not null/],
      ['{"a":true,"b":[]}', 'a', /true or false \(and 1 more\)/],
      ['["a"]', '', /the body: expected a JSON object, not a list/],
    ];
    for (const [body, path, detail] of cases) {
      const problem = await problemOf(
        await post('strict', body),
        { status: 422, code: 'INPUT_INVALID' },
        body,
      );
      assert.match(problem.detail, detail);
      assert.equal(problem.issues?.[0]?.path, path);
    }
    const problem = await problemOf(await post('strict', '{"a":\n"b",}'), {
      status: 400,
      code: 'JSON_MALFORMED',
    });
    assert.match(problem.detail, /line 2, column 5/);
    assert.equal(received.length, before);
  });

  test('takes any other answer for a failure, and does not ask twice', async () => {
    const cases: Array<[string, RegExp]> = [
      ['/list', /is a list, not a map of strings/],
      ['/number', /has a number as "b"/],
      ['/text', /is not JSON/],
      ['/created', /answered 201/],
      ['/broken', /answered 500: no such node$/],
      ['/longer', /longer than 2097152 bytes/],
    ];
    for (const [path, detail] of cases) {
      const name = `op-${path.slice(1)}`;
      await put(name, operation(path));
      const before = received.length;
      const response = await post(name, '{}');
      assert.equal(response.headers.get('x-fnway-failure'), 'reply-invalid', path);
      const problem = await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' }, path);
      assert.match(problem.detail, detail);
      assert.equal(received.length, before + 1, path);
    }
    await put('op-longest', operation('/longest'));
    assert.equal((await (await post('op-longest', '{}')).text()).length, 2 * mebibyte);
  });

  test('a server that is not there, and one that does not answer, are told apart', async () => {
    const http = { url: 'http://127.0.0.1:1', convention: 'operation' as const };
    await put('nowhere', { http });
    await problemOf(await post('nowhere', '{}'), { status: 502, code: 'UPSTREAM_UNREACHABLE' });
    await put('silent', { ...operation('/silent'), timeout: '200ms' });
    await problemOf(await post('silent', '{}'), { status: 504, code: 'CALL_DEADLINE_EXCEEDED' });
  });

  test('is shown in its version, and a change of it is a new one', async () => {
    const first = await put('shown', { http: { url: address } });
    assert.equal(first.function.latestVersion.convention, undefined);
    const second = await put('shown', operation(''));
    assert.equal(second.function.latestVersion.convention, 'operation');
    assert.equal(second.version, 2);
    assert.equal((await put('shown', operation(''))).outcome, 'unchanged');
  });
});

const listing = 'printf "[%s]" "$#"; for word in "$@"; do printf "<%s>" "$word"; done';

describe('a script that takes arguments', () => {
  test('gets the literal ones, then keys of the body in order', async () => {
    await put('arguments', {
      script: listing,
      args: ['-h', 'a b'],
      argKeys: ['mount', 'depth', 'all'],
    });
    const body = '{"depth":12345678901234567890,"other":[],"all":false,"mount":"/a b"}';
    assert.equal(
      await (await post('arguments', body)).text(),
      '[5]<-h><a b></a b><12345678901234567890><false>',
    );
  });

  test('gets them as words, whatever is in them', async () => {
    await put('words', { script: listing, argKeys: ['a'] });
    for (const evil of ['$(id)', '`id`', '; id', '-rf', '', '\n', '"\'', '*', '\\', 'ü😀'])
      assert.equal(await (await post('words', JSON.stringify({ a: evil }))).text(), `[1]<${evil}>`);
  });

  test('also from a file of the shell runtime, with the body still on standard input', async () => {
    const files = { 'handler.sh': `#!/bin/sh\n${listing}; cat` };
    await put('file', { runtime: 'shell', source: { files }, args: ['-h'], argKeys: ['a'] });
    assert.equal(await (await post('file', '{"a":1.50}')).text(), '[2]<-h><1.50>{"a":1.50}');
    await put('file', { runtime: 'shell', source: { files }, argKeys: ['a'], stream: true });
    const chunked = new Blob(['{"a":"', 'x'.repeat(70_000), '"}']).stream();
    const response = await call('/function/file', {
      method: 'POST',
      body: chunked,
      duplex: 'half',
    });
    assert.match(await response.text(), /^\[1\]<x{70000}>\{"a"/);
  });

  test('is not run when a key is missing or is no word', async () => {
    await put('missing', { script: listing, argKeys: ['mount', 'toString', 'b'] });
    const cases: Array<[string, string[], RegExp]> = [
      ['{}', ['mount', 'toString', 'b'], /mount: is missing.*\(and 2 more\)/],
      ['', ['mount'], /./],
      ['{"mount":null,"toString":"a","b":"a"}', ['mount'], /not null/],
      ['{"mount":"a","toString":{},"b":[]}', ['toString', 'b'], /not an object/],
      ['{"mount":"a\\u0000","toString":"a","b":"a"}', ['mount'], /NUL/],
      [
        JSON.stringify({ mount: 'x'.repeat(100_001), toString: '', b: '' }),
        ['mount, toString, b'],
        /100001 bytes; 100000 are allowed/,
      ],
    ];
    for (const [body, paths, detail] of cases) {
      if (body === '') {
        await problemOf(await post('missing', ''), { status: 400, code: 'JSON_MALFORMED' });
        continue;
      }
      const problem = await problemOf(
        await post('missing', body),
        { status: 422, code: 'INPUT_INVALID' },
        body.slice(0, 99),
      );
      assert.deepEqual(
        problem.issues?.map(({ path }) => path),
        paths,
      );
      assert.match(problem.detail, detail);
    }
  });
});

describe('how a script ends', () => {
  const script = 'printf out; printf err >&2; exit "$1"';

  test('is no failure with a status that is allowed', async () => {
    await put('allowed', { script, argKeys: ['status'], allowExitCodes: [3] });
    const allowed = await post('allowed', '{"status":3}');
    assert.deepEqual([allowed.status, allowed.headers.get('x-exit-status')], [200, '3']);
    assert.equal(await allowed.text(), 'out');
    const zero = await post('allowed', '{"status":0}');
    assert.deepEqual([zero.status, zero.headers.get('x-exit-status')], [200, null]);
    const other = await post('allowed', '{"status":4}');
    assert.equal(other.headers.get('x-fnway-failure'), 'exit');
    await put('allowed', { script, argKeys: ['status'], allowExitCodes: 'any' });
    assert.equal((await post('allowed', '{"status":255}')).status, 200);
    await put('killed', { script: 'kill -9 $$', allowExitCodes: 'any' });
    assert.equal((await post('killed', '')).status, 502, 'nobody killed exits');
    await put('late', { script, argKeys: ['status'], allowExitCodes: [3], stream: true });
    assert.equal(await (await post('late', '{"status":3}')).text(), 'out');
  });

  test('is told in a result, with all that it wrote', async () => {
    const named = { result: { key: 'disk' }, allowExitCodes: [3] };
    await put('result', { script, argKeys: ['status'], ...named });
    const good = await post('result', '{"status":0}');
    assert.equal(good.headers.get('content-type'), 'application/json');
    assert.deepEqual(Object.keys((await good.json()) as object), ['operation.disk.output']);
    const bad = (await (await post('result', '{"status":3}')).json()) as Record<string, string>;
    assert.deepEqual(bad['operation.disk.output']!.match(/out|err/g)?.sort(), ['err', 'out']);
    assert.equal(bad['operation.disk.error'], 'exit status 3');
    await put('result', { script, argKeys: ['status'], result: 'json', allowExitCodes: 'any' });
    const plain = (await (await post('result', '{"status":1}')).json()) as Record<string, string>;
    assert.deepEqual(Object.keys(plain), ['output', 'error']);
    await put('result', { script, argKeys: ['status'], result: 'json' });
    await problemOf(await post('result', '{"status":1}'), { status: 502, code: 'FUNCTION_FAILED' });
  });
});

describe('definitions of operations', () => {
  const keys = { args: ['a'], argKeys: ['b'], allowExitCodes: [1], result: { key: 'k' } } as const;

  test('are shown as they were given, and empty lists make no version', async () => {
    const given = { args: ['a'], argKeys: ['b'], allowExitCodes: [1], result: { key: 'k' } };
    const { function: view } = await put('whole', { script: 'true', ...given });
    const { args, argKeys, allowExitCodes, result } = view.latestVersion;
    assert.deepEqual({ args, argKeys, allowExitCodes, result }, given);
    await put('empty', { script: 'true' });
    const empty = { args: [], argKeys: [], allowExitCodes: [] };
    assert.equal((await put('empty', { script: 'true', ...empty })).outcome, 'unchanged');
  });

  test('that make no sense are refused with the key', async () => {
    const source = { files: { 'handler.mjs': '' } };
    for (const [key, value] of Object.entries(keys)) {
      for (const kind of [{ http: { url: address } }, { runtime: 'node', source }])
        await refused({ ...kind, [key]: value }, key);
    }
    await refused({ script: 'x', stream: true, result: 'json' }, 'result');
    await refused({ script: 'x', args: ['a\0'] }, 'args');
    await refused({ script: 'x', argKeys: 'mount' }, 'argKeys');
    await refused({ script: 'x', args: Array.from({ length: 65 }, () => '') }, 'args');
    await refused({ script: 'x', args: ['x'.repeat(4097)] }, 'args');
    await refused({ script: 'x', allowExitCodes: [256] }, 'allowExitCodes');
    await refused({ script: 'x', result: { key: 'a b' } }, 'result');
    await refused({ http: { url: address, convention: 'soap' } }, 'http.convention');
  });

  async function refused(definition: object, key: string) {
    const response = await control('/v1/namespaces/default/functions/refused', {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(definition),
    });
    const what = JSON.stringify(definition).slice(0, 99);
    const problem = await problemOf(response, { status: 422, code: 'DEFINITION_INVALID' }, what);
    assert.ok(
      problem.issues?.some(({ path }) => path.startsWith(key)),
      `${what} ${JSON.stringify(problem)}`,
    );
  }
});

test('KubeDiag’s example, a map of two files, runs without a step between', async () => {
  const files = {
    'handler.py': `from .hello import hello
import json

def handle(event, context):
    hello()
    data = dict()
    if len(event.body) != 0:
        data = json.loads(event.body)
    result = dict()
    for key in data:
        result[key] = data[key]
    result["a"] = "1"
    result["b"] = "2"
    return {"statusCode": 200, "body": json.dumps(result)}
`,
    'hello.py': 'def hello():\n    print("hello")\n',
  };
  await put('diagnose', { runtime: 'python', source: { files } });
  const response = await post('diagnose', '{"node":"n1"}');
  assert.deepEqual(await response.json(), { node: 'n1', a: '1', b: '2' });
  const { 'hello.py': _, ...alone } = files;
  const result = await client.putFunction(
    'diagnose',
    { runtime: 'python', source: { files: alone } },
    { wait: '30s' },
  );
  const { failure } = result.function.latestVersion;
  assert.deepEqual([failure?.file, failure?.line], ['handler.py', 1]);
  assert.match(failure?.message ?? '', /hello/);
  for (const name of ['../hello.py', '/hello.py', 'a/../../hello.py', '..\\hello.py']) {
    const definition = { runtime: 'python', source: { files: { ...files, [name]: '' } } };
    await assert.rejects(
      client.putFunction('diagnose', definition),
      { code: 'SOURCE_INVALID' },
      name,
    );
  }
});
