/** Goal: no request reaches a private address, however it is named. Method: a real server, and look-ups of the test's own. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type LookupFunction } from 'node:net';
import { after, test } from 'node:test';
import { systemClock } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import { CallSignal } from '../invoke/invoke.ts';
import { isPublic, Outbound } from './outbound.ts';

let requests = 0;
const server = createServer((request, response) => {
  requests++;
  request.resume();
  response.writeHead(302, { location: 'http://127.0.0.1:1/', 'retry-after': '7' }).end('moved');
});
await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
after(() => server.close());
const { port } = server.address() as AddressInfo;

/** A name that comes to these addresses. */
const leadsTo =
  (...addresses: string[]): LookupFunction =>
  (_hostname, _options, callback) =>
    callback(
      null,
      addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 })),
    );
const post = (outbound: Outbound, url: string) =>
  outbound.post(url, { headers: { a: 'b' }, body: Buffer.from('x') }, new CallSignal());

test('what is public, and what is not', () => {
  for (const address of ['8.8.8.8', '1.1.1.1', '2606:4700::1111', '172.32.0.1', '100.128.0.1'])
    assert.equal(isPublic(address), true, address);
  for (const address of [
    ...['127.0.0.1', '127.9.9.9', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1'],
    ...['169.254.169.254', '0.0.0.0', '100.64.0.1', '224.0.0.1', '255.255.255.255', '198.18.0.1'],
    ...[
      '::1',
      '::',
      'fe80::1',
      'fc00::1',
      'fd12::1',
      'ff02::1',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
    ],
    ...['::127.0.0.1', '::a00:1', '::ffff:0:7f00:1', '5f00::1', '3fff::1', '168.63.129.16'],
    ...['::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:a9fe:a9fe', 'not an address'],
  ])
    assert.equal(isPublic(address), false, address);
});

test('an address that is private by itself is refused before anything is sent', async () => {
  const outbound = new Outbound({ allowPrivate: false, clock: systemClock });
  for (const host of [
    ...[`127.0.0.1:${port}`, `localhost:${port}`, `a.localhost:${port}`, `LOCALHOST.:${port}`],
    // What a URL makes of these is the same address.
    ...[`2130706433:${port}`, `0x7f.1:${port}`, `[::1]:${port}`, `[::ffff:127.0.0.1]:${port}`],
  ]) {
    assert.throws(() => outbound.check(`http://${host}/`), { code: 'ADDRESS_REFUSED' }, host);
    await assert.rejects(post(outbound, `http://${host}/`), { code: 'ADDRESS_REFUSED' }, host);
  }
  assert.equal(requests, 0);
});

test('a name that leads to one is refused where it is connected to', async () => {
  for (const addresses of [['127.0.0.1'], ['::1', '127.0.0.1'], ['::ffff:127.0.0.1'], []]) {
    const lookup = leadsTo(...addresses);
    const outbound = new Outbound({ allowPrivate: false, clock: systemClock, lookup });
    outbound.check(`http://example.com:${port}/`);
    await assert.rejects(post(outbound, `http://example.com:${port}/`), {
      code: 'ADDRESS_REFUSED',
    });
  }
  assert.equal(requests, 0);
});

test('redirections are told, not followed; and what may be private is asked', async () => {
  const lookup = leadsTo('127.0.0.1');
  const outbound = new Outbound({ allowPrivate: true, clock: systemClock, lookup });
  const answer = await post(outbound, `http://example.com:${port}/`);
  assert.deepEqual(answer, { status: 302, retryAfter: '7' });
  assert.equal(requests, 1);
});

test('what does not answer is unreachable', async () => {
  const outbound = new Outbound({ allowPrivate: true, clock: systemClock });
  await assert.rejects(post(outbound, 'http://127.0.0.1:9/'), { code: 'UPSTREAM_UNREACHABLE' });
});

test('a server that answers 101, or closes, or an abort: each is told, and nothing waits', async () => {
  const answers = [
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
    '',
  ];
  const odd = createTcpServer(socket => {
    socket.on('error', () => {});
    socket.once('data', () => {
      const text = answers.shift();
      if (text === undefined) return;
      if (text === '') socket.end();
      else socket.write(text);
    });
  });
  await new Promise<void>(resolve => odd.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(odd.address() as AddressInfo).port}/`;
  const outbound = new Outbound({ allowPrivate: true, clock: systemClock });
  await assert.rejects(post(outbound, url), { message: /answered 101/ });
  await assert.rejects(post(outbound, url), { code: 'UPSTREAM_UNREACHABLE' });
  const signal = new CallSignal();
  const waits = outbound.post(url, { headers: {}, body: Buffer.from('x') }, signal);
  signal.abort(new GatewayError('GATEWAY_STOPPING', 'it stops'));
  await assert.rejects(waits, { code: 'GATEWAY_STOPPING' });
  odd.close();
});

test('the scheme may be written in capitals', async () => {
  const outbound = new Outbound({ allowPrivate: true, clock: systemClock });
  await assert.rejects(post(outbound, `HTTPS://127.0.0.1:${port}/`), {
    code: 'UPSTREAM_UNREACHABLE',
    message: /SSL|wrong version|EPROTO|closed/i,
  });
});
