/**
 * Goal: what is remembered of a head changes nothing but the time it takes: who may call, what the function gets and what
 * it answers are those of each request. Method: connections on which the same bytes, and bytes that differ by a little, are
 * sent in turns, while functions and answers change.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { put, client } = gateway;

await put(
  'mirror',
  javascript(`export default async request => {
    const { pathname, search } = new URL(request.url);
    const body = await request.text();
    return Response.json({ method: request.method, path: pathname + search, body, headers: [...request.headers] });
  }`),
);

interface Seen {
  method: string;
  path: string;
  body: string;
  headers: Array<[string, string]>;
}

async function open() {
  const connection = await gateway.connect();
  return async (bytes: string, options: { bodiless?: boolean } = {}) => {
    connection.write(bytes);
    return connection.next(options);
  };
}

function request(path: string, more = '', method = 'GET'): string {
  return `${method} /function/${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
}

test('equal heads are calls of their own: ids and traces differ, nothing else does', async () => {
  const send = await open();
  const seen: Seen[] = [];
  for (let i = 0; i < 5; i++) {
    const { status, headers, body } = await send(request('mirror/a?b=c', 'X-One: 1\r\n'));
    assert.equal(status, 200);
    const call = JSON.parse(body) as Seen;
    const own = new Map(call.headers);
    assert.deepEqual(headers.get('x-call-id'), [own.get('x-call-id')]);
    seen.push(call);
  }
  for (const name of ['x-call-id', 'traceparent']) {
    const values = new Set(seen.map(call => new Map(call.headers).get(name)));
    assert.equal(values.size, seen.length, name);
  }
  const others = seen.map(call =>
    call.headers.filter(([name]) => name !== 'x-call-id' && name !== 'traceparent'),
  );
  for (const other of others) assert.deepEqual(other, others[0]);
  assert.deepEqual(new Map(others[0]).get('x-one'), '1');
  assert.deepEqual(new Map(others[0]).get('x-forwarded-for'), '127.0.0.1');
});

test('the caller’s own id and trace are given on each time', async () => {
  const send = await open();
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
  for (let i = 0; i < 3; i++) {
    const { headers, body } = await send(
      request('mirror', `X-Call-Id: mine\r\nTraceparent: ${traceparent}\r\n`),
    );
    assert.deepEqual(headers.get('x-call-id'), ['mine']);
    const own = new Map((JSON.parse(body) as Seen).headers);
    assert.deepEqual([own.get('x-call-id'), own.get('traceparent')], ['mine', traceparent]);
  }
});

test('a head that differs by a letter, by its body or by its end is not taken for the last one', async () => {
  const send = await open();
  const length = (n: number) => `Content-Length: ${n}\r\n`;
  const cases: Array<[bytes: string, expected: [string, string, string]]> = [
    [request('mirror/a'), ['GET', '/a', '']],
    [request('mirror/b'), ['GET', '/b', '']],
    [request('mirror/ab'), ['GET', '/ab', '']],
    [request('mirror/a'), ['GET', '/a', '']],
    [`${request('mirror/a', length(3), 'POST')}one`, ['POST', '/a', 'one']],
    [`${request('mirror/a', length(3), 'POST')}two`, ['POST', '/a', 'two']],
    [`${request('mirror/a', length(4), 'POST')}four`, ['POST', '/a', 'four']],
    [`${request('mirror/a', length(0), 'POST')}`, ['POST', '/a', '']],
    [request('mirror/a', 'X: y\r\n'), ['GET', '/a', '']],
    [request('mirror/a'), ['GET', '/a', '']],
  ];
  for (const [bytes, expected] of cases) {
    const seen = JSON.parse((await send(bytes)).body) as Seen;
    assert.deepEqual([seen.method, seen.path, seen.body], expected);
    assert.equal(new Map(seen.headers).has('x'), bytes.includes('X: y'));
  }
});

test('a remembered head, and its body in pieces', async () => {
  await put(
    'told',
    javascript(`
let calls = 0;
export default async request => {
  calls++;
  const { pathname } = new URL(request.url);
  return new Response(pathname === '/calls' ? String(calls) : await request.text());
};`),
  );
  const bytes = `${request('told', 'Content-Length: 5\r\n', 'POST')}inner`;
  const head = bytes.length - 5;
  for (const cut of [head, head + 1, head + 4]) {
    const connection = await gateway.connect();
    connection.write(bytes);
    assert.equal((await connection.next()).body, 'inner');
    connection.write(bytes.slice(0, cut));
    // What is sent now comes later than what was sent before: the first piece has been read by itself.
    await gateway.call('/function/told/calls');
    connection.write(bytes.slice(cut));
    const { status, body } = await connection.next();
    assert.deepEqual([status, body], [200, 'inner'], `cut at ${cut}`);
    connection.write(bytes + bytes);
    for (let i = 0; i < 2; i++) assert.equal((await connection.next()).body, 'inner');
  }
});

test('a remembered head that comes in pieces', async () => {
  const bytes = request('mirror/cut');
  for (const cut of [1, 20, bytes.length - 2]) {
    const connection = await gateway.connect();
    connection.write(bytes);
    assert.equal((await connection.next()).status, 200);
    connection.write(bytes.slice(0, cut));
    await gateway.call('/function/mirror');
    connection.write(bytes.slice(cut));
    const { status, body } = await connection.next();
    assert.deepEqual([status, (JSON.parse(body) as Seen).path], [200, '/cut'], `cut at ${cut}`);
  }
});

test('who may call is asked each time', async () => {
  await put('closed', javascript('export default () => new Response("in")', { auth: 'token' }));
  const { token } = await client.getToken('closed');
  const send = await open();
  const bytes = request('closed', `Authorization: Bearer ${token}\r\n`);
  for (let i = 0; i < 2; i++) assert.equal((await send(bytes)).body, 'in');
  await client.rotateToken('closed');
  assert.equal((await send(bytes)).status, 401);
  await put('closed', javascript('export default () => new Response("new")', { auth: 'none' }));
  assert.equal((await send(bytes)).body, 'new');
  await client.removeFunction('closed');
  assert.equal((await send(bytes)).status, 401);
});

test('one head: Authorization reaches the function while the gateway has no use for it', async () => {
  const shows = `export default request =>
    new Response(request.headers.get('authorization') ?? 'none')`;
  const plain = javascript(shows, { auth: 'none' });
  const closed = javascript(shows, { auth: 'token' });
  await put('shows', closed);
  const { token } = await client.getToken('shows');
  const send = await open();
  const bytes = request('shows', `Authorization: Bearer ${token}\r\n`);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 2; i++) assert.equal((await send(bytes)).body, 'none');
    await put('shows', plain);
    for (let i = 0; i < 2; i++) assert.equal((await send(bytes)).body, `Bearer ${token}`);
    await put('shows', closed);
  }
});

test('one head: the admin token never reaches a function', async () => {
  const send = await open();
  const bytes = request('mirror', `Authorization: Bearer ${gateway.adminToken}\r\n`);
  for (let i = 0; i < 3; i++)
    assert.ok(
      !new Map((JSON.parse((await send(bytes)).body) as Seen).headers).has('authorization'),
    );
});

test('one head: a new version, and headers that change from call to call, are answered as they are', async () => {
  const send = await open();
  const bytes = request('turns');
  for (const version of ['a', 'b']) {
    await put(
      'turns',
      javascript(`let calls = 0;
export default () => {
  const odd = calls++ % 2 === 1;
  const type = odd ? 'text/html' : 'image/png';
  return new Response('x', { headers: { 'content-type': type, 'x-v': '${version}' } });
};`),
    );
    for (let call = 0; call < 6; call++) {
      const { headers } = await send(bytes);
      const isOdd = call % 2 === 1;
      assert.deepEqual(headers.get('x-v'), [version]);
      assert.deepEqual(headers.get('content-type'), [isOdd ? 'text/html' : 'image/png']);
      assert.equal(headers.has('content-security-policy'), isOdd);
    }
  }
});

test('another function’s answer and HEAD in between get their own answers', async () => {
  const says = (type: string) =>
    javascript(
      `export default () => new Response('x', { headers: { 'content-type': '${type}', 'x-v': '${type}' } })`,
    );
  await put('typed', says('text/html'));
  await put('other', says('image/png'));
  const send = await open();
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 2; i++) {
      const { headers } = await send(request('typed'));
      assert.deepEqual(headers.get('content-type'), ['text/html']);
      assert.ok(headers.has('content-security-policy'));
      assert.deepEqual(headers.get('content-length'), ['1']);
    }
    const head = await send(request('typed', '', 'HEAD'), { bodiless: true });
    assert.deepEqual([head.status, head.body], [200, '']);
    const { headers } = await send(request('other'));
    assert.deepEqual(headers.get('content-type'), ['image/png']);
    assert.ok(!headers.has('content-security-policy'));
  }
});
