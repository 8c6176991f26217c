/**
 * Goal: nobody gets in without the right token, nobody learns from a refusal what exists, and no token reaches code
 * that it was not meant for. Method: every route of the OpenAPI document and many that are none, with every kind of
 * wrong token; a Python function that shows the Authorization headers it got; raw bytes where headers repeat.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import {
  javascript,
  makeDataDirectory,
  parseAnswer,
  problemOf,
  python,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client, adminToken } = gateway;
const refused = { status: 401, code: 'UNAUTHENTICATED' } as const;

const shows = `
def handle(event, context):
    return {"seen": event.headers.getlist("authorization")}
`;
await put('locked', python(shows, { auth: 'token' }));
await put('other', python(shows, { auth: 'token' }));
await put('open', python(shows));
const team = client.inNamespace('team');
await team.putFunction('locked', python(shows, { auth: 'token' }), { wait: '30s' });
const token = (await client.getToken('locked')).token;
const teamToken = (await team.getToken('locked')).token;

interface Operation {
  method: string;
  path: string;
}

/** Every operation that the OpenAPI document names, with its parameters filled in. */
async function operations(): Promise<Operation[]> {
  const { paths } = (await client.getOpenApi()) as { paths: Record<string, object> };
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => ({
      method: method.toUpperCase(),
      path: path
        .replace('{namespace}', 'default')
        .replace('{name}', 'locked')
        .replace('{number}', '1')
        .replace('{digest}', `sha256:${'0'.repeat(64)}`),
    })),
  );
  return [...documented, { method: 'GET', path: '/v1/openapi.json' }];
}

/** What must not open the control plane. */
const wrongHeaders: Array<Record<string, string>> = [
  {},
  { authorization: '' },
  { authorization: 'Bearer' },
  { authorization: 'Bearer ' },
  { authorization: 'Token ' },
  { authorization: 'Bearer x' },
  { authorization: adminToken },
  { authorization: `Basic ${Buffer.from(`admin:${adminToken}`).toString('base64')}` },
  { authorization: `Digest ${adminToken}` },
  { authorization: `Bearer ${adminToken.slice(0, -1)}` },
  { authorization: `Bearer ${adminToken}x` },
  { authorization: `Bearer ${adminToken.toUpperCase()}` },
  { authorization: `Bearer ${adminToken} x` },
  { authorization: `Bearer ${token}` },
  { 'x-api-key': adminToken },
];

function call401(path: string, init: RequestInit, what: string) {
  return call(path, init).then(response => {
    assert.equal(response.headers.get('www-authenticate'), 'Bearer', what);
    return problemOf(response, refused, what);
  });
}

async function seen(response: Response): Promise<string[]> {
  assert.equal(response.status, 200, await response.clone().text());
  return ((await response.json()) as { seen: string[] }).seen;
}

test('every route of the control plane refuses every kind of wrong token', async () => {
  const all = await operations();
  assert.ok(all.length >= 14, `${all.length} operations`);
  for (const { method, path } of all) {
    for (const headers of wrongHeaders)
      await call401(path, { method, headers }, `${method} ${path} ${JSON.stringify(headers)}`);
  }
  assert.equal((await client.getToken('locked')).token, token, 'nothing was rotated');
  assert.equal((await client.getFunction('locked')).name, 'locked', 'nothing was removed');
});

test('routes that do not exist refuse as those that do', async () => {
  const paths = ['/', '/v1', '/v1/', '/v1/nothing', '/console', '/system/functions', '/function'];
  const more = ['/v1/namespaces/none/functions', '/v1/namespaces/BAD!/functions', '/metricsx'];
  for (const path of [...paths, ...more, `/v1/${'x'.repeat(500)}`, '/v1/%zz', '/v1//..//x']) {
    for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS', 'PATCH'])
      await call401(path, { method }, `${method} ${path}`);
    assert.equal((await call(path, { method: 'HEAD' })).status, 401, path);
  }
});

test('the token is looked at before the method, the media type and the body', async () => {
  const path = '/v1/namespaces/default/functions';
  const json = { 'content-type': 'application/json' };
  const requests: RequestInit[] = [
    { method: 'PATCH' },
    { method: 'POST', headers: json, body: '{' },
    { method: 'POST', headers: { 'content-type': 'text/x' }, body: 'x' },
    { method: 'POST', headers: json, body: 'x'.repeat(3 * 1024 ** 2) },
  ];
  for (const request of requests)
    await call401(path, request, JSON.stringify(request).slice(0, 99));
});

test('the admin token opens the control plane, as Bearer and as Token in any case', async () => {
  for (const scheme of ['Bearer', 'bearer', 'BEARER', 'Token', 'token', 'Bearer  ']) {
    const headers = { authorization: `${scheme} ${adminToken}` };
    assert.equal((await call('/v1/runtimes', { headers })).status, 200, scheme);
  }
});

