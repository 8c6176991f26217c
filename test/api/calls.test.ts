/**
 * Goal: a call reaches the function as the client made it, and the answer comes back as the function made it.
 * Method: functions that say what they saw, in Python (headers one by one) and Node (web standard); fetch where any
 * client will do, raw bytes where the bytes matter.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  javascript,
  parseAnswer,
  python,
  startTestGateway,
  utf8Of,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put } = gateway;

interface Seen {
  method: string;
  target: string;
  headers: Record<string, string[]>;
  body: string;
}

await put(
  'see',
  python(`
def handle(event, context):
    names = {name: event.headers.getlist(name) for name in event.headers}
    body = event.body.decode("latin-1")
    return {"method": event.method, "target": event.target, "headers": names, "body": body}
`),
);
await put(
  'web',
  javascript(`
export default async (request, context) => Response.json({
  method: request.method, url: request.url, rawPath: context.rawPath,
  headers: Object.fromEntries([...request.headers].map(([name, value]) => [name, [value]])),
  body: await request.text(),
});
`),
);
await put(
  'echo',
  javascript(`
export default async request =>
  new Response(await request.bytes(), { headers: { 'content-type': 'application/x-echo' } });
`),
);
await put(
  'answer',
  javascript(`
export function handle(event) {
  const wanted = JSON.parse(event.body);
  return { statusCode: wanted.status ?? 200, headers: wanted.headers ?? {}, body: wanted.body };
}
`),
);

/**
 * What the function saw of a request whose head is given line by line. Sent twice, as one of the plain majority and
 * as one that only the thorough reader takes (it closes): both must look the same to the function.
 */
async function seen(lines: string[], body = ''): Promise<Seen> {
  const head = lines.join('\r\n');
  const closing = await sawOf(`${head}\r\nConnection: close\r\n\r\n${body}`);
  const plain = await sawOf(`${head}\r\n\r\n${body}`);
  const made = (name: string) => name === 'x-call-id' || name === 'traceparent';
  const given = ({ headers }: Seen) =>
    Object.fromEntries(Object.entries(headers).filter(([name]) => !made(name)));
  assert.deepEqual(given(plain), given(closing));
  assert.deepEqual([plain.target, plain.body], [closing.target, closing.body]);
  return plain;
}

async function sawOf(request: string): Promise<Seen> {
  const connection = await gateway.connect();
  connection.write(request);
  const answer = await connection.next();
  connection.destroy();
  assert.equal(answer.status, 200, answer.body);
  return JSON.parse(utf8Of(answer)) as Seen;
}

