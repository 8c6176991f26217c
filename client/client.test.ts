/**
 * Goal: the client sends what the routes expect and turns every kind of answer into a value or an
 * ApiError. Method: a node:http server that records requests and answers what the test says; no
 * gateway.
 */
import assert from 'node:assert/strict';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { ApiError, type Client, createClient, endpointPath, type Fetch } from './client.ts';

interface Recorded {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

let url = '';
let requests: Recorded[] = [];
let answer: (response: ServerResponse, request: Recorded) => void;
let client: Client;

const server = createServer(async (request, response) => {
  const body = Buffer.concat(await Array.fromAsync(request));
  const { method = '', url = '', headers } = request;
  requests.push({ method, url, headers, body });
  answer(response, requests.at(-1)!);
});

before(async () => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  requests = [];
  client = createClient({ url: `${url}/`, token: 'secret' });
  answer = response => json(response, 200, {});
});

function json(response: ServerResponse, status: number, value: unknown): void {
  const type = status < 400 ? 'application/json' : 'application/problem+json';
  response.writeHead(status, { 'content-type': type }).end(JSON.stringify(value));
}

function problem(code: string, status: number) {
  return { type: `urn:fnway:error:${code}`, title: 'T', status, code, detail: 'D', remedy: 'R' };
}

const functions = '/v1/namespaces/default/functions';
const team = (c: Client) => c.inNamespace('team');
for (const [name, call, expected] of [
  ['getFunction', c => c.getFunction('a'), `GET ${functions}/a`],
  ['a name is escaped', c => c.getFunction('a/b?c'), `GET ${functions}/a%2Fb%3Fc`],
  ['createFunction', c => c.createFunction('a', {}, { wait: '1s' }), `POST ${functions}?wait=1s`],
  ['putFunction', c => c.putFunction('a', {}, { wait: '1s' }), `PUT ${functions}/a?wait=1s`],
  ['removeFunction', c => c.removeFunction('a'), `DELETE ${functions}/a`],
  ['listVersions', c => c.listVersions('a'), `GET ${functions}/a/versions`],
  ['getVersion', c => c.getVersion('a', 2), `GET ${functions}/a/versions/2`],
  ['getToken', c => c.getToken('a'), `GET ${functions}/a/token`],
  ['rotateToken', c => c.rotateToken('a'), `POST ${functions}/a/token`],
  ['listRuntimes', c => c.listRuntimes(), 'GET /v1/runtimes'],
  ['getOpenApi', c => c.getOpenApi(), 'GET /v1/openapi.json'],
  ['getSource', c => c.getSource('sha256:0'), 'GET /v1/namespaces/default/sources/sha256%3A0'],
  ['putSource', c => c.putSource(new Uint8Array([1])), 'POST /v1/namespaces/default/sources'],
  ['another namespace', c => team(c).getFunction('a'), 'GET /v1/namespaces/team/functions/a'],
  [
    'listFunctions',
    c => c.listFunctions({ labels: ['a=b', 'c=d'], state: 'ready', prefix: 'x', limit: 5 }),
    `GET ${functions}?state=ready&prefix=x&limit=5&label=a%3Db&label=c%3Dd`,
  ],
] as [string, (client: Client) => Promise<unknown>, string][]) {
  test(`${name} asks the route with the token`, async () => {
    await call(client);
    assert.equal(`${requests[0]!.method} ${requests[0]!.url}`, expected);
    assert.equal(requests[0]!.headers.authorization, 'Bearer secret');
  });
}

test('a definition is sent as JSON, an archive as it is', async () => {
  await client.createFunction('a', { script: 'x' });
  await client.putSource(new Uint8Array([1, 2, 255]));
  assert.deepEqual(JSON.parse(requests[0]!.body.toString()), { name: 'a', script: 'x' });
  assert.equal(requests[0]!.headers['content-type'], 'application/json');
  assert.deepEqual([...requests[1]!.body], [1, 2, 255]);
  assert.equal(requests[1]!.headers['content-type'], 'application/gzip');
});

test('without a token none is sent', async () => {
  await createClient({ url }).listRuntimes();
  assert.equal(requests[0]!.headers.authorization, undefined);
});

test('all pages are read, one after the other', async () => {
  answer = (response, { url }) =>
    json(response, 200, url.includes('cursor=b') ? { items: [3] } : { items: [1, 2], next: 'b' });
  assert.deepEqual(await Array.fromAsync(client.eachFunction()), [1, 2, 3]);
});

test('a problem of the gateway is an ApiError with all that it says', async () => {
  const sent = { ...problem('DEFINITION_INVALID', 422), issues: [{ path: 'a', message: 'b' }] };
  answer = response => json(response, 422, sent);
  await assert.rejects(client.getFunction('a'), (error: ApiError) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.code, error.status, error.message], ['DEFINITION_INVALID', 422, 'D']);
    assert.deepEqual(error.problem, sent);
    return true;
  });
});

test('a source that the gateway lacks is undefined; other problems are thrown', async () => {
  answer = response => json(response, 404, problem('SOURCE_NOT_FOUND', 404));
  assert.equal(await client.getSource('sha256:1'), undefined);
  answer = response => json(response, 401, problem('UNAUTHENTICATED', 401));
  await assert.rejects(client.getSource('sha256:1'), { code: 'UNAUTHENTICATED' });
});

