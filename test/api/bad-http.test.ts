/**
 * Goal: HTTP that is malformed, ambiguous, too large or too slow is refused with what is wrong, ends its connection,
 * and never reaches a function. Method: raw bytes on sockets; a function that counts its calls; short timeouts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ErrorCode } from '../../client/errors.ts';
import {
  javascript,
  parseAnswer,
  problemOf,
  rawProblemOf,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  settings: { headersMsMax: '400ms', bodyIdleMsMax: '400ms', headersBytesMax: '8Ki' },
});
const { put, call } = gateway;
await put(
  'count',
  javascript(`
let calls = 0;
export default async request => {
  if (new URL(request.url).pathname === '/calls') return Response.json(calls);
  calls++;
  await request.arrayBuffer().catch(() => {});
  return new Response('called');
};
`),
);
await put(
  'whole',
  javascript(`let calls = 0;
export const handle = event => event.path === '/calls' ? calls : (calls++, 'called');`),
);
await put('event', javascript('export const handle = event => event.body'));
await put('script', { script: 'cat' });

const malformed = { status: 400, code: 'REQUEST_MALFORMED' } as const;

async function callsOf(): Promise<number> {
  const calls = ['count', 'whole'].map(async name =>
    Number(await (await call(`/function/${name}/calls`)).text()),
  );
  return (await Promise.all(calls)).reduce((sum, count) => sum + count);
}

const controlHead = `Authorization: Bearer ${gateway.adminToken}\r\nContent-Type: application/json\r\n`;

/** Sends, expects the one answer and the end of the connection, and that no function was called. */
async function refused(
  bytes: string | Uint8Array,
  expected: { status: number; code: ErrorCode },
  what: string,
): Promise<void> {
  const before = await callsOf();
  const text = await gateway.raw(bytes).catch(error => assert.fail(`${what}: ${error.message}`));
  assert.ok(text.startsWith('HTTP/1.1 '), `${what}: ${JSON.stringify(text)}`);
  rawProblemOf(parseAnswer(text), expected, what);
  assert.equal(text.match(/HTTP\/1\.1 \d{3} /g)?.length, 1, `${what}: one answer only`);
  assert.equal(await callsOf(), before, `${what}: a function was called`);
}

