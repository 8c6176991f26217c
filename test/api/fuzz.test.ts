/**
 * Goal: no bytes and no JSON break the gateway: every connection is answered or closed in its time, definitions get an
 * answer of 2xx or 4xx, and the two HTTP readers agree on every request that the fast one takes. Method: fast-check with
 * a printed seed: random bytes, valid requests mutated, pipelined and split; definitions from their schema's vicinity.
 */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, test } from 'node:test';
import fc from 'fast-check';
import type { Problem } from '../../client/errors.ts';
import { parseHead } from '../../src/gateway/request-head.ts';
import {
  assertProblem,
  javascript,
  type RawConnection,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

/** What a slow client is given; a connection must be over soon after. */
const patienceMs = 200;
const gateway = await startTestGateway({
  shared: true,
  settings: {
    headersMsMax: `${patienceMs}ms`,
    bodyIdleMsMax: `${patienceMs}ms`,
    headersBytesMax: '4Ki',
    bufferedBodyBytesMax: '64Ki',
  },
});
const { put, call, control } = gateway;
await put('web', javascript('export default async r => new Response(await r.bytes());'));
await put('event', javascript('export const handle = event => event.body;'));
await put('script', { script: 'cat', timeout: '2s' });
await put('locked', javascript('export default () => new Response("in");', { auth: 'token' }));

const lines = [
  'GET /function/web HTTP/1.1',
  'POST /function/web/a?b=c HTTP/1.1',
  'PUT /function/event HTTP/1.1',
  'HEAD /function/web HTTP/1.1',
  'GET /function/locked HTTP/1.1',
  'GET /function/none@2 HTTP/1.1',
  'POST /v1/namespaces/default/functions HTTP/1.1',
  'GET /v1/openapi.json HTTP/1.1',
  'GET /metrics HTTP/1.1',
  'OPTIONS * HTTP/1.1',
  'GET http://a/function/web HTTP/1.1',
  'GET /function/web HTTP/1.0',
];
const headers = [
  'Host: a',
  'Host: a',
  'Host: a',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Content-Length: 5',
  'Content-Length: 0',
  'Content-Length: 70000',
  'Transfer-Encoding: chunked',
  'Expect: 100-continue',
  'TE: trailers',
  'Content-Type: application/json',
  `Authorization: Bearer ${gateway.adminToken}`,
  'X-Call-Id: a',
  'X-A: \xff\xfe',
];
const bodies = ['', 'hello', '5\r\nhello\r\n0\r\n\r\n', '0\r\n\r\n', '{"name":"a"}', '{', 'GET '];

const request = fc
  .tuple(
    fc.constantFrom(...lines),
    fc.array(fc.constantFrom(...headers), { maxLength: 5 }),
    fc.constantFrom(...bodies),
  )
  .map(([line, more, body]) => `${line}\r\n${more.map(text => `${text}\r\n`).join('')}\r\n${body}`);

/** A place to change, what to take off there, and what to put there instead. */
const mutation = fc.tuple(
  fc.nat(),
  fc.nat({ max: 4 }),
  fc.oneof(
    fc.constantFrom(
      '\0',
      '\r',
      '\n',
      '\r\n',
      '\r\n\r\n',
      ' ',
      '\t',
      ':',
      '%',
      '\xff',
      'chunked',
      '0',
    ),
    fc.string({ maxLength: 5, unit: 'binary-ascii' }),
  ),
);

function mutate(text: string, mutations: Array<[number, number, string]>): string {
  let result = text;
  for (const [at, taken, put] of mutations) {
    const place = at % (result.length + 1);
    result = result.slice(0, place) + put + result.slice(place + taken);
  }
  return result;
}

const pipeline = fc
  .tuple(fc.array(request, { minLength: 1, maxLength: 4 }), fc.array(mutation, { maxLength: 3 }))
  .map(([requests, mutations]) => mutate(requests.join(''), mutations));
const noise = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes).toString('latin1'));
const input = fc.tuple(
  fc.oneof({ weight: 4, arbitrary: pipeline }, noise),
  fc.array(fc.nat(), { maxLength: 3 }),
);

/** Sends a text in pieces; resolves when nothing more is to be expected of the gateway. */
async function survive([text, cuts]: [string, number[]]): Promise<void> {
  const connection = await gateway.connect();
  const places = [...cuts.map(cut => cut % (text.length + 1)), text.length].sort((a, b) => a - b);
  let start = 0;
  for (const place of places) {
    if (place > start) connection.write(text.slice(start, place));
    start = Math.max(start, place);
    await new Promise(resolve => setImmediate(resolve));
  }
  connection.socket.end();
  await waitFor(() => connection.isClosed, {
    what: `the end of ${JSON.stringify(text)} cut at ${places}`,
    timeoutMs: patienceMs * 15,
    everyMs: 2,
  });
  checkAnswers(connection, text);
}

