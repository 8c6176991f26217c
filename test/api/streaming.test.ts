/**
 * Goal: bodies flow both ways as they are made, no faster than they are read, and a break on one side is seen on the
 * other. Method: functions whose state other calls read and change, so that every step is waited for, never slept.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { get, request as httpRequest, type IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { javascript, python, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put } = gateway;
const one = { instances: { max: 1 } };

/** Streams what `/push` gives it, until `/end`; `/state` says what it has noticed. */
const steps = javascript(
  `
let controller;
const state = { calls: 0, aborted: 0, cancelled: 0, reason: '' };
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/state') return Response.json(state);
  if (pathname === '/push') return controller.enqueue(await request.bytes()), new Response();
  if (pathname === '/end') return controller.close(), new Response();
  if (pathname === '/break') return controller.error(new Error('no more')), new Response();
  state.calls++;
  request.signal.addEventListener('abort', () => {
    state.aborted++;
    state.reason = request.signal.reason.name;
  });
  if (pathname === '/wait') {
    await new Promise(resolve => request.signal.addEventListener('abort', resolve));
    return new Response('too late');
  }
  const body = new ReadableStream({
    start(made) { controller = made; },
    cancel() { state.cancelled++; },
  });
  const headers = { 'content-type': 'text/event-stream' };
  const length = new URL(request.url).searchParams.get('length');
  if (length !== null) headers['content-length'] = length;
  return new Response(body, { headers });
};
`,
  one,
);
await put('steps', steps);

interface State {
  calls: number;
  aborted: number;
  cancelled: number;
  reason: string;
}

async function stateOf(name: string): Promise<State> {
  return (await (await call(`/function/${name}/state`)).json()) as State;
}

const push = (text: string) => call('/function/steps/push', { method: 'POST', body: text });

test('each chunk of an answer reaches the client before the next is made', async () => {
  const response = await call('/function/steps');
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  assert.equal(response.headers.get('content-length'), null);
  const reader = response.body!.getReader();
  for (const event of ['data: 1\n\n', 'data: 2\n\n', 'data: 3\n\n']) {
    await push(event);
    const { value } = await reader.read();
    assert.equal(Buffer.from(value!).toString(), event);
  }
  await call('/function/steps/end');
  assert.equal((await reader.read()).done, true);
});

test('each item of a Python generator reaches the client before the next is made', async () => {
  await put(
    'generator',
    python(
      `
import queue
items = queue.Queue()
def handle(event, context):
    if event.path == "/push":
        items.put(event.text)
        return ""
    return iter(items.get, "end")
`,
      one,
    ),
  );
  const pushed = (text: string) => call('/function/generator/push', { method: 'POST', body: text });
  // The head waits for the first item: only then is the type of the answer known.
  await pushed('one');
  const response = await call('/function/generator');
  const reader = response.body!.getReader();
  const next = async () => Buffer.from((await reader.read()).value ?? 'end').toString();
  assert.equal(await next(), 'one');
  await pushed('two');
  assert.equal(await next(), 'two');
  await pushed('end');
  assert.equal(await next(), 'end');
});

