/**
 * Goal: the http driver passes the suite of drivers and passes requests on as they are. Method: a plain node:http
 * server in this process, whose first path segment says how it behaves.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { PushedBody } from '../body.ts';
import { systemClock } from '../clock.ts';
import { CallSignal, isStream, type Version } from '../invoke/invoke.ts';
import { driverContract } from './contract.ts';
import { createHttpDriver } from './http.ts';
import { mockCall, mockVersion } from './mock.ts';

let server: Server;
let origin: string;
const requests: IncomingMessage[] = [];
before(async () => {
  server = createServer((request, response) => {
    requests.push(request);
    answer(request.url!.split('/')[1]!.split('?')[0]!, request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

function answer(behaviour: string, request: IncomingMessage, response: ServerResponse): void {
  if (behaviour === 'echo') {
    response.writeHead(201, { 'x-target': request.url!, 'set-cookie': ['a=1', 'b=2'] });
    response.flushHeaders();
    request.pipe(response);
  } else if (behaviour === 'slow') setTimeout(() => response.end('late'), 300);
  else if (behaviour === 'endless') response.write('first');
  else if (behaviour === 'crashing') request.socket.destroy();
  else if (behaviour === 'breaking') {
    response.write('first');
    setTimeout(() => request.socket.destroy(), 20);
  } else if (behaviour === 'head') {
    response.writeHead(204);
    response.end();
  }
}

function versionAt(url: string): Version {
  const version = mockVersion();
  return { ...version, spec: { ...version.spec, kind: 'http', url } };
}

describe('the suite of drivers', () => {
  driverContract(
    () => ({
      driver: createHttpDriver({ clock: systemClock }),
      version: behaviour => versionAt(`${origin}/${behaviour}`),
    }),
    {
      skip: [
        { test: "the user's mistake", reason: 'nothing of the user’s is loaded' },
        { test: "the platform's fault", reason: 'a server that is down is met by the first call' },
        { test: "the function's own failure", reason: 'a status 5xx is an answer like any other' },
        { test: 'an instance that crashes', reason: 'a lost connection is no crash; see below' },
      ],
    },
  );
});

async function started(url: string) {
  const driver = createHttpDriver({ clock: systemClock });
  const version = versionAt(url);
  const result = await driver.start(version);
  assert.ok(result.ok);
  return { driver, version, instance: result.instance };
}

const limit = { timeout: 5000 };

test('path and query are appended to the address', limit, async () => {
  for (const [address, target, expected] of [
    ['/echo', '/', '/echo'],
    ['/echo/', '/', '/echo'],
    ['/echo/', '/a/b', '/echo/a/b'],
    ['/echo/v1', '/a?b=c', '/echo/v1/a?b=c'],
    ['/echo?key=1', '/a?b=c', '/echo/a?key=1&b=c'],
    ['/echo', '/%C3%A4?x=%20', '/echo/%C3%A4?x=%20'],
  ] as const) {
    const { driver, version, instance } = await started(`${origin}${address}`);
    const reply = await instance.invoke(mockCall(version, { target }), new CallSignal(), () => {});
    const at = reply.headers.indexOf('x-target');
    assert.equal(reply.headers[at + 1], expected);
    await driver.close();
  }
});

test('headers pass as they came, but for Host and Expect', limit, async () => {
  const { driver, version, instance } = await started(`${origin}/echo`);
  const headers = ['Host', 'a.example', 'Expect', '100-continue', 'X-Two', '1', 'X-Two', '2'];
  const call = mockCall(version, { method: 'PUT', headers });
  const reply = await instance.invoke(call, new CallSignal(), () => {});
  const request = requests.at(-1)!;
  assert.equal(request.method, 'PUT');
  assert.equal(request.headers.host, new URL(origin).host);
  assert.equal(request.headers.expect, undefined);
  assert.equal(request.headers['x-two'], '1, 2');
  const cookies = reply.headers.filter((_, i) => reply.headers[i - 1] === 'set-cookie');
  assert.deepEqual(cookies, ['a=1', 'b=2']);
  await driver.close();
});

test('an answer without a body ends', limit, async () => {
  const { driver, version, instance } = await started(`${origin}/head`);
  let ended = 0;
  const call = mockCall(version, { method: 'HEAD' });
  const reply = await instance.invoke(call, new CallSignal(), () => {
    ended++;
  });
  assert.equal(reply.status, 204);
  if (isStream(reply.body)) for await (const _ of reply.body) assert.fail('no body');
  assert.equal(ended, 1);
  await driver.close();
});

test(
  'a server that does not answer is UPSTREAM_UNREACHABLE, and the call is done',
  limit,
  async () => {
    const closed = createServer();
    closed.listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as AddressInfo;
    closed.close();
    for (const url of [`http://127.0.0.1:${port}/`, `${origin}/crashing`]) {
      const { driver, version, instance } = await started(url);
      let ended = 0;
      const reply = instance.invoke(mockCall(version), new CallSignal(), () => {
        ended++;
      });
      await assert.rejects(reply, { code: 'UPSTREAM_UNREACHABLE' });
      assert.equal(ended, 1);
      assert.equal(instance.alive, true, 'it may be back for the next call');
      await driver.close();
    }
  },
);

test('a call that the client cannot send is refused, and done once', limit, async () => {
  const { driver, version, instance } = await started(`${origin}/echo`);
  for (const parts of [
    { method: 'IN VALID' },
    { method: 'CONNECT' },
    { headers: ['x y', '1'] },
    { headers: ['transfer-encoding', 'chunked'] },
    { headers: ['connection', 'upgrade', 'upgrade', 'websocket'] },
    { headers: ['content-length', '5'], body: Buffer.from('longer than five') },
    { headers: ['content-length', 'x'] },
    { target: '/a b\r\nc: d' },
  ]) {
    let ended = 0;
    const outcome = await instance
      .invoke(mockCall(version, parts), new CallSignal(), () => {
        ended++;
      })
      .then(
        () => 'answered',
        error => error.code,
      );
    assert.ok(ended <= 1);
    if (outcome === 'answered') continue;
    assert.equal(ended, 1, `${JSON.stringify(parts)}: ${outcome}, and not done`);
  }
  await driver.close();
});

test('an answer is read no faster than its reader', limit, async () => {
  const { driver, version, instance } = await started(`${origin}/echo`);
  const chunk = Buffer.alloc(65_536);
  let taken = 0;
  const request = new PushedBody({
    onRead: bytes => {
      taken += bytes;
      if (taken < 64 * 1024 ** 2) request.push(chunk);
      else request.end();
    },
    onCancel() {},
  });
  request.push(chunk);
  const call = mockCall(version, { body: request });
  const { body } = await instance.invoke(call, new CallSignal(), () => {});
  for (let last = -1; taken !== last; ) {
    last = taken;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  assert.ok(taken < 32 * 1024 ** 2, `${taken} bytes were taken and nobody read`);
  assert.ok(isStream(body));
  let read = 0;
  for await (const piece of body) read += piece.length;
  assert.equal(read, taken);
  await driver.close();
});