/** What could be taken for one request by us and for another by somebody else. */
const smuggled = 'GET /function/count/smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
const post = 'POST /function/count HTTP/1.1\r\nHost: a\r\n';
const shapes: Record<string, string> = {
  'both lengths': `${post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
  'both lengths the other way': `${post}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n`,
  'two lengths': `${post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`,
  'two equal lengths': `${post}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`,
  'a list of lengths': `${post}Content-Length: 3, 3\r\n\r\nabc`,
  'a negative length': `${post}Content-Length: -1\r\n\r\n`,
  'a signed length': `${post}Content-Length: +3\r\n\r\nabc`,
  'a hexadecimal length': `${post}Content-Length: 0x3\r\n\r\nabc`,
  'a length with space': `${post}Content-Length: 1 2\r\n\r\nabc`,
  'an empty length': `${post}Content-Length:\r\n\r\n`,
  'an endless length': `${post}Content-Length: 99999999999999999999\r\n\r\n`,
  'an unknown coding': `${post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
  'chunked twice': `${post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`,
  'chunked not last': `${post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`,
  'a disguised coding': `${post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`,
  'a quoted coding': `${post}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`,
  'chunked in HTTP/1.0': `POST /function/count HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
  'a folded header': `GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n`,
  'a folded coding': `${post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`,
  'LF alone': 'GET /function/count HTTP/1.1\nHost: a\n\n',
  'LF alone in a header': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\nX-B: c\r\n\r\n',
  'CR alone': 'GET /function/count HTTP/1.1\rHost: a\r\r',
  'CR inside a value': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n',
  'space before a colon': `${post}Content-Length : 3\r\n\r\nabc`,
  'space before a name': 'GET /function/count HTTP/1.1\r\n Host: a\r\n\r\n',
  'space in a name': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n',
  'no colon': 'GET /function/count HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n',
  'no name': 'GET /function/count HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n',
  'NUL in a value': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n',
  'NUL in a name': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-\0A: b\r\n\r\n',
  'NUL in the path': 'GET /function/count/\0 HTTP/1.1\r\nHost: a\r\n\r\n',
  'a control byte in a value': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\x01c\r\n\r\n',
  'DEL in a value': 'GET /function/count HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n',
  'two Hosts': 'GET /function/count HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
  'two equal Hosts': 'GET /function/count HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n',
  'no Host': 'GET /function/count HTTP/1.1\r\n\r\n',
  'space in the path': 'GET /function/count/a b HTTP/1.1\r\nHost: a\r\n\r\n',
  'a tab after the method': 'GET\t/function/count HTTP/1.1\r\nHost: a\r\n\r\n',
  'no version': 'GET /function/count\r\nHost: a\r\n\r\n',
  'a wrong version': 'GET /function/count HTTP/9.9\r\nHost: a\r\n\r\n',
  'a small version': 'GET /function/count http/1.1\r\nHost: a\r\n\r\n',
  'an unknown method': 'NONSENSE /function/count HTTP/1.1\r\nHost: a\r\n\r\n',
  'a small method': 'get /function/count HTTP/1.1\r\nHost: a\r\n\r\n',
  'HTTP/2 at once': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  TLS: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  garbage: '\xff\xfe\xfd\r\n\r\n',
};

/** Found out when the call may have begun: a handler that streams sees its body break off. */
const chunkShapes: Record<string, string> = {
  'a bad chunk size': `${post}Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n`,
  'a negative chunk size': `${post}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n`,
  'an endless chunk size': `${post}Transfer-Encoding: chunked\r\n\r\n${'f'.repeat(17)}\r\n`,
  'a chunk size with 0x': `${post}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n`,
  'a chunk longer than said': `${post}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n`,
  'a chunk ended by LF': `${post}Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n`,
};

test('every ambiguous or malformed message is refused and ends its connection', async () => {
  const wrong: string[] = [];
  for (const [what, text] of Object.entries(shapes)) {
    for (const target of ['/function/count', '/v1/runtimes'])
      await refused(text.replace('/function/count', target), malformed, `${what} ${target}`).catch(
        error => wrong.push(String(error.message).slice(0, 300)),
      );
  }
  for (const [what, text] of Object.entries(chunkShapes)) {
    for (const target of ['/function/whole', '/v1/runtimes'])
      await refused(text.replace('/function/count', target), malformed, `${what} ${target}`).catch(
        error => wrong.push(String(error.message).slice(0, 300)),
      );
  }
  assert.deepEqual(wrong, []);
});

test('a handler that streams sees a malformed body break off, and its caller a refusal', async () => {
  for (const [what, text] of Object.entries(chunkShapes)) {
    const answer = parseAnswer(await gateway.raw(text));
    rawProblemOf(answer, malformed, what);
  }
});

test('what follows a refused message on its connection is not read', async () => {
  for (const what of ['both lengths', 'two lengths', 'LF alone', 'no Host'])
    await refused(shapes[what]! + smuggled.repeat(3), malformed, what);
});

test('a request behind one that ends its connection is not run', async () => {
  for (const more of ['Connection: close\r\n', 'TE: trailers\r\nConnection: close\r\n']) {
    const before = await callsOf();
    const first = `GET /function/count/calls HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
    const text = await gateway.raw(first + smuggled.repeat(2));
    assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 1, more);
    assert.equal(await callsOf(), before, more);
  }
});

