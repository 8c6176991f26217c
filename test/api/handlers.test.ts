/**
 * Goal: code in every documented style of Node and Python runs as written, and what it throws answers 502 with its
 * place. Method: small sources in each style, deployed to a whole gateway.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import {
  javascript,
  problemOf,
  python,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client } = gateway;

type Files = Record<string, string>;
const node = (files: Files, more: FunctionDefinition = {}): FunctionDefinition => ({
  runtime: 'node',
  source: { files },
  ...more,
});
const textOf = async (path: string, init: RequestInit = {}) => (await call(path, init)).text();

/** The answer of a function that failed. */
async function failed(path: string, reason: string, init: RequestInit = {}) {
  const response = await call(path, init);
  assert.equal(response.headers.get('x-fnway-failure'), reason, path);
  const problem = await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' }, path);
  assert.equal(problem.reason, reason);
  return problem;
}

test('Node: the web styles answer, in JavaScript and TypeScript', async () => {
  const reply = `new Response('hi ' + request.method)`;
  const styles: Record<string, FunctionDefinition> = {
    'default-mjs': node({ 'handler.mjs': `export default request => ${reply};` }),
    'default-js': node({ 'handler.js': `export default async request => ${reply};` }),
    'default-ts': node({
      'handler.ts': `export default (request: Request): Response => ${reply};`,
    }),
    'default-index': node({
      'index.ts': `export default function (request: Request) { return ${reply}; }`,
    }),
    'fetch-object': node({
      'handler.ts': `export default { fetch(request: Request) { return ${reply}; } };`,
    }),
    'fetch-export': node({ 'handler.mjs': `export const fetch = request => ${reply};` }),
    'fetch-this': node({
      'handler.mjs': `export default { word: 'hi ', fetch(request) { return new Response(this.word + request.method); } };`,
    }),
    named: node(
      { 'lib/all.mts': `export const other = (request: Request) => ${reply};` },
      { entry: 'lib/all.mts:other' },
    ),
    'named-default-file': node(
      { 'handler.js': `export const other = request => ${reply};` },
      { entry: ':other' },
    ),
    cjs: node({ 'handler.js': `module.exports = request => ${reply};` }),
    'cjs-exports': node(
      { 'handler.cjs': `exports.other = request => ${reply};` },
      { entry: 'handler.cjs:other' },
    ),
    'cjs-package': node({
      'package.json': '{ "type": "commonjs" }',
      'index.js': `const text = require('./text.js'); exports.default = request => new Response(text + request.method);`,
      'text.js': `module.exports = 'hi ';`,
    }),
  };
  for (const [name, definition] of Object.entries(styles)) {
    await put(name, definition);
    assert.equal(await textOf(`/function/${name}`, { method: 'PUT' }), 'hi PUT', name);
  }
});

test('Node: no answer and no error costs the other calls of an instance', async () => {
  const code = `
const odd = {
  locked() { const body = new ReadableStream(); body.getReader(); return { body }; },
  next: () => ({ body: { next() {} } }),
  code() { throw Object.defineProperty(new Error('x'), 'code', { get() { throw new Error('y'); } }); },
  inspect() { throw { [Symbol.for('nodejs.util.inspect.custom')]() { throw new Error('y'); } }; },
  headers: () => ({ headers: { x: 'y'.repeat(40000) }, body: 'z' }),
  ending() {
    const body = (function* () { try { yield 'a'; } finally { throw new Error('x'); } })();
    body.next();
    return { headers: { x: 'y'.repeat(40000) }, body };
  },
  generator: () => ({ body: (function* () { throw { get message() { throw 1; } }; })() }),
};
export const handle = event => event.path === '/pid' ? process.pid : odd[event.path.slice(1)]();
`;
  await put('sturdy', javascript(code));
  const pid = await textOf('/function/sturdy/pid');
  for (const name of ['locked', 'code', 'inspect', 'headers', 'ending', 'generator']) {
    const answer = await call(`/function/sturdy/${name}`).then(
      async response => [response.status, await response.text().catch(() => 'broken off')],
      () => ['broken off'],
    );
    assert.ok(answer[0] === 502 || answer.at(-1) === 'broken off', `${name}: ${answer}`);
    assert.equal(await textOf('/function/sturdy/pid'), pid, name);
  }
  // An object with a function is no stream: it has a JSON form.
  assert.equal(await textOf('/function/sturdy/next'), '{}');
});

