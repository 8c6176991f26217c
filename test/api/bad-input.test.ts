/**
 * Goal: whatever is wrong with a request to the control plane or with the body of a call, the answer says what, where
 * and what to do, and nothing has changed. Method: tables of bad inputs; after each file's refusals the functions, their
 * versions and the sources are what they were. Broken HTTP is in
 * bad-http.test.ts, broken archives are in bad-source.test.ts.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  javascript,
  problemOf,
  python,
  rawProblemOf,
  startTestGateway,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  settings: { bufferedBodyBytesMax: '128Ki' },
});
const { call, put, client, control } = gateway;
const base = '/v1/namespaces/default/functions';
const sources = '/v1/namespaces/default/sources';
const invalid = { status: 422, code: 'DEFINITION_INVALID' } as const;
const json = { 'content-type': 'application/json' };

await put('stays', { script: 'cat' });
await put('event', javascript('export const handle = event => String(event.body.length);'));
await put('python', python('def handle(event, context):\n    return str(len(event.body))'));
await put(
  'web',
  javascript('export default async r => new Response(String((await r.bytes()).length));'),
);

/** All that a refused request must leave as it was. */
async function everything() {
  const { items } = await client.listFunctions();
  const blobs = readdirSync(join(gateway.data, 'blobs'), { recursive: true }).sort();
  const code = readdirSync(join(gateway.data, 'code')).sort();
  return { items, blobs, code };
}
const before = await everything();

function putText(text: string, headers: Record<string, string> = json): Promise<Response> {
  return control(`${base}/stays`, { method: 'PUT', headers, body: text });
}

test('malformed JSON is refused with line and column', async () => {
  const cases: Array<[text: string, line: number, column: number]> = [
    ['{"script": }', 1, 12],
    ['{\n  "script": "a",\n  "auth" "none"\n}', 3, 10],
    ['{\n"a": 1,\n}', 3, 1],
    ['{"a": 1', 1, 8],
    ['{"a": "\n"}', 1, 7],
    ['', 1, 1],
    ['   ', 1, 4],
    ['{"a":1} x', 1, 9],
    ["{'a': 1}", 1, 2],
    ['{"a": tru}', 1, 7],
    ['[1,\n2,\n3', 3, 2],
  ];
  for (const [text, line, column] of cases) {
    const response = await putText(text);
    const problem = await problemOf(response, { status: 400, code: 'JSON_MALFORMED' }, text);
    const issue = problem.issues?.[0];
    assert.deepEqual([issue?.line, issue?.column], [line, column], `${text}: ${problem.detail}`);
    assert.match(problem.detail, new RegExp(`line ${line}, column ${column}`));
  }
});

test('JSON that is no object is refused as a definition', async () => {
  for (const text of ['null', '1', '"x"', '[]', 'true'])
    await problemOf(await putText(text), invalid);
  const post = await control(base, { method: 'POST', headers: json, body: 'null' });
  await problemOf(post, invalid);
});