/** The answer of a function that answers what it is told to. */
async function answered(wanted: object, method = 'POST') {
  // Escaped: the socket is written as Latin-1.
  const body = JSON.stringify(wanted).replace(
    /[\u0080-\uffff]/g,
    c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return parseAnswer(
    await gateway.raw(
      `${method} /function/answer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    ),
  );
}

test('every common method reaches the function', async () => {
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'QUERY']) {
    for (const name of ['see', 'web']) {
      const response = await call(`/function/${name}`, { method });
      assert.equal(response.status, 200, `${method} ${name}`);
      assert.equal(((await response.json()) as Seen).method, method);
    }
  }
});

test('path and query reach the function with their escapes untouched', async () => {
  const targets = [
    ['', '/'],
    ['/', '/'],
    ['?', '/?'],
    ['?a=1', '/?a=1'],
    ['/a/b%2Fc/%2e%2e/d%20e', '/a/b%2Fc/%2e%2e/d%20e'],
    ['/a/../b//c/./', '/a/../b//c/./'],
    ['/%c3%a9%FF%00', '/%c3%a9%FF%00'],
    ['/x?q=%2B+%20&q=2&empty=&flag', '/x?q=%2B+%20&q=2&empty=&flag'],
    ['/x?u=http://h/p?q#no', '/x?u=http://h/p?q#no'],
    ['/!$&\'()*+,;=:@~|^`{}[]"<>', '/!$&\'()*+,;=:@~|^`{}[]"<>'],
  ];
  for (const [sent, expected] of targets) {
    const { target } = await seen([`GET /function/see${sent} HTTP/1.1`, 'Host: a']);
    assert.equal(target, expected);
  }
});

test('a web handler sees a normalised url and the path as it came', async () => {
  const response = await gateway.raw(
    'GET /function/web/a/../b%2Fc?x=1 HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n',
  );
  const { url, rawPath } = JSON.parse(parseAnswer(response).body);
  assert.equal(url, 'http://shop.example/b%2Fc?x=1');
  assert.equal(rawPath, '/a/../b%2Fc?x=1');
});

test('a body reaches the function with every method that can have one', async () => {
  for (const method of ['GET', 'DELETE', 'POST', 'OPTIONS']) {
    // A web-standard Request has no body where the method is GET.
    for (const name of method === 'GET' ? ['see'] : ['see', 'web']) {
      const { body } = await seen(
        [`${method} /function/${name} HTTP/1.1`, 'Host: a', 'Content-Length: 5'],
        'hello',
      );
      assert.equal(body, 'hello', `${method} ${name}`);
    }
  }
});

test('repeated headers of a request arrive one by one', async () => {
  const { headers } = await seen([
    'GET /function/see HTTP/1.1',
    'Host: a',
    'X-Tag: one',
    'Cookie: a=1',
    'x-tag: two',
    'Cookie: b=2',
    'X-Empty:',
  ]);
  assert.deepEqual(headers['x-tag'], ['one', 'two']);
  assert.deepEqual(headers.cookie, ['a=1', 'b=2']);
  assert.deepEqual(headers['x-empty'], ['']);
});

test('repeated headers of an answer arrive one by one', async () => {
  const cookies = ['a=1; Path=/', 'b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT', 'c=3'];
  const answer = await answered({ headers: { 'set-cookie': cookies, 'x-tag': ['one', 'two'] } });
  assert.deepEqual(answer.headers.get('set-cookie'), cookies);
  assert.deepEqual(answer.headers.get('x-tag'), ['one', 'two']);
});

test('bytes above 0x7f in header values survive both ways', async () => {
  const value = Array.from({ length: 128 }, (_, i) => String.fromCharCode(i + 128)).join('');
  const { headers } = await seen(['GET /function/see HTTP/1.1', 'Host: a', `X-Bytes: ${value}`]);
  assert.equal(headers['x-bytes']?.[0], value);
  // 0xA0 is a space to JavaScript but not to HTTP; it ends the UTF-8 form of à.
  const edges = await seen(['GET /function/see HTTP/1.1', 'Host: a', 'X-Bytes: \xa0voil\xc3\xa0']);
  assert.equal(edges.headers['x-bytes']?.[0], '\xa0voil\xc3\xa0');
  const answer = await answered({ headers: { 'x-bytes': value } });
  assert.equal(answer.headers.get('x-bytes')?.[0], value);
});

test('binary bodies survive both ways', async () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const sizes = [0, 1, 32_767, 32_768, 32_769, 65_535, 65_536, 262_145, 1024 ** 2];
  for (const size of sizes) {
    const body = new Uint8Array(size).map((_, i) => all[(i * 7 + (i >> 8)) & 255]!);
    const response = await call('/function/echo', { method: 'POST', body });
    assert.equal(response.headers.get('content-type'), 'application/x-echo');
    assert.ok(Buffer.from(await response.arrayBuffer()).equals(body), `${size} bytes`);
  }
  const response = await call('/function/see', { method: 'POST', body: all });
  const { body } = (await response.json()) as Seen;
  assert.ok(Buffer.from(body, 'latin1').equals(all));
});

test('a chunked request body arrives whole and without its framing', async () => {
  const { body, headers } = await seen(
    ['POST /function/see HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', 'Trailer: X-T'],
    '5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nX-T: 1\r\n\r\n',
  );
  assert.equal(body, 'hello world');
  assert.equal(headers['transfer-encoding'], undefined);
  assert.equal(headers.trailer, undefined);
});

test('hop-by-hop headers of a request stay on their hop', async () => {
  const { headers } = await seen([
    'GET /function/see HTTP/1.1',
    'Host: a',
    'Connection: X-One, x-two',
    'Connection: x-three',
    'X-One: 1',
    'X-Two: 2',
    'X-Three: 3',
    'X-Four: 4',
    'Keep-Alive: timeout=5',
    'TE: trailers',
    'Proxy-Connection: keep-alive',
    'Proxy-Authorization: Basic eDp5',
  ]);
  for (const name of ['connection', 'keep-alive', 'te', 'proxy-connection', 'proxy-authorization'])
    assert.equal(headers[name], undefined, name);
  for (const name of ['x-one', 'x-two', 'x-three']) assert.equal(headers[name], undefined, name);
  assert.deepEqual(headers['x-four'], ['4']);
});