test('Node: an event may have a parameter and a header of any name', async () => {
  await put(
    'names',
    javascript(`export const handle = ({ query, headers }) => [
  query.constructor, query.toString, query.__proto__, headers.constructor, headers.missing ?? null,
];`),
  );
  const path = '/function/names?constructor=1&toString=2&__proto__=3';
  const answer = await call(path, { headers: { constructor: '4' } });
  assert.deepEqual(await answer.json(), ['1', '2', '3', '4', null]);
});

test('Node: an event handler gets the request as a value and answers with one', async () => {
  await put(
    'event',
    node({
      'handler.ts': `import type { Event } from 'fnway/function';
export async function handle(event: Event, context: { callId: string }) {
  const { method, path, query, headers } = event;
  if (path === '/text') return event.text();
  if (path === '/bytes') return event.body;
  if (path === '/nothing') return;
  if (path === '/iterated') return { body: (async function* () { yield 'a'; yield Buffer.from('b'); })() };
  return { statusCode: 201, headers: { 'x-a': ['1', '2'] },
    body: { method, path, query, tag: headers['x-tag'], json: event.json(), id: context.callId } };
}`,
    }),
  );
  const response = await call('/function/event/a%20b?x=1&x=2&y=', {
    method: 'POST',
    headers: { 'x-tag': 'tag' },
    body: '{"n":1}',
  });
  assert.equal(response.status, 201);
  assert.equal(response.headers.get('x-a'), '1, 2');
  assert.equal(response.headers.get('content-type'), 'application/json');
  const { id, ...rest } = (await response.json()) as Record<string, unknown>;
  assert.equal(id, response.headers.get('x-call-id'));
  const expected = {
    method: 'POST',
    path: '/a%20b',
    query: { x: '1', y: '' },
    tag: 'tag',
    json: { n: 1 },
  };
  assert.deepEqual(rest, expected);
  const body = { method: 'POST', body: 'däta' };
  assert.equal(await textOf('/function/event/text', body), 'däta');
  assert.equal(await textOf('/function/event/bytes', body), 'däta');
  assert.equal(await textOf('/function/event/nothing'), '');
  assert.equal(await textOf('/function/event/iterated'), 'ab');
});

test('several functions come from one file, each with its own env', async () => {
  const files = {
    'all.mjs': `const who = process.env.WHO;
export const one = () => new Response('one ' + who);
export const two = { fetch: () => new Response('two ' + who) };
export const handleThree = () => 'three ' + who;`,
  };
  const py = {
    'main.py': `import os
def foo(event, context): return "foo " + os.environ["WHO"]
async def bar(event, context): return "bar " + os.environ["WHO"]`,
  };
  const wanted = { one: 'one', two: 'two', handleThree: 'three', foo: 'foo', bar: 'bar' };
  for (const [handler, text] of Object.entries(wanted)) {
    const isPython = text === 'foo' || text === 'bar';
    await put(`of-${text}`, {
      runtime: isPython ? 'python' : 'node',
      source: { files: isPython ? py : files },
      entry: isPython ? `main.py:${handler}` : `all.mjs:${handler}`,
      env: { WHO: text },
    });
    assert.equal(await textOf(`/function/of-${text}`), `${text} ${text}`);
  }
});

