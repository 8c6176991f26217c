/**
 * Goal: a directory that is written for the npm functions framework answers here as it does there. Method: the same
 * source in the real framework and in a gateway; the same requests to both; status, headers and body must be equal.
 * Functions show what they were given in what they answer.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { startTestGateway, waitFor } from '../../src/testing/index.ts';
import { answerOf, compare, post } from './framework-oracle.ts';

const gateway = await startTestGateway({
  shared: true,
  env: { PATH: process.env.PATH! },
  settings: { bufferedBodyBytesMax: '2Mi' },
});

const files = {
  'index.js': `
const { Readable } = require('node:stream');
const functions = require('@google-cloud/functions-framework');

const show = req => ({
  method: req.method, url: req.url, originalUrl: req.originalUrl, path: req.path, baseUrl: req.baseUrl,
  query: req.query, params: req.params, protocol: req.protocol, ip: req.ip, hostname: req.hostname,
  secure: req.secure, xhr: req.xhr, httpVersion: req.httpVersion, complete: req.complete,
  type: req.get('content-type'), is: req.is('json'), accepts: req.accepts(['html', 'json']),
  cookie: req.headers.cookie, many: req.headers['x-many'], custom: req.get('X-Custom'),
  body: Buffer.isBuffer(req.body) ? { bytes: req.body.toString('base64') } : req.body,
  bodyType: typeof req.body,
  rawBody: req.rawBody && req.rawBody.toString('base64'), isBuffer: Buffer.isBuffer(req.rawBody),
  executionId: req.get('function-execution-id') ? req.executionId : req.executionId.length,
  spanId: req.spanId,
});
const routes = {
  '/text': (req, res) => res.send('text ü'),
  '/json': (req, res) => res.status(201).json({ a: [1, null, 'ü'] }),
  '/number': (req, res) => res.json(7),
  '/bytes': (req, res) => res.send(Buffer.from([0, 255, 10, 13])),
  '/empty': (req, res) => res.end(),
  '/nothing': (req, res) => res.status(204).end(),
  '/status': (req, res) => res.sendStatus(418),
  '/redirect': (req, res) => res.redirect(301, '/elsewhere?a=b'),
  '/headers': (req, res) => {
    res.append('Set-Cookie', 'a=b; Path=/'); res.append('Set-Cookie', 'c=d');
    res.set({ 'X-Many': ['1', '2'], Vary: 'Accept', ETag: '"x"' }).type('txt').send('h');
  },
  '/raw': (req, res) => { res.writeHead(202, 'Fine', { 'X-Raw': 'r', 'Content-Type': 'a/b' }); res.end('raw'); },
  '/chunked': (req, res) => { res.writeHead(200, { 'Transfer-Encoding': 'chunked' }); res.write('one'); res.end('two'); },
  '/writes': (req, res) => {
    res.write('a'); res.write(Buffer.from('b'));
    setTimeout(() => { res.write('c'); setImmediate(() => res.end('d')); }, 1);
  },
  '/pipe': (req, res) => Readable.from(['x'.repeat(70000), 'y'.repeat(70000), 'z'.repeat(300000)]).pipe(res),
  '/large': (req, res) => res.send('m'.repeat(1000000)),
  '/throw': () => { throw new Error('thrown'); },
  '/throw-text': () => { throw 'only text'; },
  '/reject': async () => { throw new TypeError('rejected'); },
  '/later': () => { setTimeout(() => { throw new Error('thrown later'); }, 1); },
  '/after': (req, res) => { res.send('sent'); throw new Error('thrown after'); },
  '/await': async (req, res) => { await null; res.type('json').send(JSON.stringify({ late: true })); },
  '/abort': (req, res) => res.json([typeof req.abortController]),
  '/events': (req, res) => { const seen = []; req.on('close', () => seen.push('close'));
    res.on('finish', () => seen.push('finish')); setTimeout(() => res.json(seen), 5); },
};
functions.http('web', (req, res) => (routes[req.path] ?? ((req, res) => res.json(show(req))))(req, res));
exports.plain = (req, res) => res.send('plain ' + req.method);
exports.nested = { deep: { fn: (req, res) => res.send('deep') } };

exports.exits = () => process.exit(3);
exports.unhandled = () => { Promise.reject(new Error('nobody looks')); };
let wanted;
setInterval(() => { if (wanted) throw new Error('of no call'); }, 5);
exports.outside = () => { wanted = true; };
`,
};
const pair = compare(gateway, files);
const json = { 'content-type': 'application/json' };

describe('http functions', async () => {
  const web = await pair('web', 'web');

  test('every way to answer comes out as in the framework', async () => {
    const paths =
      'text json number bytes empty nothing status redirect headers raw chunked writes pipe large throw ' +
      'throw-text reject later after await events';
    for (const path of paths.split(' ')) await web.same([`/${path}`]);
    await web.same(['/throw', { method: 'POST' }], 500);
    assert.equal((await web.same(['/reject'], 500)).headers['x-google-status'], 'crash');
  });

  test('requests reach the function with the same parts', async () => {
    const headers = {
      cookie: 'a=b; c=d',
      'x-many': '1, 2',
      'x-custom': 'c',
      'function-execution-id': 'given-id',
      'x-cloud-trace-context': 'abc/123;o=1',
      accept: 'application/json',
    };
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
      await web.same(['/any/path%20x?a=1&a=2&b[c]=d', { method, headers }], 200);
    await web.same(['/any', { method: 'HEAD' }], 200);
    await web.same(['/'], 200);
  });

  test('bodies are parsed as in the framework, and the raw bytes are kept', async () => {
    const bodies: Array<[type: string, body: string | Uint8Array, more?: Record<string, string>]> =
      [
        ['application/json', '{"a":[1]}'],
        ['application/json; charset=utf-8', '{"ü":"ß"}'],
        ['application/json', ''],
        ['application/json', '{"a":'],
        ['application/json', '"text"'],
        ['application/cloudevents+json', '{"id":"1"}'],
        ['text/plain', 'plain ü'],
        ['application/x-www-form-urlencoded', 'a=1&b[c]=2&b[d]=3&e=%C3%BC'],
        ['multipart/form-data; boundary=x', '--x\r\n\r\na\r\n--x--'],
        ['application/octet-stream', new Uint8Array([0, 1, 255])],
        ['application/json', gzipSync('{"packed":true}'), { 'content-encoding': 'gzip' }],
        ['application/json', 'not packed', { 'content-encoding': 'gzip' }],
        ['application/json', '{}', { 'content-encoding': 'unknown' }],
        ['text/plain; charset=nonsense', 'x'],
      ];
    for (const [type, body, more] of bodies) {
      const headers = { 'content-type': type, ...more };
      await web.same(['/any', { method: 'POST', body: body as BodyInit, headers }]);
    }
    assert.equal((await web.same(['/any', post('{"a":')])).status, 400);
    assert.equal((await web.same(['/any', { method: 'POST' }])).status, 200);
    const stream = () =>
      new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode('{"in":'));
          controller.enqueue(new TextEncoder().encode('"parts"}'));
          controller.close();
        },
      });
    const inParts = { method: 'POST', headers: json, duplex: 'half' as const };
    const [theirs, ours] = await Promise.all([
      answerOf(`${web.oracle.url}/any`, { ...inParts, body: stream() }),
      answerOf(`${gateway.url}/function/web/any`, { ...inParts, body: stream() }),
    ]);
    assert.deepEqual(ours, theirs);
  });

  test('what browsers and crawlers ask for does not reach the function', async () => {
    await web.same(['/favicon.ico'], 404);
    await web.same(['/robots.txt', { method: 'POST' }], 404);
    const listening = await pair('listening', 'web', { env: { IGNORED_ROUTES: '' } });
    await listening.same(['/favicon.ico'], 200);
    const deaf = await pair('deaf', 'web', { env: { IGNORED_ROUTES: '/any' } });
    await deaf.same(['/any'], 404);
    await deaf.same(['/favicon.ico'], 200);
  });

  test('a production environment hides errors', async () => {
    const hiding = await pair('hiding', 'web', { env: { NODE_ENV: 'production' } });
    for (const path of ['/throw', '/reject', '/later']) await hiding.same([path], 500);
    await hiding.same(['/any', post('{"a":')], 400);
  });

  test('exports and dotted targets are functions too', async () => {
    await (await pair('plain', 'plain')).same(['/', { method: 'PUT' }], 200);
    const deep = await pair('deep', 'nested.deep.fn', { signature: 'http' });
    assert.equal((await deep.same(['/'], 200)).body, 'deep');
  });

  test('what throws is counted as a failure of the function, and its error is in the log', async () => {
    await web.same(['/throw']);
    const metrics = await (await gateway.control('/metrics')).text();
    const counted = /fnway_call_failures_total\{.*function="web",reason="threw"\} (\d+)/.exec(
      metrics,
    );
    assert.ok(Number(counted?.[1]) >= 1);
    const lines = await gateway.client.readLogs('web');
    assert.ok(lines.some(line => line.text.includes('Error: thrown')));
    const { headers } = await gateway.call('/function/web/throw');
    assert.equal(headers.get('x-fnway-failure'), null);
  });
});

test('a process that ends under a call leaves the same answer, and the next call has another', {
  timeout: 30_000,
}, async () => {
  const unhandled = await pair('unhandled', 'unhandled', { signature: 'http' });
  await unhandled.same(['/'], 500);
  for (const [target, status] of [
    ['exits', 3],
    ['outside', 16],
  ] as const) {
    const fn = await pair(target, target, { signature: 'http' });
    const answer = await fn.same(['/'], 500);
    assert.equal(answer.headers['x-google-status'], 'crash');
    assert.equal(await fn.oracle.exited, status);
    await waitFor(async () => {
      const { running } = await gateway.client.getFunction(target);
      return running?.busy === 0 && running.ready === 0;
    });
    assert.equal((await gateway.call(`/function/${target}`)).status, 500);
  }
});