test('a wrong type is refused with the path to the field', async () => {
  const cases: Array<[definition: object, path: string, said: RegExp]> = [
    [{ script: 1 }, 'script', /string/],
    [{ script: 'x', env: { A: {} } }, 'env.A', /./],
    [{ script: 'x', env: { A: null } }, 'env.A', /./],
    [{ script: 'x', env: ['A'] }, 'env', /./],
    [{ script: 'x', env: { 'A-B': 'x' } }, 'env.A-B', /letters, digits and _/],
    [{ script: 'x', env: { FNWAY_A: 'x' } }, 'env', /FNWAY_/],
    [{ script: 'x', env: { A: 'a\0b' } }, 'env.A', /NUL/],
    [{ script: 'x', timeout: 30 }, 'timeout', /string/],
    [{ script: 'x', timeout: 'soon' }, 'timeout', /100ms, 30s/],
    [{ script: 'x', timeout: '0s' }, 'timeout', /at least 1ms/],
    [{ script: 'x', timeout: '25h' }, 'timeout', /at most 1d/],
    [{ script: 'x', memory: 'lots' }, 'memory', /256Mi/],
    [{ script: 'x', memory: '1Mi' }, 'memory', /16Mi/],
    [{ script: 'x', memory: 1.5 }, 'memory', /./],
    [{ script: 'x', concurrency: 0 }, 'concurrency', /./],
    [{ script: 'x', concurrency: 1.5 }, 'concurrency', /./],
    [{ script: 'x', concurrency: '2' }, 'concurrency', /number/],
    [{ script: 'x', instances: { min: -1 } }, 'instances.min', /./],
    [{ script: 'x', instances: { max: 0 } }, 'instances.max', /./],
    [{ script: 'x', instances: { min: 5 } }, 'instances', /min is larger than max/],
    [{ script: 'x', instances: { idle: 5 } }, 'instances.idle', /string/],
    [{ script: 'x', auth: 'basic' }, 'auth', /token/],
    [{ script: 'x', stream: 'yes' }, 'stream', /boolean/],
    [{ script: 'x', labels: { a: 1 } }, 'labels.a', /string/],
    [{ script: 'x', labels: { '': 'x' } }, 'labels.', /./],
    [{ script: 'x', project: 'My Project' }, 'project', /a-z/],
    [{ script: 'x', description: 'x'.repeat(1025) }, 'description', /1024/],
    [{ script: '' }, 'script', /./],
    [{ script: 'x'.repeat(262_145) }, 'script', /262144/],
    [{ http: { url: 'nowhere' } }, 'http.url', /http:\/\//],
    [{ http: 'http://a' }, 'http', /./],
    [{ runtime: 'node', source: {} }, 'source', /./],
    [{ runtime: 'node', source: 'dir' }, 'source', /./],
    [{ runtime: 'node', source: { files: {} } }, 'source.files', /no file/],
    [{ runtime: 'node', source: { files: { a: 1 } } }, 'source.files.a', /string/],
    [{ runtime: 'node', source: { digest: 'md5:1' } }, 'source.digest', /sha256/],
    [{ runtime: 'node', source: { files: { a: '' } }, entry: '/etc/passwd' }, 'entry', /relative/],
    [{ runtime: 'node', source: { files: { a: '' } }, entry: '../a' }, 'entry', /relative/],
    [{ runtime: 'node', source: { files: { a: '' } }, entry: 'a:b:c' }, 'entry', /HANDLER/],
    [
      {
        script: 'x',
        env: Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`A${i}`, ''])),
      },
      'env',
      /256/,
    ],
    [{ script: 'x', env: { A: 'x'.repeat(131_072) } }, 'env', /131072/],
    [
      {
        script: 'x',
        labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`a${i}`, ''])),
      },
      'labels',
      /64/,
    ],
  ];
  const wrong: string[] = [];
  for (const [definition, path, said] of cases) {
    const what = `${JSON.stringify(definition).slice(0, 200)} ${path}`;
    const problem = await problemOf(await putText(JSON.stringify(definition)), invalid, what);
    const issue = problem.issues?.find(candidate => candidate.path === path);
    if (!said.test(`${issue?.message} ${issue?.hint ?? ''}`))
      wrong.push(`${what}: ${JSON.stringify(problem.issues)}`);
    assert.ok(problem.detail.includes(problem.issues![0]!.path), problem.detail);
  }
  assert.deepEqual(wrong, []);
});

test('every wrong field is named, not only the first', async () => {
  const text = JSON.stringify({ script: 1, timeout: 'x', auth: 'y', instances: { min: 'z' } });
  const { issues, detail } = await problemOf(await putText(text), invalid);
  const paths = issues!.map(issue => issue.path).sort();
  assert.deepEqual(paths, ['auth', 'instances.min', 'script', 'timeout']);
  assert.match(detail, /and 3 more/);
});

test('an unknown key is refused with the nearest known one', async () => {
  const cases: Array<[definition: object, path: string, hint: RegExp]> = [
    [{ scirpt: 'x' }, 'scirpt', /did you mean script\?/],
    [{ script: 'x', timeOut: '1s' }, 'timeOut', /did you mean timeout\?/],
    [{ script: 'x', instances: { mx: 1 } }, 'instances.mx', /did you mean max\?/],
    [{ http: { uri: 'http://a' } }, 'http.uri', /did you mean url\?/],
    [{ script: 'x', zzzzzz: 1 }, 'zzzzzz', /known are .*script/],
    [{ runtime: 'node', source: { file: {} } }, 'source.file', /did you mean files\?/],
    [JSON.parse('{"script":"x","__proto__":{"a":1}}'), '__proto__', /known are/],
    [{ script: 'x', constructor: 1 }, 'constructor', /known are|did you mean/],
  ];
  for (const [definition, path, hint] of cases) {
    const problem = await problemOf(await putText(JSON.stringify(definition)), invalid, path);
    const issue = problem.issues?.find(candidate => candidate.path === path);
    assert.match(issue?.hint ?? '', hint, `${path}: ${JSON.stringify(problem.issues)}`);
  }
});