test('a function token is taken as Token and as Bearer', async () => {
  for (const scheme of ['Token', 'Bearer', 'token', 'bearer']) {
    const headers = { authorization: `${scheme} ${token}` };
    assert.equal((await call('/function/locked', { headers })).status, 200, scheme);
  }
});

/** The bytes of an answer without what differs from call to call. */
function comparable(text: string): string {
  return text
    .replace(/Date: [^\r]*\r\n/, '')
    .replace(/"requestId":"req_\w+"/, '"requestId":""')
    .replace(/X-Call-Id: req_\w+/i, 'X-Call-Id: ');
}

test('an unknown name, a wrong token and no token get the same answer to the byte', async () => {
  await client.putFunction('broken', javascript('export default ('), { wait: '30s' });
  const names = ['locked', 'none', 'locked@1', 'locked@999', 'locked@x', 'locked@', 'none@1'];
  const more = ['locked.team', 'locked.none', 'locked.team@1', 'none.team', 'broken', 'broken@1'];
  const odd = ['', '.', '@', 'BAD', 'a.b.c', '..', '%6cocked', '__proto__', 'constructor'];
  const given = ['', 'Authorization: Bearer wrong\r\n', 'Authorization: Token \r\n'];
  const long = `Authorization: Bearer ${'x'.repeat(token.length)}\r\n`;
  // TE: only the thorough reader takes it; what that adds to a head is its own.
  for (const reader of ['', 'TE: trailers\r\n']) {
    const answers = new Map<string, string>();
    for (const name of [...names, ...more, ...odd]) {
      for (const header of [...given, long]) {
        const connection = await gateway.connect();
        connection.write(`GET /function/${name}/x?y HTTP/1.1\r\nHost: a\r\n${reader}${header}\r\n`);
        const text = await connection.until(/"requestId":"[^"]*".*\}/s);
        connection.destroy();
        const answer = parseAnswer(text);
        assert.equal(answer.status, 401, `${name} ${header}`);
        answers.set(comparable(text), `${name} ${header}`);
      }
    }
    assert.equal(answers.size, 1, [...answers].flat().join('\n'));
  }
});

test('the admin token sees what does not exist', async () => {
  const expected = [
    ['/function/none', 'FUNCTION_NOT_FOUND', 404],
    ['/function/locked.none', 'FUNCTION_NOT_FOUND', 404],
    ['/function/none@1', 'FUNCTION_NOT_FOUND', 404],
    ['/function/locked@999', 'VERSION_NOT_FOUND', 404],
    ['/function/locked@x', 'VERSION_NOT_FOUND', 404],
    ['/function/broken', 'VERSION_NOT_READY', 503],
    ['/function/broken@1', 'VERSION_NOT_READY', 503],
  ] as const;
  for (const [path, code, status] of expected)
    await problemOf(await gateway.control(path), { status, code }, path);
});

test("the holder of a function's token learns about its versions only", async () => {
  const headers = { authorization: `Bearer ${token}` };
  const missing = await call('/function/locked@999', { headers });
  await problemOf(missing, { status: 404, code: 'VERSION_NOT_FOUND' });
  await call401('/function/none', { headers }, 'another name');
  await call401('/function/other', { headers }, 'another function');
});