function checkAnswers(connection: RawConnection, text: string): void {
  const statuses = [...connection.text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, s]) => Number(s));
  const what = `${JSON.stringify(text)} was answered ${connection.text.slice(0, 1000)}`;
  assert.ok(!statuses.includes(500), what);
  assert.ok(!connection.text.includes('"code":"INTERNAL"'), what);
  if (connection.text !== '') assert.ok(connection.text.startsWith('HTTP/1.1 '), what);
}

test('any bytes on a connection are answered or refused in time, and others are served', async () => {
  // Thirty at once: most of the time is the gateway's patience with messages that stay incomplete.
  await fc.assert(
    fc.asyncProperty(fc.array(input, { minLength: 30, maxLength: 30 }), async all => {
      await Promise.all(all.map(survive));
      assert.equal((await call('/healthz')).status, 200);
    }),
    { numRuns: 50, endOnFailure: true },
  );
  for (const name of ['web', 'event', 'script']) {
    const response = await call(`/function/${name}`, { method: 'POST', body: 'alive' });
    assert.equal(await response.text(), 'alive', name);
  }
});

test('connections that are left open are closed by the gateway', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(pipeline, { minLength: 30, maxLength: 30 }), async texts => {
      await Promise.all(
        texts.map(async text => {
          const connection = await gateway.connect();
          // What is cut off is never complete, so it must time out or be refused.
          connection.write(`${text.slice(0, text.length / 2)}\r\nX-Unfinished`);
          const over = () => connection.isClosed || connection.text.includes('HTTP/1.1 ');
          await waitFor(over, {
            what: `an answer to the beginning of ${JSON.stringify(text)}`,
            timeoutMs: patienceMs * 15,
            everyMs: 2,
          });
          checkAnswers(connection, text);
          connection.destroy();
        }),
      );
    }),
    { numRuns: 3, endOnFailure: true },
  );
});

const value = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom<unknown>('node', 'python', 'x', 'printf x', '1s', '64Mi', 'none'),
  },
  fc.constantFrom<unknown>(
    { files: { 'handler.mjs': '' } },
    { files: { '../x': 'x' } },
    { url: 'http://127.0.0.1:1' },
  ),
  fc.constantFrom<unknown>(-1, 0, 1, 1e308, 2 ** 53, true, null, '', '\0', '\ud800', [], {}),
  { weight: 2, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
);
const keys = ['runtime', 'source', 'script', 'http', 'image', 'command', 'port', 'entry', 'env'];
const moreKeys = [
  'timeout',
  'memory',
  'concurrency',
  'instances',
  'auth',
  'labels',
  'project',
  'stream',
];
const definition = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.dictionary(
      fc.constantFrom(...keys, ...moreKeys, 'description', 'buildEnv'),
      value,
      { maxKeys: 5 },
    ),
  },
  fc.dictionary(fc.string({ maxLength: 8 }), value, { maxKeys: 3 }),
  value,
);

test('any JSON as a definition is taken or refused with a problem, never an error of ours', async () => {
  const base = '/v1/namespaces/fuzz/functions';
  const headers = { 'content-type': 'application/json' };
  await fc.assert(
    fc.asyncProperty(fc.array(definition, { minLength: 10, maxLength: 10 }), async all => {
      await Promise.all(
        all.map(async (json, i) => {
          const body = JSON.stringify(json);
          const response = await control(`${base}/f${i}`, { method: 'PUT', headers, body });
          const text = await response.text();
          const what = `${body} was answered ${response.status} ${text.slice(0, 1000)}`;
          assert.ok(response.status < 500, what);
          if (response.status < 300) return;
          assert.ok([400, 413, 422].includes(response.status), what);
          assertProblem(JSON.parse(text) as Problem, response.status, what.slice(0, 500));
        }),
      );
    }),
    { numRuns: 100, endOnFailure: true },
  );
  const { items } = await gateway.client.inNamespace('fuzz').listFunctions();
  for (const { name } of items) await gateway.client.inNamespace('fuzz').removeFunction(name);
});