test('each piece that a streaming script writes reaches the client before the next', async () => {
  await put('script', { script: 'echo one; read line; echo "two $line"', stream: true });
  const connection = await gateway.connect();
  connection.write(
    'POST /function/script HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  await connection.until('one\n');
  connection.write('3\r\nhi\n\r\n0\r\n\r\n');
  await connection.until('two hi\n');
  connection.destroy();
});

test('a body is echoed piece by piece while it is sent', async () => {
  await put('mirror', javascript('export default request => new Response(request.body)'));
  const connection = await gateway.connect();
  connection.write(
    'POST /function/mirror HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  for (const word of ['alpha', 'bravo', 'charlie']) {
    connection.write(`${word.length}\r\n${word}\r\n`);
    await connection.until(word);
  }
  connection.write('0\r\n\r\n');
  assert.equal((await connection.next()).body, 'alphabravocharlie');
});

test('a client that leaves while the function works aborts request.signal', async () => {
  const before = await stateOf('steps');
  // One that is read the plain way, one that is not.
  for (const more of ['', 'Connection: close\r\n']) {
    const { calls, aborted } = await stateOf('steps');
    const connection = await gateway.connect();
    connection.write(`GET /function/steps/wait HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
    await waitFor(async () => (await stateOf('steps')).calls === calls + 1);
    connection.destroy();
    await waitFor(async () => (await stateOf('steps')).aborted === aborted + 1);
  }
  const after = await stateOf('steps');
  assert.deepEqual([after.aborted - before.aborted, after.reason], [2, 'AbortError']);
});

test('a client that leaves behind an unanswered request aborts both of its calls', async () => {
  const { calls, aborted } = await stateOf('steps');
  const connection = await gateway.connect();
  const waiting = 'GET /function/steps/wait HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n';
  connection.write(waiting + waiting);
  await waitFor(async () => (await stateOf('steps')).calls > calls);
  const answered = await call('/function/steps/state');
  assert.equal(answered.status, 200);
  connection.destroy();
  const gone = async () => {
    const state = await stateOf('steps');
    return state.aborted - aborted === state.calls - calls;
  };
  await waitFor(gone, { what: 'as many aborts as calls', timeoutMs: 3000 });
});

test('a client that leaves an answer half read cancels its stream', async () => {
  for (const more of ['', 'Connection: close\r\n']) {
    const { aborted, cancelled } = await stateOf('steps');
    const connection = await gateway.connect();
    connection.write(`GET /function/steps HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
    await connection.until('\r\n\r\n');
    await push('first');
    await connection.until('first');
    connection.destroy();
    await waitFor(async () => (await stateOf('steps')).cancelled === cancelled + 1, {
      what: 'cancel of the stream',
      timeoutMs: 2000,
    });
    assert.equal((await stateOf('steps')).aborted, aborted + 1);
  }
});

test('a stream that nobody reads any more gives its place in the instance back', async () => {
  const quiet = `
    const started = new TextEncoder().encode('started');
    export default request => request.url.endsWith('/ok')
      ? new Response('ok')
      : new Response(new ReadableStream({ start: c => c.enqueue(started) }));`;
  await put('quiet', javascript(quiet, { ...one, concurrency: 2, timeout: '5s' }));
  for (let i = 0; i < 4; i++) {
    const connection = await gateway.connect();
    connection.write('GET /function/quiet HTTP/1.1\r\nHost: a\r\n\r\n');
    await connection.until('started');
    connection.destroy();
  }
  assert.equal(await (await call('/function/quiet/ok')).text(), 'ok');
});

test('an answer that breaks off is seen as broken', async () => {
  for (const more of ['', 'TE: trailers\r\n']) {
    const connection = await gateway.connect();
    connection.write(`GET /function/steps HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
    await connection.until('\r\n\r\n');
    await push('first');
    await connection.until('first');
    await call('/function/steps/break');
    await connection.closed;
    assert.doesNotMatch(connection.text, /\r\n0\r\n/);
  }
});

test('a stream that is not as long as its Content-Length says is seen as broken', async () => {
  for (const more of ['', 'TE: trailers\r\n']) {
    for (const length of ['10', '3', 'many', '5, 5', '-1']) {
      const connection = await gateway.connect();
      connection.write(
        `GET /function/steps?length=${encodeURIComponent(length)} HTTP/1.1\r\nHost: a\r\n${more}\r\n`,
      );
      await connection.until('\r\n\r\n');
      await push('five!');
      await call('/function/steps/end');
      await waitFor(() => connection.isClosed || /\r\n0\r\n\r\n$/.test(connection.text), {
        what: `the end of an answer of ${length} bytes (${more.trim()})`,
        timeoutMs: 2000,
      });
      const body = connection.text.split('\r\n\r\n')[1]!;
      assert.ok(length !== '3' || body.length <= 3, `no more than announced: ${body}`);
      connection.destroy();
    }
  }
});

test('a timeout after the head resets the connection', async () => {
  await put(
    'endless',
    javascript(
      `export default () => new Response(new ReadableStream({ pull: c => new Promise(() => {}),
         start: c => c.enqueue(new TextEncoder().encode('first')) }))`,
      { timeout: '300ms' },
    ),
  );
  const connection = await gateway.connect();
  connection.write('GET /function/endless HTTP/1.1\r\nHost: a\r\n\r\n');
  await connection.until('first');
  await connection.closed;
  assert.doesNotMatch(connection.text, /\r\n0\r\n/);
});

test('a client that stops reading holds its connection no longer than the function may take', async () => {
  await put(
    'torrent',
    javascript(
      `export default () => new Response(new ReadableStream({
         pull: c => c.enqueue(new Uint8Array(1024 ** 2)) }))`,
      // Long enough to fill what the kernel holds for the client, also on a busy machine.
      { timeout: '1s' },
    ),
  );
  const port = Number(new URL(gateway.url).port);
  for (const more of ['', 'TE: trailers\r\n']) {
    const connection = await gateway.connect();
    connection.write(`GET /function/torrent HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
    await connection.until('200 OK');
    connection.socket.pause();
    let ended = '';
    connection.socket.on('error', error => {
      ended = (error as NodeJS.ErrnoException).code ?? '';
    });
    const { localPort } = connection.socket;
    await waitFor(() => !isEstablished({ port, peerPort: localPort! }));
    connection.socket.resume();
    await connection.closed;
    // Not closed in order, which would keep what it has not read until it does.
    assert.equal(ended, 'ECONNRESET');
  }
});

/** Whether the kernel has this connection of a server on a loopback port, as the server sees it. */
function isEstablished({ port, peerPort }: { port: number; peerPort: number }): boolean {
  const hex = (n: number) => n.toString(16).toUpperCase().padStart(4, '0');
  const line = `0100007F:${hex(port)} 0100007F:${hex(peerPort)} 01 `;
  return readFileSync('/proc/net/tcp', 'latin1').includes(line);
}

test('an answer may come before the end of the body, and the client gets it', async () => {
  await put('early', javascript('export default () => new Response("enough", { status: 403 })'));
  for (let i = 0; i < 5; i++) {
    const body = Buffer.alloc(4 * 1024 ** 2);
    const response = await call('/function/early', { method: 'POST', body });
    assert.equal(response.status, 403);
    assert.equal(await response.text(), 'enough');
  }
});

const mebibyte = 1024 ** 2;

/** Resolves with a number that has stopped growing. */
async function settled(read: () => Promise<number> | number): Promise<number> {
  let last = -1;
  let times = 0;
  return waitFor(
    async () => {
      const now = await read();
      times = now === last ? times + 1 : 0;
      last = now;
      return times >= 5 ? { now } : undefined;
    },
    { everyMs: 30 },
  ).then(({ now }) => now);
}

test('a reader that stops holds the function back, and the gateway keeps little', async () => {
  const total = 200;
  await put(
    'flood',
    javascript(
      `
let made = 0;
export default request => {
  if (request.url.endsWith('/made')) return Response.json(made);
  made = 0;
  const chunk = new Uint8Array(1024 ** 2);
  return new Response(new ReadableStream({
    pull(c) { if (made++ < ${total}) c.enqueue(chunk); else c.close(); },
  }, { highWaterMark: 0 }));
};
`,
      one,
    ),
  );
  const rssBefore = process.memoryUsage().rss;
  const response = await new Promise<IncomingMessage>(resolve =>
    get(`${gateway.url}/function/flood`, resolve),
  );
  const made = async () => (await (await call('/function/flood/made')).json()) as number;
  const ahead = await settled(made);
  assert.ok(ahead < 32, `${ahead} MiB were made though nobody reads`);
  let bytes = 0;
  let rssMax = 0;
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    rssMax = Math.max(rssMax, process.memoryUsage().rss);
  }
  assert.equal(bytes, total * mebibyte);
  const grown = (rssMax - rssBefore) / mebibyte;
  assert.ok(grown < 100, `the process grew by ${Math.round(grown)} MiB`);
});

test('a generator may make more than the memory of its instance', async () => {
  await put(
    'generates',
    javascript(
      `export async function handle() {
  return { body: (async function* () {
    for (let i = 0; i < 200; i++) yield new Uint8Array(1024 ** 2);
  })() };
}`,
      { memory: '128Mi' },
    ),
  );
  const response = await call('/function/generates');
  let bytes = 0;
  for await (const chunk of response.body!) bytes += chunk.length;
  assert.equal(bytes, 200 * mebibyte);
});

test('a function that does not read holds the client back, and gets every byte', async () => {
  await put(
    'sink',
    javascript(
      `
let release;
const released = new Promise(resolve => { release = resolve; });
export default async request => {
  if (request.url.endsWith('/release')) return release(), new Response();
  await released;
  let bytes = 0;
  for await (const chunk of request.body) bytes += chunk.length;
  return Response.json(bytes);
};
`,
      one,
    ),
  );
  const total = 64;
  let sent = 0;
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    const request = httpRequest(`${gateway.url}/function/sink`, { method: 'POST' }, resolve);
    request.on('error', reject);
    const more = (): void => {
      while (sent < total) {
        sent++;
        if (!request.write(Buffer.alloc(mebibyte))) return void request.once('drain', more);
      }
      request.end();
    };
    more();
  });
  const ahead = await settled(() => sent);
  assert.ok(ahead < 32, `${ahead} MiB were taken though nobody reads`);
  await call('/function/sink/release');
  let text = '';
  for await (const chunk of await answer) text += chunk;
  assert.equal(Number(text), total * mebibyte);
});