test('garbage behind a request does not answer in its place, whoever reads it', async () => {
  for (const more of ['', 'TE: trailers\r\n']) {
    const first = `GET /function/count/calls HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
    const text = await gateway.raw(`${first}garbage\r\n\r\n`);
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => status);
    assert.deepEqual(statuses, ['200', '400'], `${more}: ${text}`);
  }
});

test('a raw byte above 0x7F in the path is refused', async () => {
  for (const path of ['/function/count/\xc3\xa9', '/function/c\xf6unt', '/function/count?q=\xff']) {
    const before = await callsOf();
    const connection = await gateway.connect();
    connection.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const problem = rawProblemOf(await connection.next(), malformed, path);
    assert.match(problem.detail, /0x7F|well-formed/);
    assert.match(problem.remedy!, /percent-encode/);
    connection.destroy();
    assert.equal(await callsOf(), before);
  }
});

test('headers over the limit answer 431', async () => {
  const large = { status: 431, code: 'HEADERS_TOO_LARGE' } as const;
  const many = Array.from({ length: 900 }, (_, i) => `X-${i}: 12345\r\n`).join('');
  for (const target of ['/function/count', '/v1/runtimes', '/healthz']) {
    const head = `GET ${target} HTTP/1.1\r\nHost: a\r\n`;
    await refused(`${head}X-A: ${'x'.repeat(9000)}\r\n\r\n`, large, `${target} one`);
    await refused(`${head}${many}\r\n`, large, `${target} many`);
    await refused(`GET ${target}?${'x'.repeat(9000)} HTTP/1.1\r\nHost: a\r\n\r\n`, large, 'path');
    await refused(`${head}X-A: ${'x'.repeat(20_000)}`, large, `${target} without an end`);
  }
  const fits = await call('/function/count', { headers: { 'x-a': 'x'.repeat(7000) } });
  assert.equal(fits.status, 200);
});

/** Writes the pieces with a pause, until the gateway has enough; all that it said. */
async function slowly(start: string, piece: string, everyMs: number): Promise<string> {
  const connection = await gateway.connect();
  connection.write(start);
  const timer = setInterval(() => connection.write(piece), everyMs);
  await waitFor(() => connection.isClosed, { what: 'the end of a slow client', timeoutMs: 5000 });
  clearInterval(timer);
  return connection.text;
}

const slow = { status: 408, code: 'REQUEST_TIMED_OUT' } as const;

test('headers that come too slowly answer 408', async () => {
  const targets = ['/function/count', '/function/none', '/v1/runtimes', '/healthz'];
  const texts = await Promise.all(
    targets.flatMap(target => [
      slowly(`GET ${target} HTTP/1.1\r\nHost: a\r\n`, 'X-A: b\r\n', 50),
      slowly(`GET ${target} HT`, '', 1000),
      // The second request of a connection may take no longer than the first.
      slowly(
        `GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET ${target} HTTP/1.1\r\nHost: a\r\n`,
        'X',
        50,
      ),
    ]),
  );
  for (const [i, text] of texts.entries()) {
    const last = text.slice(text.lastIndexOf('HTTP/1.1 4'));
    rawProblemOf(parseAnswer(last), slow, `${i}: ${text}`);
  }
});

test('a second request on a connection of calls may come no slower than the first', async () => {
  const first = 'GET /function/count HTTP/1.1\r\nHost: a\r\n\r\n';
  const text = await slowly(`${first}GET /function/count HTTP/1.1\r\nHost: a\r\n`, 'X: y\r\n', 50);
  assert.match(text, /^HTTP\/1\.1 200/);
  rawProblemOf(parseAnswer(text.slice(text.lastIndexOf('HTTP/1.1 '))), slow);
});

test('a body that stops coming answers 408, on the control plane too', async () => {
  const heads = [
    'POST /function/count HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc',
    'POST /function/count HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc',
    'POST /function/count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
    'POST /function/event HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc',
    'POST /function/event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
    'POST /function/script HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc',
    `PUT /v1/namespaces/default/functions/slow HTTP/1.1\r\nHost: a\r\n${controlHead}Content-Length: 100\r\n\r\n{`,
    `POST /v1/namespaces/default/sources HTTP/1.1\r\nHost: a\r\n${controlHead.replace('json', 'gzip')}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`,
  ];
  const wrong: string[] = [];
  await Promise.all(
    heads.map(async head => {
      try {
        rawProblemOf(parseAnswer(await slowly(head, '', 1000)), slow, head);
      } catch (error) {
        wrong.push(`${head.slice(0, 60)}: ${String((error as Error).message).slice(0, 200)}`);
      }
    }),
  );
  assert.deepEqual(wrong, []);
});

test('a client that waits to be asked for its body is not late while its call waits for a place', async t => {
  await put(
    'narrow',
    javascript(
      `let release;
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/release') return release(), new Response();
  if (pathname === '/hold') await new Promise(resolve => { release = resolve; });
  return new Response('got ' + await request.text());
};`,
      { concurrency: 2, instances: { max: 1 } },
    ),
  );
  const held = call('/function/narrow/hold');
  const waiting = async () =>
    /fnway_calls_waiting\{[^}]*"narrow"[^}]*\} 1/.test(await (await call('/metrics')).text());
  const busy = await gateway.connect();
  busy.write('POST /function/narrow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\na');
  const connection = await gateway.connect();
  const startMs = performance.now();
  const rest = setInterval(() => busy.write('x'), 100);
  t.after(() => clearInterval(rest));
  connection.write(
    'POST /function/narrow HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
  );
  await waitFor(waiting);
  // Three times as long as a body may pause.
  await waitFor(() => performance.now() - startMs > 1200 || connection.text !== '');
  assert.equal(connection.text, '');
  clearInterval(rest);
  busy.destroy();
  await connection.until('100 Continue');
  connection.text = '';
  connection.write('body');
  assert.equal((await connection.next()).body, 'got body');
  await call('/function/narrow/release');
  await held;
  connection.destroy();
});

test('an answer of the control plane may take longer than a body may pause', async () => {
  const body = JSON.stringify({ script: 'sleep 60', auth: 'none', labels: { a: 'b'.repeat(50) } });
  const path = '/v1/namespaces/default/functions/patient';
  const connection = await gateway.connect();
  // Kept open, so that the wait of its own log has nothing to say for longer than a body may.
  connection.write(
    `PUT ${path} HTTP/1.1\r\nHost: a\r\n${controlHead}Content-Length: ${body.length}\r\n\r\n${body}`,
  );
  await connection.until('HTTP/1.1 201');
  const startMs = performance.now();
  connection.write(`GET ${path}/logs?follow=true HTTP/1.1\r\nHost: a\r\n${controlHead}\r\n`);
  await connection.until('HTTP/1.1 200');
  // Three times as long as a body may pause.
  await waitFor(() => performance.now() - startMs > 1200 || connection.isClosed);
  assert.equal(connection.isClosed, false);
  connection.destroy();
});

test('a body that says that it is too long is refused before it has come', async () => {
  const mebibyte = 1024 ** 2;
  const heads: Array<[head: string, bytes: number]> = [
    [
      `POST /v1/namespaces/default/sources HTTP/1.1\r\nHost: a\r\n${controlHead.replace('json', 'gzip')}`,
      65 * mebibyte,
    ],
    [
      `PUT /v1/namespaces/default/functions/long HTTP/1.1\r\nHost: a\r\n${controlHead}`,
      3 * mebibyte,
    ],
    ['POST /function/event HTTP/1.1\r\nHost: a\r\n', 17 * mebibyte],
  ];
  for (const [head, bytes] of heads) {
    const connection = await gateway.connect();
    connection.write(`${head}Content-Length: ${bytes}\r\n\r\nbegin`);
    rawProblemOf(await connection.next(), { status: 413, code: 'BODY_TOO_LARGE' }, head);
    connection.destroy();
  }
});

test('a body that comes slowly but moves is waited for', async () => {
  const connection = await gateway.connect();
  connection.write('POST /function/event HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n');
  const timer = setInterval(() => connection.write('x'), 120);
  const answer = await connection.next();
  clearInterval(timer);
  assert.deepEqual([answer.status, answer.body], [200, 'xxxxxxxx']);
  connection.destroy();
});

test('clients that send their body slowly keep nobody from a function that needs it whole', async () => {
  await put('whole-script', { script: 'wc -c', concurrency: 1, instances: { max: 1 } });
  assert.equal(
    await (await call('/function/whole-script', { method: 'POST', body: 'abc' })).text(),
    '3\n',
  );
  const slowOnes = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const connection = await gateway.connect();
      connection.write(
        'POST /function/whole-script HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n',
      );
      return connection;
    }),
  );
  const inFlight = /fnway_calls_in_flight\{[^}]*"whole-script"\} 20\n/;
  await waitFor(async () => inFlight.test(await (await call('/metrics')).text()));
  const fast = await call('/function/whole-script', { method: 'POST', body: 'abcd' });
  assert.equal(await fast.text(), '4\n');
  for (const connection of slowOnes) connection.destroy();
});

test('slow clients do not keep others waiting', async () => {
  const slowOnes = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const connection = await gateway.connect();
      connection.write(i % 2 === 0 ? 'GET /function/count HTTP/1.1\r\nX' : 'G');
      return connection;
    }),
  );
  for (let i = 0; i < 20; i++) assert.equal((await call('/function/count')).status, 200);
  await waitFor(() => slowOnes.every(connection => connection.isClosed), { timeoutMs: 5000 });
});

test('a client that leaves in the middle of its body breaks nothing', async () => {
  for (const name of ['count', 'event', 'script']) {
    for (const length of [100, 100_000]) {
      const connection = await gateway.connect();
      connection.write(
        `POST /function/${name} HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\nabc`,
      );
      connection.socket.end();
      await connection.closed;
    }
    const response = await call(`/function/${name}`, { method: 'POST', body: 'x' });
    assert.equal(response.status, 200, name);
    await response.body?.cancel();
  }
});

test('an unknown function answers the same whatever the method and the body', async () => {
  for (const method of ['GET', 'POST', 'DELETE', 'PROPFIND']) {
    const response = await call('/function/none', {
      method,
      ...(method === 'POST' && { body: 'x'.repeat(100_000) }),
    });
    await problemOf(response, { status: 401, code: 'UNAUTHENTICATED' }, method);
  }
});