test('a key that would be lost without a word is refused', async () => {
  for (const key of ['env', 'buildEnv', 'labels', 'source.files']) {
    const inner = '{"__proto__":"x","constructor":"y"}';
    const definition = key === 'source.files' ? `"source":{"files":${inner}}` : `"${key}":${inner}`;
    const problem = await problemOf(
      await putText(`{"runtime":"node",${definition}}`),
      invalid,
      key,
    );
    assert.deepEqual(
      problem.issues?.map(issue => issue.path),
      [`${key}.__proto__`],
    );
  }
});

test('a definition nested deeper than calls can be is refused', async () => {
  const depth = 200_000;
  const text = `{"runtime":"node","labels":${'['.repeat(depth)}${']'.repeat(depth)}}`;
  await problemOf(await putText(text), invalid);
});

test('a definition with very many mistakes is refused at once and in few words', async () => {
  const keys = Array.from({ length: 20_000 }, (_, i) => [`k${i}`, 0]);
  const env = Object.fromEntries(keys.map(([key]) => [`${key}-`, {}]));
  for (const definition of [Object.fromEntries(keys), { script: 'x', env }]) {
    const startMs = performance.now();
    const response = await putText(JSON.stringify(definition));
    const text = await response.clone().text();
    const tookMs = Math.round(performance.now() - startMs);
    assert.ok(text.length < 100_000, `${text.length} characters in ${tookMs} ms`);
    await problemOf(response, invalid);
    assert.ok(tookMs < 2000, `${tookMs} ms`);
  }
});

test('a bad name is refused with the rule', async () => {
  const names = [
    'A',
    'a_b',
    '-a',
    'a-',
    'a.b',
    'a%2Fb',
    'ä',
    'a b',
    'x'.repeat(64),
    '%00',
    '__proto__',
  ];
  for (const name of names) {
    const path = `${base}/${encodeURI(name).replaceAll('%25', '%')}`;
    const response = await control(path, { method: 'PUT', headers: json, body: '{"script":"x"}' });
    const problem = await problemOf(response, invalid, name);
    assert.match(problem.detail, /name: use 1 to 63 of a-z/);
    const body = JSON.stringify({ name: decodeURIComponent(name), script: 'x' });
    const post = await control(base, { method: 'POST', headers: json, body });
    await problemOf(post, invalid, name);
    const other = `/v1/namespaces/${encodeURI(name).replaceAll('%25', '%')}/functions/a`;
    const space = await control(other, { method: 'PUT', headers: json, body: '{"script":"x"}' });
    await problemOf(space, invalid, name);
  }
  for (const body of ['{"script":"x"}', '{"name":1,"script":"x"}', '{"name":null,"script":"x"}']) {
    const response = await control(base, { method: 'POST', headers: json, body });
    assert.equal((await problemOf(response, invalid)).issues?.[0]?.path, 'name');
  }
});

test('a bad query parameter is refused with its name', async () => {
  const queries = [
    'limit=0',
    'limit=1001',
    'limit=x',
    'limit=1.5',
    'state=x',
    'project=A',
    'lable=a',
  ];
  for (const query of [...queries, `prefix=${'x'.repeat(64)}`, `cursor=${'x'.repeat(101)}`]) {
    const response = await control(`${base}?${query}`);
    const problem = await problemOf(response, { status: 400, code: 'QUERY_INVALID' }, query);
    assert.equal(problem.issues?.[0]?.path, query.split('=')[0]);
  }
  const logs = await control(`${base}/stays/logs?lines=-1`);
  await problemOf(logs, { status: 400, code: 'QUERY_INVALID' });
});

test('another media type than the route takes is refused', async () => {
  const types = ['text/plain', 'application/xml', 'multipart/form-data', 'application/jsonx', 'x'];
  const expected = { status: 415, code: 'MEDIA_TYPE_UNSUPPORTED' } as const;
  for (const type of [...types, 'application/gzip']) {
    const headers = { 'content-type': type };
    await problemOf(await putText('{"script":"x"}', headers), expected, type);
    const post = await control(base, { method: 'POST', headers, body: '{"name":"a"}' });
    await problemOf(post, expected, type);
  }
  // Whatever the function is called.
  const archive = { method: 'PUT', headers: { 'content-type': 'application/gzip' }, body: 'x' };
  await problemOf(await control(`${base}/sources`, archive), expected);
  for (const type of ['application/json', 'text/plain']) {
    const init = { method: 'POST', headers: { 'content-type': type }, body: '{}' };
    const upload = await control(sources, init);
    await problemOf(upload, { status: 415, code: 'MEDIA_TYPE_UNSUPPORTED' }, type);
  }
});