test('fnway/function is imported without an install, and its log lines are output', async () => {
  await put(
    'sdk',
    node({
      'handler.ts': `import { defineFunction, log } from 'fnway/function';
export default defineFunction((request, context) => {
  log.info('called', { by: context.function });
  return new Response('sdk');
});`,
    }),
  );
  assert.equal(await textOf('/function/sdk'), 'sdk');
  const [line] = await waitFor(async () => {
    const lines = await client.readLogs('sdk');
    return lines.length > 0 && lines;
  });
  const entry = { severity: 'INFO', message: 'called', by: 'sdk' };
  assert.deepEqual([line!.stream, JSON.parse(line!.text)], ['stdout', entry]);
});

test('Node: what a handler throws or returns wrongly answers 502 with its place', async () => {
  await put(
    'wrong',
    node({
      'handler.ts': `interface Unused { a: string }
export default async (request: Request): Promise<any> => {
  const { pathname } = new URL(request.url);
  if (pathname === '/throw') throw new TypeError('as told');
  if (pathname === '/text') throw 'only text';
  if (pathname === '/null') throw null;
  if (pathname === '/later') return new Promise((_, no) => setTimeout(() => no(new Error('late')), 1));
  if (pathname === '/undefined') return undefined;
  if (pathname === '/string') return 'not a Response';
  return new Response('fine');
};`,
    }),
  );
  const threw = await failed('/function/wrong/throw', 'threw');
  assert.match(threw.detail, /TypeError: as told \(handler\.ts:4\)/);
  assert.match((await failed('/function/wrong/text', 'threw')).detail, /only text/);
  await failed('/function/wrong/null', 'threw');
  assert.match((await failed('/function/wrong/later', 'threw')).detail, /late \(handler\.ts:7\)/);
  for (const path of ['undefined', 'string'])
    assert.match((await failed(`/function/wrong/${path}`, 'reply-invalid')).detail, /Response/);
  assert.equal(await textOf('/function/wrong'), 'fine');
});

test('Node: a thrown value that has no text ends its own call only', async () => {
  await put(
    'odd',
    javascript(`export default request => {
  if (request.url.endsWith('/bare')) throw Object.create(null);
  if (request.url.endsWith('/getter')) throw { get message() { throw new Error('inner'); } };
  if (request.url.endsWith('/symbol')) throw Symbol('odd');
  return new Response(String(process.pid));
};`),
  );
  const pid = await textOf('/function/odd');
  for (const path of ['bare', 'getter', 'symbol']) await failed(`/function/odd/${path}`, 'threw');
  assert.equal(await textOf('/function/odd'), pid, 'the instance lives on');
});

test('an answer that breaks off mid-stream is seen as broken, and the next one works', async () => {
  await put(
    'breaks',
    javascript(`export default request => new Response((async function* () {
  yield new TextEncoder().encode('start');
  if (request.url.endsWith('/throw')) throw new Error('mid-stream');
  yield new TextEncoder().encode(' end');
})());`),
  );
  await put(
    'breaks-py',
    python(`def handle(event, context):
    yield b"start"
    if event.path == "/throw":
        raise ValueError("mid-stream")
    yield b" end"`),
  );
  for (const name of ['breaks', 'breaks-py']) {
    const response = await call(`/function/${name}/throw`);
    assert.equal(response.status, 200);
    await assert.rejects(response.text(), name);
    assert.equal(await textOf(`/function/${name}`), 'start end', name);
  }
});

test('Python: events, relative imports, return values and errors', async () => {
  await put('py', {
    runtime: 'python',
    source: {
      files: {
        'handler.py': `from .lib.words import word
import sibling
def handle(event, context):
    if event.path == "/raise":
        raise KeyError("as told")
    if event.path == "/tuple":
        return ("made", 201, {"x-a": "b"})
    if event.path == "/dict":
        return {"statusCode": 202, "headers": {"x-a": "b"}, "body": {"ok": True}}
    if event.path == "/set":
        return {1, 2}
    if event.path == "/none":
        return None
    return {"word": word + sibling.word, "method": event.method, "query": event.query.get("q"),
            "json": event.json(), "name": context.function, "version": context.version}
`,
        'lib/__init__.py': '',
        'lib/words.py': 'word = "rel"',
        'sibling.py': 'word = "sib"',
      },
    },
  });
  const response = await call('/function/py/x?q=1', { method: 'POST', body: '{"n":1}' });
  const expected = {
    word: 'relsib',
    method: 'POST',
    query: '1',
    json: { n: 1 },
    name: 'py',
    version: 1,
  };
  assert.deepEqual(await response.json(), expected);
  const tuple = await call('/function/py/tuple');
  assert.deepEqual(
    [tuple.status, tuple.headers.get('x-a'), await tuple.text()],
    [201, 'b', 'made'],
  );
  const dict = await call('/function/py/dict');
  assert.deepEqual([dict.status, await dict.json()], [202, { ok: true }]);
  assert.equal(await textOf('/function/py/none'), '');
  const { detail } = await failed('/function/py/raise', 'threw');
  assert.match(detail, /KeyError.*as told.*handler\.py:5/);
  await failed('/function/py/set', 'reply-invalid');
});