test('a Connection header cannot take off what the gateway vouches for', async () => {
  const { headers } = await seen([
    'GET /function/see HTTP/1.1',
    'Host: a',
    'Connection: host, content-type, x-forwarded-for, x-call-id, traceparent',
    'Content-Type: text/x',
  ]);
  assert.deepEqual(headers.host, ['a']);
  assert.deepEqual(headers['content-type'], ['text/x']);
  for (const name of ['x-forwarded-for', 'x-call-id', 'traceparent'])
    assert.equal(headers[name]?.length, 1, name);
});

test('hop-by-hop headers of an answer stay on their hop', async () => {
  const answer = await answered({
    headers: {
      connection: 'x-mine',
      'x-mine': '1',
      'keep-alive': 'timeout=1',
      'proxy-authenticate': 'Basic',
      te: 'trailers',
      trailer: 'x-t',
      'transfer-encoding': 'chunked',
      upgrade: 'websocket',
      'x-other': '2',
    },
    body: 'hello',
  });
  for (const name of ['keep-alive', 'proxy-authenticate', 'te', 'trailer', 'upgrade'])
    assert.equal(answer.headers.get(name), undefined, name);
  assert.equal(answer.headers.get('transfer-encoding'), undefined);
  assert.deepEqual(answer.headers.get('connection'), ['close']);
  assert.deepEqual(answer.headers.get('x-other'), ['2']);
  assert.equal(answer.body, 'hello');
  assert.equal(answer.headers.get('x-mine'), undefined, 'named in Connection');
});

test('X-Forwarded-For is appended to, Host and Proto are written anew', async () => {
  const { headers } = await seen([
    'GET /function/see HTTP/1.1',
    'Host: shop.example',
    'X-Forwarded-For: 10.0.0.1',
    'X-Forwarded-For: 10.0.0.2',
    'X-Forwarded-Host: evil.example',
    'X-Forwarded-Proto: https',
  ]);
  assert.deepEqual(headers['x-forwarded-for'], ['10.0.0.1, 10.0.0.2, 127.0.0.1']);
  assert.deepEqual(headers['x-forwarded-host'], ['shop.example']);
  assert.deepEqual(headers['x-forwarded-proto'], ['http']);
});

test('behind a trusted proxy X-Forwarded-Host and -Proto are believed', async () => {
  const trusting = await startTestGateway({ settings: { trustProxy: 'true' } });
  try {
    await trusting.put(
      'see',
      python('def handle(event, context):\n    return dict(event.headers.items())'),
    );
    const response = await trusting.call('/function/see', {
      headers: {
        'x-forwarded-for': '10.0.0.1',
        'x-forwarded-host': 'shop.example',
        'x-forwarded-proto': 'https',
      },
    });
    const headers = (await response.json()) as Record<string, string>;
    assert.equal(headers['x-forwarded-for'], '10.0.0.1, 127.0.0.1');
    assert.equal(headers['x-forwarded-host'], 'shop.example');
    assert.equal(headers['x-forwarded-proto'], 'https');
    // Its loopback is the world's: names of functions are not for it.
    assert.equal((await trusting.call('/metrics')).status, 401);
    assert.equal((await trusting.control('/metrics')).status, 200);
    const plain = await trusting.call('/function/see');
    const own = (await plain.json()) as Record<string, string>;
    assert.equal(own['x-forwarded-proto'], 'http');
    assert.equal(own['x-forwarded-host'], `127.0.0.1:${trusting.port}`);
  } finally {
    await trusting.stop();
  }
});

