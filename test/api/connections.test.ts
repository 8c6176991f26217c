/**
 * Goal: what happens on one connection, whoever the client is: reuse, order, asking before sending, old versions of
 * HTTP, offers that are declined. Method: raw bytes on real sockets; each rule is tried on requests of the plain kind
 * and on ones that only the thorough reader takes.
 */
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import {
  javascript,
  parseAnswer,
  startTestGateway,
  utf8Of,
  waitFor,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  settings: { bufferedBodyBytesMax: '64Ki' },
});
const { put } = gateway;

await put(
  'say',
  javascript(`
let release = () => {};
let calls = 0;
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/calls') return Response.json(calls);
  if (pathname === '/release') return release(), new Response('released');
  calls++;
  if (pathname === '/held') await new Promise(resolve => { release = resolve; });
  if (pathname === '/unread') return new Response('unread');
  if (pathname === '/stream') return new Response(new Blob(['str', 'eam']).stream());
  return new Response(pathname + await request.text());
};
`),
);
await put('event', javascript('export const handle = event => event.body'));
await put('locked', javascript('export default () => new Response("in")', { auth: 'token' }));

const thorough = 'TE: trailers\r\n';

function plain(path: string, more = '', body = ''): string {
  const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`;
  return `GET /function/say${path} HTTP/1.1\r\nHost: a\r\n${more}${length}\r\n${body}`;
}

async function callsOf(): Promise<number> {
  return (await (await gateway.call('/function/say/calls')).json()) as number;
}

test('a connection is used again', async () => {
  for (const more of ['', thorough]) {
    const connection = await gateway.connect();
    for (let i = 0; i < 3; i++) {
      connection.write(plain(`/${i}`, more));
      const answer = await connection.next();
      assert.equal(answer.body, `/${i}`);
      assert.notEqual(answer.headers.get('connection')?.[0], 'close');
    }
    // From the plain kind to the other and back.
    connection.write(plain('/other', thorough));
    assert.equal((await connection.next()).body, '/other');
    connection.write(plain('/back'));
    assert.equal((await connection.next()).body, '/back');
    connection.destroy();
  }
});

test('pipelined requests are answered in order', async () => {
  for (const kinds of [
    ['', '', ''],
    [thorough, thorough, thorough],
    ['', thorough, ''],
  ]) {
    const connection = await gateway.connect();
    connection.write(
      plain('/held', kinds[0]) +
        plain('/second', kinds[1], 'body') +
        plain('/stream', kinds[2]) +
        plain('/last', kinds[0]),
    );
    await waitFor(async () => (await callsOf()) > 0);
    const before = await callsOf();
    assert.equal(connection.text, '');
    await waitFor(async () => {
      await gateway.call('/function/say/release');
      return connection.text.includes('/last');
    });
    assert.ok(before > 0);
    const bodies: string[] = [];
    for (let i = 0; i < 4; i++) bodies.push((await connection.next()).body);
    assert.deepEqual(bodies, ['/held', kinds[1] === undefined ? '' : '/second', 'stream', '/last']);
    connection.destroy();
  }
});

test('a thousand pipelined requests in one piece are all answered', async () => {
  const count = 1400;
  for (const path of ['/function/x', '/function/locked', '/function/say/1']) {
    const connection = await gateway.connect();
    connection.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`.repeat(count));
    const expected = path.includes('say') ? 200 : 401;
    for (let i = 0; i < count; i++) assert.equal((await connection.next()).status, expected);
    connection.destroy();
  }
});