test('a query is refused where a route takes none, or not that key', async () => {
  const refused = { status: 400, code: 'QUERY_INVALID' } as const;
  const paths = ['', '/token', '/versions', '/versions/1', '/logs'].map(
    path => `${base}/stays${path}`,
  );
  for (const path of [...paths, base, '/v1/runtimes', '/v1/openapi.json']) {
    const problem = await problemOf(await control(`${path}?pretty=1`), refused, path);
    assert.equal(problem.issues?.[0]?.path, 'pretty', path);
  }
  const remove = await control(`${base}/stays?force=true`, { method: 'DELETE' });
  await problemOf(remove, refused);
  assert.equal((await control(`${base}/stays`)).status, 200);
});

test('a version is a decimal number from 1 on', async () => {
  for (const number of ['0', '0x1', '1.0', '-1', '1e1', '01', 'x', '9'.repeat(20)]) {
    const response = await control(`${base}/stays/versions/${number}`);
    await problemOf(response, { status: 400, code: 'QUERY_INVALID' }, number);
  }
});

test('an unknown route answers 404, a wrong method 405 with what it takes', async () => {
  for (const path of [
    '/v1',
    '/v1/x',
    '/x',
    '/v1/namespaces/default',
    `${base}/stays/x`,
    '/v2/functions',
    '/v1/x?y=1',
    `${base}/stays/x?y=1`,
  ])
    await problemOf(await control(path), { status: 404, code: 'ROUTE_NOT_FOUND' }, path);
  const wrong: Array<[method: string, path: string, allow: string[]]> = [
    ['DELETE', base, ['GET', 'POST']],
    ['PATCH', `${base}/stays`, ['DELETE', 'GET', 'PUT']],
    ['POST', `${base}/stays`, ['DELETE', 'GET', 'PUT']],
    ['PUT', `${base}/stays/token`, ['GET', 'POST']],
    ['DELETE', `${base}/stays/versions/1`, ['GET']],
    ['GET', sources, ['POST']],
    ['POST', '/v1/openapi.json', ['GET']],
    ['OPTIONS', '/v1/runtimes', ['GET']],
    ['PROPFIND', '/v1/runtimes', ['GET']],
  ];
  for (const [method, path, allow] of wrong) {
    const response = await control(path, { method });
    const allowed = (response.headers.get('allow') ?? '').split(', ').sort();
    await problemOf(response, { status: 405, code: 'METHOD_NOT_ALLOWED' }, `${method} ${path}`);
    assert.deepEqual(allowed, allow, path);
  }
});

test('a body over the limit of the control plane is refused', async () => {
  const large = `{"script":"${'x'.repeat(2 * 1024 ** 2)}"}`;
  const declared = await putText(large);
  await problemOf(declared, { status: 413, code: 'BODY_TOO_LARGE' });
  const connection = await gateway.connect();
  connection.write(
    `PUT ${base}/stays HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${gateway.adminToken}\r\n` +
      'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`;
  for (let i = 0; i < 33; i++) connection.write(chunk);
  rawProblemOf(await connection.next(), { status: 413, code: 'BODY_TOO_LARGE' });
  connection.destroy();
});

test('a body over the limit of a handler that needs it whole is refused, however it is sent', async () => {
  const limit = 128 * 1024;
  for (const name of ['event', 'python', 'stays']) {
    const fits = await call(`/function/${name}`, { method: 'POST', body: 'x'.repeat(limit) });
    assert.equal(fits.status, 200, name);
    await fits.body?.cancel();
    for (const way of ['declared', 'streamed']) {
      const body = 'x'.repeat(limit + 1);
      const response = await call(`/function/${name}`, {
        method: 'POST',
        body: way === 'declared' ? body : new Blob([body]).stream(),
        ...(way === 'streamed' && { duplex: 'half' }),
      });
      const problem = await problemOf(
        response,
        { status: 413, code: 'BODY_TOO_LARGE' },
        `${name} ${way}`,
      );
      assert.match(problem.detail, /131072|128 ?Ki/, way);
    }
    // The instance lives on.
    const next = await call(`/function/${name}`, { method: 'POST', body: 'x' });
    assert.equal(next.status, 200, name);
    await next.body?.cancel();
  }
  const long = await call('/function/web', { method: 'POST', body: 'x'.repeat(limit * 3) });
  assert.equal(await long.text(), String(limit * 3), 'a streamed body has no limit');
});

test('all these refusals have changed nothing', async () => {
  assert.deepEqual(await everything(), before);
});

test('a part of a path that is too long names nothing', async () => {
  const path = `/v1/namespaces/default/functions/${'a'.repeat(300)}`;
  await problemOf(await control(path), { status: 400, code: 'QUERY_INVALID' });
  await problemOf(await call(path), { status: 401, code: 'UNAUTHENTICATED' });
});