test('HEAD answers with the headers of the body and without it', async () => {
  const whole = parseAnswer(
    await gateway.raw('HEAD /function/web HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'),
  );
  assert.equal(whole.status, 200);
  assert.ok(Number(whole.headers.get('content-length')?.[0]) > 50);
  assert.equal(whole.body, '');
  await put(
    'head',
    javascript(`
export default () => new Response(null, { headers: { 'content-length': '1234' } });`),
  );
  const told = await call('/function/head', { method: 'HEAD' });
  assert.equal(told.headers.get('content-length'), '1234');
  const kept = await gateway.raw(
    'HEAD /function/web HTTP/1.1\r\nHost: a\r\n\r\n' +
      'GET /function/head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  );
  assert.equal(kept.match(/HTTP\/1\.1 200/g)?.length, 2, kept);
});

test('204 and 304 have no body and no length', async () => {
  for (const status of [204, 304]) {
    const answer = await answered({ status, body: 'ignored', headers: { etag: '"1"' } });
    assert.equal(answer.status, status);
    assert.equal(answer.body, '');
    assert.equal(answer.headers.get('transfer-encoding'), undefined);
    if (status === 204) assert.equal(answer.headers.get('content-length'), undefined);
    assert.deepEqual(answer.headers.get('etag'), ['"1"']);
  }
});

test('the length of a whole answer is counted, whatever the function says', async () => {
  const answer = await answered({ headers: { 'content-length': '3' }, body: 'hello' });
  assert.deepEqual(answer.headers.get('content-length'), ['5']);
  assert.equal(answer.body, 'hello');
});

test("a caller's X-Call-Id is a label: echoed, passed on, and ignored where it is unfit", async () => {
  const labelled = await call('/function/see', { headers: { 'x-call-id': 'order-42' } });
  assert.equal(labelled.headers.get('x-call-id'), 'order-42');
  assert.deepEqual(((await labelled.json()) as Seen).headers['x-call-id'], ['order-42']);
  for (const label of [undefined, 'with space', 'x'.repeat(129), '']) {
    const headers: Record<string, string> = label === undefined ? {} : { 'x-call-id': label };
    const response = await call('/function/see', { headers });
    const id = response.headers.get('x-call-id');
    assert.match(id ?? '', /^inv_[0-9a-z]{26}$/);
    assert.deepEqual(((await response.json()) as Seen).headers['x-call-id'], [id]);
  }
});

test('a function cannot answer with a call id of its own', async () => {
  const answer = await answered({ headers: { 'x-call-id': 'mine' } });
  assert.equal(answer.headers.get('x-call-id')?.length, 1);
  assert.match(answer.headers.get('x-call-id')![0]!, /^inv_/);
});

test('a traceparent is kept, and made where there is no valid one', async () => {
  const valid = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const kept = await seen(['GET /function/see HTTP/1.1', 'Host: a', `Traceparent: ${valid}`]);
  assert.deepEqual(kept.headers.traceparent, [valid]);
  const zero = `00-${'0'.repeat(32)}-b7ad6b7169203331-01`;
  for (const lines of [[], ['traceparent: nonsense'], [`traceparent: ${zero}`]]) {
    const { headers } = await seen(['GET /function/see HTTP/1.1', 'Host: a', ...lines]);
    assert.equal(headers.traceparent?.length, 1);
    assert.match(headers.traceparent![0]!, /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/);
  }
});

test('a type that a browser would guess is said to be none to guess at', async () => {
  const sniffed = async (headers: Record<string, string>) => {
    const answer = await answered({ headers, body: '<p>hi' });
    return answer.headers.get('x-content-type-options')?.[0];
  };
  for (const type of ['foo', 'application/unknown', '*/*', 'text', 'text/plain, foo'])
    assert.equal(await sniffed({ 'content-type': type }), 'nosniff', type);
  for (const type of ['text/plain', 'text/plain; charset=utf-8', 'application/vnd.a+json'])
    assert.equal(await sniffed({ 'content-type': type }), undefined, type);
});

test('a document that a browser would run gets the sandbox policy', async () => {
  const documents = [
    'text/html',
    'TEXT/HTML; charset=utf-8',
    ' text/html',
    'text/plain, text/html',
    'application/json,text/html',
    'multipart/x-mixed-replace; boundary=a',
    'application/xhtml+xml',
    'image/svg+xml',
    'application/xml',
    'text/xml',
    'application/rss+xml',
    'application/atom+xml',
  ];
  for (const type of documents) {
    const answer = await answered({ headers: { 'content-type': type }, body: '<p>hi' });
    const policy = answer.headers.get('content-security-policy')?.[0];
    assert.equal(policy, 'sandbox allow-scripts allow-forms allow-popups', type);
  }
  for (const type of ['text/plain', 'application/json', 'image/png']) {
    const answer = await answered({ headers: { 'content-type': type }, body: '<p>hi' });
    assert.equal(answer.headers.get('content-security-policy'), undefined, type);
  }
});

test('an answer without a type cannot be sniffed as a document', async () => {
  await put(
    'untyped',
    javascript('export default () => new Response(new TextEncoder().encode("<script>1</script>"))'),
  );
  const response = await call('/function/untyped');
  assert.equal(response.headers.get('content-type'), null);
  const isSafe =
    response.headers.get('x-content-type-options') === 'nosniff' ||
    response.headers.get('content-security-policy')?.startsWith('sandbox');
  assert.ok(isSafe, 'neither nosniff nor a sandbox');
});