test('any text as JSON, query, name or token is refused with a problem', async () => {
  const texts = fc.string({ maxLength: 30, unit: 'binary-ascii' });
  await fc.assert(
    fc.asyncProperty(texts, texts, async (one, two) => {
      const at = encodeURIComponent(one);
      const paths = [
        `/v1/namespaces/default/functions?${at}=${encodeURIComponent(two)}`,
        `/v1/namespaces/default/functions?limit=${at}`,
        `/v1/namespaces/${at}/functions/${encodeURIComponent(two)}`,
        `/v1/namespaces/default/functions/${at}/versions/${encodeURIComponent(two)}`,
        `/v1/namespaces/default/sources/${at}`,
        `/v1/${at}`,
      ];
      for (const path of paths) {
        const response = await control(path);
        const text = await response.text();
        assert.ok(response.status < 500, `${path} was answered ${response.status} ${text}`);
        if (response.status >= 400) assertProblem(JSON.parse(text), response.status, path);
      }
    }),
    { numRuns: 200 },
  );
});

/** What node:http makes of a request, or undefined where it refuses it. */
interface Seen {
  method: string;
  target: string;
  headers: string[];
  body: string;
}

const seenByNode: Seen[] = [];
const node = createServer({ maxHeaderSize: 65_536 }, (incoming: IncomingMessage, response) => {
  const chunks: Buffer[] = [];
  incoming.on('data', chunk => chunks.push(chunk));
  incoming.on('end', () => {
    const { method, url, rawHeaders } = incoming;
    const body = Buffer.concat(chunks).toString('latin1');
    seenByNode.push({ method: method!, target: url!, headers: rawHeaders, body });
    response.end();
  });
});
await new Promise<void>(resolve => node.listen(0, '127.0.0.1', resolve));
after(() => {
  node.closeAllConnections();
  node.close();
});

async function nodeSees(text: string): Promise<Seen[]> {
  seenByNode.length = 0;
  const { port } = node.address() as AddressInfo;
  await new Promise<void>(resolve => {
    const socket = connect(port, '127.0.0.1', () => socket.end(Buffer.from(text, 'latin1')));
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.resume();
  });
  return [...seenByNode];
}

test('the fast reader and node:http agree on every request that the fast one takes', async () => {
  const target = fc.oneof(
    fc.constantFrom('/function/web', '/function/a@1/b?c=d', '/function/', '/function/%00'),
    fc.string({ maxLength: 20, unit: 'binary-ascii' }).map(text => `/function/${text}`),
  );
  const name = fc.oneof(
    fc.constantFrom('X-A', 'Cookie', 'Content-Length', 'Host', 'Connection', 'Content-Type', 'TE'),
    fc.string({ minLength: 1, maxLength: 6, unit: 'binary-ascii' }),
  );
  const text = fc.oneof(
    fc.constantFrom('a', 'keep-alive', '3', '03', '', ' b ', '\tc\t', '\xa0x\xa0', '\xff'),
    fc.string({ maxLength: 8, unit: 'binary' }).filter(s => /^[\0-\xff]*$/.test(s)),
  );
  const head = fc
    .tuple(
      fc.constantFrom('GET', 'POST', 'PUT', 'HEAD', 'OPTIONS', 'DELETE', 'PATCH', 'QUERY'),
      target,
      fc.array(fc.tuple(name, text, fc.constantFrom(': ', ':', ':\t', ':  ')), { maxLength: 5 }),
    )
    .map(([method, path, pairs]) => {
      const more = pairs.map(([key, val, colon]) => `\r\n${key}${colon}${val}`).join('');
      return `${method} ${path} HTTP/1.1\r\nHost: a${more}`;
    });
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(head, fc.array(mutation, { maxLength: 1 }), async (plain, mutations) => {
      const whole = mutate(plain, mutations);
      const end = whole.indexOf('\r\n\r\n');
      const given = end === -1 ? whole : whole.slice(0, end);
      const parsed = parseHead(given, 65_536);
      if (parsed === undefined || parsed.bodyBytes > 1000) return;
      taken++;
      const body = 'b'.repeat(parsed.bodyBytes);
      const [seen, ...others] = await nodeSees(`${given}\r\n\r\n${body}`);
      assert.equal(others.length, 0, 'one request is two');
      assert.ok(seen, `node:http refuses ${JSON.stringify(given)}`);
      assert.equal(seen.method, parsed.method);
      assert.equal(seen.target, parsed.target);
      assert.equal(seen.body, body);
      const kept = (pairs: readonly string[]) => {
        const all: string[] = [];
        for (let i = 0; i < pairs.length; i += 2)
          if (pairs[i]!.toLowerCase() !== 'connection') all.push(`${pairs[i]}: ${pairs[i + 1]}`);
        return all;
      };
      assert.deepEqual(kept(parsed.headers), kept(seen.headers));
    }),
    { numRuns: 6000 },
  );
  assert.ok(taken > 200, `only ${taken} of the heads were taken`);
});