test('a client that sends and does not read gets no more answers than it can hold', async () => {
  const count = 10_000;
  const bytesEach = 4000;
  await put(
    'long',
    javascript(`
let calls = 0;
export default ({ url }) => url.endsWith('/calls')
  ? Response.json(calls)
  : new Response(String(++calls).padEnd(${bytesEach}, '.'));
`),
  );
  const answers = async () => (await (await gateway.call('/function/long/calls')).json()) as number;
  let received = 0;
  const socket = connect(gateway.port, '127.0.0.1');
  socket.write('GET /function/long HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(count));
  // Until the kernel takes no more: then the count stands still.
  let before = -1;
  await waitFor(
    async () => {
      const last = before;
      before = await answers();
      return before > 0 && before === last;
    },
    { everyMs: 200 },
  );
  assert.ok(before < count * 0.7, `${before} answers to a client that takes none`);
  socket.on('data', chunk => {
    received += chunk.length;
  });
  await waitFor(async () => (await answers()) === count && received > count * bytesEach, {
    timeoutMs: 20_000,
  });
  socket.destroy();
});

test('two lengths of an answer are none, whichever way the request came', async () => {
  await put(
    'lengths',
    javascript(`export default ({ url }) => {
  const body = new Blob(['abc']).stream();
  const second = url.endsWith('/same') ? '3' : '5';
  return new Response(body, { headers: [['content-length', '3'], ['content-length', second]] });
};`),
  );
  for (const more of ['', thorough]) {
    const ask = async (path: string) => {
      const connection = await gateway.connect();
      connection.write(`GET /function/lengths${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
      const answer = await connection.next();
      connection.destroy();
      return answer;
    };
    const { status, headers } = await ask('');
    assert.deepEqual([status, headers.get('x-fnway-failure')], [502, ['reply-invalid']]);
    const same = await ask('/same');
    assert.deepEqual([same.status, same.headers.get('content-length')], [200, ['3']]);
    assert.equal(same.headers.get('date')!.length, 1);
  }
});

test('a request that comes byte by byte is answered', async () => {
  for (const more of ['', thorough]) {
    const connection = await gateway.connect();
    for (const byte of plain('/slowly', more, 'body')) {
      connection.write(byte);
      await new Promise(resolve => setImmediate(resolve));
    }
    assert.equal((await connection.next()).body, '/slowly');
    connection.destroy();
  }
});

test('Connection: close is kept, both for the answer and for the connection', async () => {
  const answer = parseAnswer(await gateway.raw(plain('/bye', 'Connection: close\r\n')));
  assert.equal(answer.body, '/bye');
  assert.deepEqual(answer.headers.get('connection'), ['close']);
});

test('a client of HTTP/1.0 gets an answer without chunks, and the connection ends', async () => {
  for (const path of ['/old', '/stream']) {
    const text = await gateway.raw(`GET /function/say${path} HTTP/1.0\r\n\r\n`);
    const answer = parseAnswer(text);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('transfer-encoding'), undefined);
    assert.equal(answer.body, path === '/old' ? '/old' : 'stream');
  }
});

test('a request target in absolute form means the same as its path', async () => {
  const text = await gateway.raw(
    'GET http://a/function/say/abs?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  );
  const answer = parseAnswer(text);
  assert.equal(answer.status, 200, text);
  assert.equal(answer.body, '/abs');
});

test('a client that asks before it sends is told to go on', async () => {
  const connection = await gateway.connect();
  const head =
    'POST /function/say/asked HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n';
  connection.write(`${head}\r\n`);
  await connection.until('HTTP/1.1 100 Continue\r\n\r\n');
  connection.text = '';
  connection.write('body');
  assert.equal((await connection.next()).body, '/askedbody');
  // And again on the same connection.
  connection.write(`${head}\r\n`);
  await connection.until('100 Continue\r\n\r\n');
  connection.text = '';
  connection.write('more');
  assert.equal((await connection.next()).body, '/askedmore');
  connection.destroy();
});

test('a client that may not call is not told to go on', async () => {
  const requests = [
    'POST /function/locked HTTP/1.1',
    'POST /function/none HTTP/1.1',
    'POST /v1/namespaces/default/functions HTTP/1.1',
    'POST /v1/namespaces/default/sources HTTP/1.1',
  ];
  for (const first of requests) {
    const connection = await gateway.connect();
    connection.write(
      `${first}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n` +
        'Content-Length: 4\r\n\r\n',
    );
    const answer = await connection.next();
    assert.equal(answer.status, 401, first);
    connection.destroy();
  }
});

test('a client whose body is too long is refused before it sends', async () => {
  const connection = await gateway.connect();
  connection.write(
    'POST /function/event HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n' +
      'Content-Length: 100000\r\n\r\n',
  );
  const answer = await connection.next();
  assert.equal(answer.status, 413);
  connection.destroy();
});

test('an expectation that cannot be met is refused', async () => {
  const text = await gateway.raw(
    'POST /function/say HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n',
  );
  const answer = parseAnswer(text);
  assert.equal(answer.status, 417);
  const problem = JSON.parse(utf8Of(answer));
  assert.deepEqual([problem.code, problem.status], ['REQUEST_MALFORMED', 417]);
  assert.ok(problem.requestId);
});

test('a WebSocket is declined with 501', async () => {
  const before = await callsOf();
  const text = await gateway.raw(
    plain('/ws', 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'),
  );
  const answer = parseAnswer(text);
  assert.equal(answer.status, 501);
  const problem = JSON.parse(utf8Of(answer));
  assert.equal(problem.code, 'UPGRADE_NOT_SUPPORTED');
  assert.ok(problem.requestId);
  assert.equal(await callsOf(), before);
});

test('an offer of HTTP/2, as Java and curl make it, is passed over', async () => {
  const connection = await gateway.connect();
  connection.write(
    plain(
      '/h2c',
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n',
    ),
  );
  const answer = await connection.next();
  assert.equal(answer.status, 200);
  assert.equal(answer.body, '/h2c');
  connection.destroy();
});

test('CONNECT is refused', async () => {
  const answer = parseAnswer(
    await gateway.raw('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n'),
  );
  assert.equal(answer.status, 405);
});

test('of more connections than may be open at once the last ones are closed', async () => {
  const few = await startTestGateway({ settings: { connectionsMax: '3' } });
  try {
    const open = await Promise.all([few.connect(), few.connect(), few.connect()]);
    for (const connection of open) {
      connection.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
      assert.equal((await connection.next()).status, 200);
    }
    const late = await few.connect();
    await late.closed;
    open[0]!.destroy();
    await waitFor(async () => {
      const again = await few.connect();
      again.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
      return again.next().then(
        () => true,
        () => false,
      );
    });
    for (const connection of open) connection.destroy();
  } finally {
    await few.stop();
  }
});

test('an unread body does not become the next request', async () => {
  const smuggled = plain('/smuggled');
  for (const more of ['', thorough]) {
    const connection = await gateway.connect();
    connection.write(plain('/unread', more, smuggled));
    assert.equal((await connection.next()).body, 'unread');
    if (!connection.isClosed) {
      connection.write(plain('/after', more));
      assert.equal((await connection.next()).body, '/after');
    }
    connection.destroy();
  }
});

test('garbage behind a good request does not answer in its place', async () => {
  const connection = await gateway.connect();
  const before = await callsOf();
  connection.write(`${plain('/held')}garbage\r\n\r\n`);
  await waitFor(async () => (await callsOf()) === before + 1);
  await gateway.call('/function/say/release');
  const first = await connection.next();
  assert.deepEqual([first.status, first.body], [200, '/held']);
  assert.equal((await connection.next()).status, 400);
  await connection.closed;
});

test('sixty-four clients at once get their own answers', async () => {
  const answers = Array.from({ length: 64 }, async (_, i) => {
    const connection = await gateway.connect();
    for (let j = 0; j < 10; j++) {
      connection.write(plain(`/${i}-${j}`, (i + j) % 3 === 0 ? thorough : ''));
      assert.equal((await connection.next()).body, `/${i}-${j}`);
    }
    connection.destroy();
  });
  await Promise.all(answers);
});

test('a client of node:http keeps its connection for a hundred calls', async () => {
  const { Agent } = await import('node:http');
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (let i = 0; i < 100; i++) {
    await new Promise<void>((resolve, reject) => {
      const options = { agent, method: i % 2 === 0 ? 'GET' : 'POST' };
      const request = httpRequest(`${gateway.url}/function/say/${i}`, options, response => {
        ports.add(response.socket.localPort);
        response.resume().once('end', resolve);
      });
      request.once('error', reject).end(i % 2 === 0 ? undefined : 'body');
    });
  }
  assert.equal(ports.size, 1);
  agent.destroy();
});

test('a refusal costs a client without a body nothing of its connection', async () => {
  for (const more of ['', thorough]) {
    const connection = await gateway.connect();
    const refused = `GET /function/locked HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
    connection.write(refused + plain('/behind', more) + refused);
    const answers = [];
    for (let i = 0; i < 3; i++) answers.push(await connection.next());
    assert.deepEqual(
      answers.map(({ status }) => status),
      [401, 200, 401],
    );
    assert.equal(answers[1]!.body, '/behind');
  }
});