for (const [status, body] of [
  [502, '<html>Bad Gateway</html>'],
  [404, '{"message":"no"}'],
  [200, '<html>Welcome</html>'],
] as const) {
  test(`an answer ${status} ${body} is not a gateway's, and says so`, async () => {
    answer = response => response.writeHead(status).end(body);
    await assert.rejects(client.getFunction('a'), (error: ApiError) => {
      assert.equal(error.code, 'GATEWAY_UNREACHABLE');
      assert.match(error.problem.detail, new RegExp(`answered ${status} to GET /v1/`));
      assert.match(error.problem.remedy!, /FNWAY_URL/);
      return true;
    });
  });
}

test('a gateway that does not run is GATEWAY_UNREACHABLE: what, why and what to do', async () => {
  const closed = createServer();
  await new Promise<void>(resolve => closed.listen(0, '127.0.0.1', resolve));
  const { port } = closed.address() as AddressInfo;
  await new Promise(resolve => closed.close(resolve));
  const nobody = createClient({ url: `http://127.0.0.1:${port}` });
  for (const call of [nobody.getFunction('a'), nobody.invoke('a')]) {
    await assert.rejects(call, (error: ApiError) => {
      assert.equal(error.code, 'GATEWAY_UNREACHABLE');
      assert.match(error.message, new RegExp(`127.0.0.1:${port} does not answer.*ECONNREFUSED`));
      assert.match(error.problem.remedy!, /fnway serve/);
      return true;
    });
  }
});

test('a connection that breaks in the middle of an answer is GATEWAY_UNREACHABLE', async () => {
  answer = response => {
    response.writeHead(200, { 'content-length': '100' }).write('{"a":');
    setImmediate(() => response.destroy());
  };
  await assert.rejects(client.getFunction('a'), { code: 'GATEWAY_UNREACHABLE' });
});

test('an abort is thrown as what the caller gave', async () => {
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  await assert.rejects(client.getFunction('a', { signal }), reason);
});

test('an address that is not http is refused at once', () => {
  assert.throws(() => createClient({ url: 'ftp://x' }), TypeError);
  assert.throws(() => createClient({ url: 'x' }), TypeError);
});

test('the fetch that is given is used, always with text and init', async () => {
  const seen: [string, RequestInit][] = [];
  const fetch: Fetch = async (address, init) => {
    seen.push([address, init]);
    return Response.json({ items: [] });
  };
  await createClient({ url: 'http://in.process/base/', fetch }).listRuntimes();
  assert.equal(seen[0]![0], 'http://in.process/base/v1/runtimes');
  assert.equal(seen[0]![1].method, 'GET');
});

test('invoke passes all that it is given, and returns the answer whatever its status', async () => {
  answer = response => response.writeHead(418, { 'x-a': 'b' }).end('teapot');
  const response = await client.invoke('hello', {
    method: 'PUT',
    path: '/a%2Fb?c=d',
    headers: { 'x-custom': 'e', 'content-type': 'text/x' },
    body: 'data',
    version: 3,
  });
  assert.deepEqual([response.status, await response.text()], [418, 'teapot']);
  const [sent] = requests;
  assert.equal(`${sent!.method} ${sent!.url}`, 'PUT /function/hello@3/a%2Fb?c=d');
  assert.deepEqual([sent!.headers['x-custom'], sent!.body.toString()], ['e', 'data']);
});

test('invoke is a GET without a body, a POST with one; a stream is sent as it comes', async () => {
  await client.invoke('a');
  await client.invoke('a', { body: new Blob(['one', 'two']).stream() });
  assert.deepEqual([requests[0]!.method, requests[1]!.method], ['GET', 'POST']);
  assert.equal(requests[1]!.body.toString(), 'onetwo');
});

test('an Authorization header of the caller is sent instead of the token', async () => {
  await client.invoke('a', { headers: { Authorization: 'Token own' } });
  assert.equal(requests[0]!.headers.authorization, 'Token own');
});

test('the path of an endpoint names the namespace unless it is the default', () => {
  assert.equal(endpointPath({ name: 'a' }), '/function/a');
  assert.equal(endpointPath({ name: 'a', namespace: 'team', version: 2 }), '/function/a.team@2');
  assert.equal(endpointPath({ name: 'a', path: 'x/y' }), '/function/a/x/y');
  assert.equal(endpointPath({ name: 'a', path: '?q' }), '/function/a?q');
});

const line = (text: string) => ({ time: 't', version: 1, instance: 'i', stream: 'stdout', text });

test('log lines come one by one, also when a chunk ends in the middle of a character', async () => {
  const bytes = Buffer.from(`${JSON.stringify(line('ä'))}\n\n${JSON.stringify(line('b'))}`);
  answer = async response => {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    const middle = bytes.indexOf(0xc3) + 1;
    response.write(bytes.subarray(0, middle));
    await new Promise(resolve => setImmediate(resolve));
    response.end(bytes.subarray(middle));
  };
  assert.deepEqual(await client.readLogs('a', { lines: 2 }), [line('ä'), line('b')]);
  assert.equal(requests[0]!.url, `${functions}/a/logs?lines=2`);
});

test('leaving the loop of followed lines closes the connection', async () => {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  answer = response => {
    response.on('close', resolve);
    response.writeHead(200).write(`${JSON.stringify(line('first'))}\n`);
  };
  for await (const entry of client.followLogs('a')) {
    assert.equal(entry.text, 'first');
    break;
  }
  await closed;
  assert.equal(requests[0]!.url, `${functions}/a/logs?follow=true`);
});