test('a token opens its own function in its own namespace, pinned or not', async () => {
  for (const path of ['/function/locked', '/function/locked.default', '/function/locked@1']) {
    const own = await call(path, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(own.status, 200, path);
    await call401(path, { headers: { authorization: `Bearer ${teamToken}` } }, path);
  }
  for (const path of ['/function/locked.team', '/function/locked.team@1']) {
    const own = await call(path, { headers: { authorization: `Bearer ${teamToken}` } });
    assert.equal(own.status, 200, path);
    await call401(path, { headers: { authorization: `Bearer ${token}` } }, path);
  }
});

test('a function token does not reach the function', async () => {
  for (const path of ['/function/locked', '/function/locked@1']) {
    for (const te of [undefined, 'trailers']) {
      const headers = new Headers({ authorization: `Token ${token}` });
      if (te !== undefined) headers.set('te', te);
      assert.deepEqual(await seen(await call(path, { headers })), [], path);
    }
  }
});

test('the admin token calls any function and reaches none', async () => {
  for (const path of [
    '/function/locked',
    '/function/open',
    '/function/locked.team',
    '/function/open@1',
  ])
    assert.deepEqual(await seen(await gateway.control(path)), [], path);
});

test('two Authorization headers are refused: one could carry a token past the other', async () => {
  for (const values of [
    ['Bearer foreign', `Bearer ${adminToken}`],
    [`Bearer ${adminToken}`, 'Bearer foreign'],
    [`Bearer ${token}`, `Bearer ${token}`],
  ]) {
    for (const name of ['open', 'locked']) {
      const lines = values.map(value => `Authorization: ${value}\r\n`).join('');
      const answer = await gateway.raw(
        `GET /function/${name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${lines}\r\n`,
      );
      assert.match(answer, /^HTTP\/1\.1 400 /);
      assert.match(answer, /"code":"REQUEST_MALFORMED"/);
    }
  }
});

test('a foreign Authorization reaches a function that asks for none', async () => {
  for (const value of [
    'Bearer of.another.issuer',
    'Basic eDp5',
    'Token ',
    'nonsense',
    `X ${token}`,
  ]) {
    const got = await seen(await call('/function/open', { headers: { authorization: value } }));
    assert.deepEqual(got, [value.trim()]);
  }
});

test('a token is rotated also by a client that names a type and sends nothing', async () => {
  await gateway.put('typed', { script: 'true' });
  const headers = { 'content-type': 'application/json' };
  const response = await gateway.control('/v1/namespaces/default/functions/typed/token', {
    method: 'POST',
    headers,
  });
  assert.equal(response.status, 200);
});

test('a rotated token is good at once and the old one void at once', async () => {
  await put('rotated', javascript('export default () => new Response("in")', { auth: 'token' }));
  let { token: current } = await client.getToken('rotated');
  for (let i = 0; i < 5; i++) {
    const { token: next } = await client.rotateToken('rotated');
    assert.notEqual(next, current);
    const [older, newer] = await Promise.all(
      [current, next].map(text =>
        call('/function/rotated', { headers: { authorization: `Token ${text}` } }),
      ),
    );
    assert.deepEqual([older!.status, newer!.status], [401, 200]);
    assert.equal((await client.getToken('rotated')).token, next);
    current = next;
  }
  assert.equal((await client.listVersions('rotated')).items.length, 1, 'no version was made');
});

test('a change of auth holds from the next call on', async () => {
  const definition = javascript('export default () => new Response("in")');
  await put('switched', definition);
  for (const auth of ['token', 'none', 'token'] as const) {
    await client.putFunction('switched', { ...definition, auth });
    const response = await call('/function/switched');
    assert.equal(response.status, auth === 'none' ? 200 : 401);
    await response.body?.cancel();
  }
  assert.equal((await client.listVersions('switched')).items.length, 1);
});

test('a function without auth in its definition asks for its token', async () => {
  const definition = javascript('export default () => new Response("in")');
  const { function: made } = await client.putFunction('unsaid', definition, { wait: '30s' });
  assert.equal(made.auth, 'token');
  await call401('/function/unsaid', {}, 'unsaid');
});

test('a token is shown on its own route only', async () => {
  const texts = await Promise.all(
    ['/v1/namespaces/default/functions', '/v1/namespaces/default/functions/locked', '/metrics'].map(
      async path => (await gateway.control(path)).text(),
    ),
  );
  for (const text of texts) {
    assert.ok(!text.includes(token));
    assert.ok(!text.includes(adminToken));
  }
});

test('a configured admin token replaces that of the data directory unless it is weak or empty', async () => {
  const data = makeDataDirectory();
  const withToken = (text: string) => startTestGateway({ data, env: { FNWAY_ADMIN_TOKEN: text } });
  const opens = async (other: TestGateway, text: string) =>
    (await other.call('/v1/runtimes', { headers: { authorization: `Bearer ${text}` } })).status;
  try {
    const first = await startTestGateway({ data });
    const made = first.adminToken;
    await first.put('locked', python(shows, { auth: 'token' }));
    const { token: kept } = await first.client.rotateToken('locked');
    await first.stop();
    const second = await withToken('configured-admin-token');
    assert.equal(await opens(second, 'configured-admin-token'), 200);
    assert.equal(await opens(second, made), 401);
    assert.equal((await second.client.getToken('locked')).token, kept, 'rotation survives');
    await second.stop();
    for (const weak of ['', 'short', 'has spaces in it, many', 'ünïcödé-ünïcödé-ünïcödé'])
      await assert.rejects(startTestGateway({ env: { FNWAY_ADMIN_TOKEN: weak } }), {
        code: 'CONFIG_INVALID',
      });
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
});

test('beyond loopback the metrics need the admin token, health does not', async () => {
  const wide = await startTestGateway({ settings: { host: '0.0.0.0' } });
  const at = (path: string, headers = {}) =>
    fetch(`http://127.0.0.1:${wide.port}${path}`, { headers });
  try {
    const bare = await at('/metrics');
    assert.equal(bare.headers.get('www-authenticate'), 'Bearer');
    await problemOf(bare, refused);
    await problemOf(await at('/metrics', { authorization: 'Bearer ' }), refused);
    const headers = { authorization: `Bearer ${wide.adminToken}` };
    assert.equal((await at('/metrics', headers)).status, 200);
    assert.equal((await at('/healthz')).status, 200);
    assert.equal((await at('/readyz')).status, 200);
  } finally {
    await wide.stop();
  }
});