const functionFailed = { status: 502, code: 'FUNCTION_FAILED' } as const;

test('an error of any length and letters costs its own call only', async () => {
  await put(
    'long-error',
    javascript(
      `let release;
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/hold') { await new Promise(resolve => { release = resolve; }); return new Response('held'); }
  if (pathname === '/release') return release?.(), new Response(String(release !== undefined));
  const text = await request.text();
  if (pathname === '/named') throw new (class { static { Object.defineProperty(this, 'name', { value: text }); } })();
  throw new Error(text);
};`,
      { instances: { max: 1 } },
    ),
  );
  await put(
    'long-error-python',
    python(
      `import threading
held = threading.Event()
class Odd(dict):
    def keys(self): raise ValueError("odd")
class Mute(Exception):
    def __str__(self): raise SystemExit(3)
def handle(event):
    if event.path == "/hold":
        held.wait()
        return "held"
    if event.path == "/release":
        held.set()
        return "True"
    if event.path == "/keys": return Odd(a=1)
    if event.path == "/mute": raise Mute()
    if event.path == "/head": return (iter(["x"]), 200, {"a": "b" * 65520})
    if event.path == "/named": raise type(event.text, (Exception,), {})("m")
    raise Exception(event.text)`,
      { instances: { max: 1 }, timeout: '20s' },
    ),
  );
  for (const name of ['long-error', 'long-error-python']) {
    const at = (path: string, body?: string) =>
      call(`/function/${name}${path}`, body === undefined ? {} : { method: 'POST', body });
    const held = at('/hold');
    const texts = ['\x01'.repeat(12_000), '😀'.repeat(30_000), '"\\'.repeat(30_000)];
    for (const text of texts) {
      const problem = await problemOf(await at('/', text), functionFailed, name);
      assert.equal(problem.reason, 'threw');
    }
    await problemOf(await at('/named', 'N'.repeat(70_000)), functionFailed, name);
    const own = name === 'long-error' ? [] : ['/keys', '/mute', '/head'];
    for (const path of own) await problemOf(await at(path), functionFailed, path);
    await waitFor(async () => /true/i.test(await (await at('/release')).text()));
    assert.equal(await (await held).text(), 'held', name);
  }
});

test('Python: what a call held is let go when it ends, though its thread has no other call yet', async () => {
  await put(
    'lets-go',
    python(
      `import gc, threading, time, weakref
class Held: pass
last = None
made = threading.Event()
async def fails():
    global last
    held = Held()
    last = weakref.ref(held)
    made.set()
    raise ValueError("its trace reaches what it held")
def handle(event):
    if event.path == "/fails": return fails()
    made.wait(20)
    until = time.monotonic() + 20
    while last() is not None and time.monotonic() < until:
        gc.collect()
        time.sleep(0.005)
    return "let go" if last() is None else "kept"`,
      { instances: { max: 1 }, timeout: '50s' },
    ),
  );
  // The one that watches has a thread of its own throughout, so that the other's gets no second call.
  const watching = textOf('/function/lets-go/watches');
  await failed('/function/lets-go/fails', 'threw');
  assert.equal(await watching, 'let go');
});
