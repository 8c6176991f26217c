/**
 * Goal: each kind of function, a script, a server that already runs, source as files or as an archive, is deployed and
 * called as documented, others are refused; and the OpenAPI document says what the gateway does. Method: real servers
 * of node:http behind http functions; answers checked with zod schemas that are made from the document itself.
 */
import assert from 'node:assert/strict';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { z } from 'zod';
import { packTree } from '../../src/build/archive.ts';
import { treeFromFiles } from '../../src/build/source.ts';
import { javascript, problemOf, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client, control } = gateway;
const base = '/v1/namespaces/default/functions';
const servers = new Set<Server>();
after(() => {
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});

function send(method: string, path: string, body?: unknown): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return control(path, {
    method,
    ...(body !== undefined && { headers, body: JSON.stringify(body) }),
  });
}

async function serverOf(listener: RequestListener): Promise<{ url: string; server: Server }> {
  const server = createServer(listener);
  servers.add(server);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

async function refused(definition: object, said: RegExp, code = 'DEFINITION_INVALID' as const) {
  const response = await send('PUT', `${base}/refused`, definition);
  const problem = await problemOf(response, { status: 422, code }, JSON.stringify(definition));
  assert.match(problem.detail, said);
  const missing = await send('GET', `${base}/refused`);
  await problemOf(missing, { status: 404, code: 'FUNCTION_NOT_FOUND' }, 'nothing was made');
  return problem;
}

test('a script answers what it prints', async () => {
  await put('script', {
    script: 'printf "%s:" "$REQUEST_METHOD" "$GREETING"; cat',
    env: { GREETING: 'Hi' },
  });
  const response = await call('/function/script', { method: 'POST', body: 'body' });
  assert.equal(await response.text(), 'POST:Hi:body');
  const { latestVersion } = await client.getFunction('script');
  assert.deepEqual([latestVersion.kind, latestVersion.runtime], ['script', undefined]);
  assert.match(latestVersion.script!, /^printf/);
});

test('an http function is called with method, path, query, headers and body', async () => {
  const { url } = await serverOf((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', chunk => chunks.push(chunk));
    request.on('end', () => {
      const { method, url: target, headers } = request;
      const body = Buffer.concat(chunks).toString('latin1');
      response.writeHead(201, { 'x-server': 'yes', 'set-cookie': ['a=1', 'b=2'] });
      response.end(JSON.stringify({ method, target, headers, body }));
    });
  });
  await put('server', { http: { url: `${url}/check?fixed=1` } });
  const response = await call('/function/server/a%2Fb?q=2', {
    method: 'PATCH',
    headers: { 'x-mine': 'kept', 'x-call-id': 'label' },
    body: 'body',
  });
  assert.equal(response.status, 201);
  assert.equal(response.headers.get('x-server'), 'yes');
  assert.deepEqual(response.headers.getSetCookie(), ['a=1', 'b=2']);
  const seen = (await response.json()) as { headers: Record<string, string> } & Record<
    string,
    string
  >;
  assert.deepEqual([seen.method, seen.target], ['PATCH', '/check/a%2Fb?fixed=1&q=2']);
  assert.equal(seen.body, 'body');
  const { headers } = seen;
  assert.deepEqual([headers['x-mine'], headers['x-call-id']], ['kept', 'label']);
  assert.equal(headers.host, new URL(url).host);
  assert.equal(headers['x-forwarded-host'], `127.0.0.1:${gateway.port}`);
  assert.match(headers.traceparent!, /^00-/);
  for (const method of ['GET', 'HEAD', 'DELETE', 'PUT', 'OPTIONS', 'POST'])
    assert.equal((await call('/function/server', { method })).status, 201, method);
});

test("an http function's own errors are its answers, and its token stays here", async () => {
  const seen: Array<string | undefined> = [];
  const { url } = await serverOf((request, response) => {
    seen.push(request.headers.authorization);
    response.writeHead(Number(request.url!.slice(1)), { 'content-type': 'text/x' }).end('own');
  });
  await put('errors', { http: { url }, auth: 'token' });
  const { token } = await client.getToken('errors');
  for (const status of [400, 404, 418, 500, 503]) {
    const headers = { authorization: `Bearer ${token}` };
    const response = await call(`/function/errors/${status}`, { headers });
    assert.equal(response.status, status);
    assert.equal(response.headers.get('x-fnway-failure'), null);
    assert.deepEqual(
      [response.headers.get('content-type'), await response.text()],
      ['text/x', 'own'],
    );
  }
  assert.ok(seen.every(value => value === undefined));
});

test('a server that dies or is not there answers 502 with what to do, and comes back', async () => {
  const alive: RequestListener = (_request, response) => response.end('alive');
  const { url, server } = await serverOf(alive);
  const { port } = server.address() as AddressInfo;
  await put('mortal', { http: { url } });
  assert.equal(await (await call('/function/mortal')).text(), 'alive');
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
  servers.delete(server);
  for (let i = 0; i < 3; i++) {
    const response = await call('/function/mortal');
    const problem = await problemOf(response, { status: 502, code: 'UPSTREAM_UNREACHABLE' });
    assert.ok(problem.detail.includes(url));
  }
  const again = createServer(alive);
  servers.add(again);
  await new Promise<void>(resolve => again.listen(port, '127.0.0.1', resolve));
  assert.equal(await (await call('/function/mortal')).text(), 'alive');
});

test('a server that breaks off before or within its answer is not mistaken for a whole one', async () => {
  const { url } = await serverOf((request, response) => {
    if (request.url === '/before') return request.socket.destroy();
    response.writeHead(200, { 'content-length': '100' });
    response.write('half', () => request.socket.destroy());
  });
  await put('breaks', { http: { url } });
  const before = await call('/function/breaks/before');
  await problemOf(before, { status: 502, code: 'UPSTREAM_UNREACHABLE' });
  const within = await call('/function/breaks/within');
  assert.equal(within.status, 200);
  await assert.rejects(within.text());
  assert.equal((await call('/healthz')).status, 200);
});

test('an http function over its timeout answers 504', async () => {
  const { url } = await serverOf(() => {});
  await put('hangs', { http: { url }, timeout: '200ms' });
  const response = await call('/function/hangs');
  assert.equal(response.headers.get('x-fnway-failure'), 'timeout');
  await problemOf(response, { status: 504, code: 'CALL_DEADLINE_EXCEEDED' });
});

test('source files may be in directories and are executable where they say so', async () => {
  const files = {
    'handler.mjs': `import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { text } from './lib/deep/text.mjs';
const data = readFileSync(new URL('./data/ünï.txt', import.meta.url), 'utf8');
const ran = execFileSync('./bin/run.sh', { encoding: 'utf8' });
export default () => new Response(text + data + ran);`,
    'lib/deep/text.mjs': 'export const text = "text ";',
    'data/ünï.txt': 'däta ',
    'bin/run.sh': '#!/bin/sh\nprintf ran',
  };
  await put('files', { runtime: 'node', source: { files } });
  assert.equal(await (await call('/function/files')).text(), 'text däta ran');
});

test('an archive is uploaded once and deployed by its digest', async () => {
  const tree = treeFromFiles({ 'handler.py': 'def handle(event, context):\n    return "packed"' });
  const bytes = await packTree(tree);
  const sources = '/v1/namespaces/default/sources';
  const upload = () =>
    control(sources, {
      method: 'POST',
      headers: { 'content-type': 'application/gzip' },
      body: Buffer.from(bytes),
    });
  const response = await upload();
  assert.equal(response.status, 201);
  const { digest } = (await response.json()) as { digest: string };
  assert.match(digest, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(await (await upload()).json(), { digest });
  assert.deepEqual(await client.getSource(digest), { digest });
  const { function: view } = await put('packed', { runtime: 'python', source: { digest } });
  assert.equal(view.latestVersion.source, digest);
  assert.equal(await (await call('/function/packed')).text(), 'packed');
  // The same tree sent as text is the same source, so no new version.
  const files = { 'handler.py': 'def handle(event, context):\n    return "packed"' };
  const same = await put('packed', { runtime: 'python', source: { files } });
  assert.equal(same.outcome, 'unchanged');
  const missing = `sha256:${'0'.repeat(64)}`;
  assert.equal(await client.getSource(missing), undefined);
  const unknown = await send('GET', `${sources}/${missing}`);
  await problemOf(unknown, { status: 404, code: 'SOURCE_NOT_FOUND' });
  const definition = { runtime: 'python', source: { digest: missing } };
  const put422 = await send('PUT', `${base}/unsourced`, definition);
  await problemOf(put422, { status: 422, code: 'SOURCE_NOT_FOUND' });
});

test('a source of which another function lives outlives the removal of the first', async () => {
  const definition = javascript('export default () => new Response("shared")');
  await put('sharer-1', definition);
  const { function: second } = await put('sharer-2', definition);
  const digest = second.latestVersion.source!;
  await client.removeFunction('sharer-1');
  assert.deepEqual(await client.getSource(digest), { digest });
  await put('sharer-2', { ...definition, env: { A: '1' } });
  await client.removeFunction('sharer-2');
  assert.equal(await client.getSource(digest), undefined, 'nobody uses it any more');
});

test('an image is refused until there is a container driver', async () => {
  const definition = { image: 'example/resize:1.2', command: ['/app/server'], port: 8080 };
  const response = await send('PUT', `${base}/image`, definition);
  await problemOf(response, { status: 422, code: 'DRIVER_NOT_CONFIGURED' });
  await problemOf(await send('GET', `${base}/image`), { status: 404, code: 'FUNCTION_NOT_FOUND' });
});

test('a function is exactly one of source, script, http and image', async () => {
  const source = { files: { 'handler.mjs': '' } };
  await refused({}, /exactly one .*none is given/);
  await refused({ auth: 'none', env: {} }, /exactly one .*none is given/);
  await refused({ script: 'x', image: 'x' }, /exactly one .*script and image are given/);
  await refused(
    { runtime: 'node', source, http: { url: 'http://a' } },
    /source and http are given/,
  );
  await refused({ source }, /source needs a runtime/);
  await refused({ runtime: 'shell', script: 'x' }, /runtime is for source only/);
  await refused({ script: 'x', entry: 'a.sh' }, /entry is for source only/);
  await refused({ script: 'x', buildEnv: {} }, /buildEnv is for source only/);
  await refused(
    { http: { url: 'http://a' }, allowScripts: true },
    /allowScripts is for source only/,
  );
  await refused({ script: 'x', port: 80 }, /port is for image only/);
  await refused({ script: 'x', command: ['x'] }, /command is for image only/);
  await refused({ http: { url: 'ftp://a' } }, /http\.url/);
  await refused({ http: { url: '/relative' } }, /http\.url/);
});

test('an unknown runtime is refused with the nearest one', async () => {
  const source = { files: { x: '' } };
  for (const [runtime, hint] of [
    ['pyton', 'did you mean python?'],
    ['nodejs', 'did you mean node?'],
    ['shel', 'did you mean shell?'],
    ['cobol', 'it has go, node, python, shell'],
  ]) {
    const response = await send('PUT', `${base}/refused`, { runtime, source });
    const problem = await problemOf(response, { status: 422, code: 'RUNTIME_NOT_FOUND' }, runtime);
    assert.equal(problem.issues?.[0]?.path, 'runtime');
    assert.ok(problem.detail.includes(hint!), problem.detail);
  }
});

interface Operation {
  operationId: string;
  parameters: Array<{ in: string; name: string; required: boolean; schema: object }>;
  responses: Record<string, { description: string }>;
}

interface OpenApi {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object> };
}

/** Every `$ref` in a part of the document. */
function refsIn(value: unknown): string[] {
  if (value === null || typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === '$ref' ? [String(inner)] : refsIn(inner),
  );
}

test('the OpenAPI document is of version 3.1, complete and without loose ends', async () => {
  const document = (await client.getOpenApi()) as unknown as OpenApi;
  assert.match(document.openapi, /^3\.1\.\d+$/);
  const operations = Object.values(document.paths).flatMap(Object.values);
  const ids = operations.map(operation => operation.operationId);
  assert.equal(new Set(ids).size, ids.length);
  for (const [path, methods] of Object.entries(document.paths)) {
    const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    for (const operation of Object.values(methods)) {
      const inPath = operation.parameters.filter(parameter => parameter.in === 'path');
      assert.deepEqual(
        inPath.map(({ name }) => name),
        names,
      );
      assert.ok(inPath.every(({ required }) => required));
      assert.ok(operation.parameters.every(({ schema }) => typeof schema === 'object'));
      assert.ok(Object.values(operation.responses).every(({ description }) => description));
      assert.ok(operation.responses.default, 'an operation may fail');
    }
  }
  for (const ref of refsIn(document)) {
    const name = /^#\/components\/schemas\/(\w+)$/.exec(ref)?.[1];
    assert.ok(name !== undefined && name in document.components.schemas, ref);
  }
  for (const schema of Object.keys(document.components.schemas)) await schemaOf(schema);
});

/** A validator of the document's schema of this name, with what it refers to. */
async function schemaOf(name: string): Promise<z.ZodType> {
  const { components } = (await client.getOpenApi()) as unknown as OpenApi;
  const text = JSON.stringify({ $ref: `#/$defs/${name}`, $defs: components.schemas });
  const schema = JSON.parse(text.replaceAll('#/components/schemas/', '#/$defs/'));
  // Answers are taken by the letter: a key that the document does not name is one that it lacks.
  for (const definition of Object.values<Record<string, unknown>>(schema.$defs))
    if (definition.type === 'object') definition.additionalProperties ??= false;
  return z.fromJSONSchema(schema);
}

test('real answers are as the OpenAPI document says', async () => {
  await put('shaped', {
    ...javascript('console.log("line");\nexport default () => new Response("x");', {
      entry: ':default',
    }),
    labels: { a: 'b' },
    concurrency: 3,
    project: 'shop',
    instances: { min: 1 },
  });
  await client.putFunction('misshaped', javascript('throw new Error("x")'), { wait: '30s' });
  await put('shaped-http', { http: { url: 'http://127.0.0.1:1', convention: 'operation' } });
  const called = { args: ['a'], argKeys: ['b'], allowExitCodes: [1], result: { key: 'k' } };
  await put('shaped-script', { script: 'true', ...called });
  const schemas = {
    Function: [
      `${base}/shaped`,
      `${base}/misshaped`,
      `${base}/shaped-http`,
      `${base}/shaped-script`,
    ],
    Version: [`${base}/shaped/versions/1`, `${base}/misshaped/versions/1`],
    Token: [`${base}/shaped/token`],
    Problem: [`${base}/none`, `${base}?limit=0`, '/function/none', '/function/shaped@9', '/v1/x'],
  };
  for (const [name, paths] of Object.entries(schemas)) {
    const schema = await schemaOf(name);
    for (const path of paths) {
      const answer = (await (await control(path)).json()) as object;
      schema.parse(answer);
      assert.equal(schema.safeParse({ ...answer, unnamed: 1 }).success, false, 'checks too little');
    }
  }
  const pages = { Function: base, Version: `${base}/shaped/versions`, Runtime: '/v1/runtimes' };
  for (const [name, path] of Object.entries(pages)) {
    const { items } = (await (await control(path)).json()) as { items: unknown[] };
    z.array(await schemaOf(name))
      .min(1)
      .parse(items);
  }
  const result = await send('PUT', `${base}/shaped-2?wait=30s`, { script: 'true' });
  (await schemaOf('PutResult')).parse(await result.json());
  const lines = await client.readLogs('shaped');
  z.array(await schemaOf('OutputLine'))
    .min(1)
    .parse(lines);
});

test('definitions that the gateway takes and refuses, the document takes and refuses', async () => {
  const schema = await schemaOf('Definition');
  const source = { files: { a: '' } };
  const full = {
    runtime: 'node',
    source,
    entry: 'a:b',
    env: { A: 'x', B: 1, C: true },
    buildEnv: {},
    timeout: '1s',
    memory: '64Mi',
    concurrency: 1,
    instances: { min: 0, max: 1, idle: '1s' },
    auth: 'none',
    stream: false,
    allowScripts: false,
    args: [],
    argKeys: [],
    allowExitCodes: 'any',
    result: 'json',
    labels: { a: 'b' },
    description: '',
    project: 'a',
  };
  schema.parse(full);
  schema.parse({ ...full, memory: 64 * 1024 ** 2 });
  const wrong = [{ nothing: 1 }, { auth: 'x' }, { concurrency: 0 }, { instances: { mni: 1 } }];
  for (const part of [...wrong, { env: { 'A-B': 'x' } }, { source: {} }, { runtime: 'A b' }]) {
    assert.equal(schema.safeParse({ ...full, ...part }).success, false, JSON.stringify(part));
    const response = await send('PUT', `${base}/shaped`, { ...full, ...part });
    await problemOf(response, { status: 422, code: 'DEFINITION_INVALID' }, JSON.stringify(part));
  }
});
