/**
 * Goal: each call ends exactly once whatever the process at the other end does, and neither end sends more than
 * the other allowed. Method: the gateway's end over a real Unix socket; the process is a Peer that the test
 * scripts frame by frame. Time is a fake clock; waiting is for frames and states.
 */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { isGatewayError } from '../errors.ts';
import { failedReply } from '../invoke/invoke.ts';
import { aloneCallsMin, Link, type Loaded } from './link.ts';
import {
  callWith,
  hello,
  type Links,
  leave,
  openLinks,
  type Running,
  read,
  source,
  start,
  until,
} from './link-fixture.ts';
import { bodyOf, END, encode, encodeHead, fieldsOf, Peer, types } from './peer-fixture.ts';
import { linkLimits } from './server.ts';

let links: Links;
before(async () => {
  links = await openLinks();
});
after(() => links.close());

describe('saying HELLO', { timeout: 20_000 }, () => {
  for (const [what, payload] of [
    ['an unknown secret', hello('nobody waits for this')],
    ['another protocol', hello('known', 2)],
    ['a secret that is no text', hello(7)],
    ['no JSON', 'hello'],
    ['a JSON text', '"hello"'],
    ['nothing', ''],
  ] as const) {
    test(`a HELLO with ${what} closes the connection`, async () => {
      const expected = links.server.expect('known', 1000);
      const peer = new Peer(connect(links.path));
      peer.send({ type: types.HELLO, payload });
      await peer.closed;
      links.server.forget('known', 'the test is over');
      await assert.rejects(expected, /the test is over/);
    });
  }

  test('any other first frame closes the connection', async () => {
    for (const type of Object.values(types).filter(type => type !== types.HELLO)) {
      const peer = new Peer(connect(links.path));
      peer.send({ type, payload: hello('x') });
      await peer.closed;
    }
  });

  test('garbage closes the connection', async () => {
    for (const bytes of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', '\0'.repeat(16), '\xff'.repeat(20)]) {
      const peer = new Peer(connect(links.path));
      peer.socket.write(Buffer.from(bytes, 'latin1'));
      await peer.closed;
    }
  });

  test('silence, and half a HELLO, are closed after the limit', async () => {
    const silent = new Peer(connect(links.path));
    const half = new Peer(connect(links.path));
    half.socket.write(Buffer.alloc(10, 1));
    const timers = links.clock.pending;
    await until(() => links.clock.pending === timers + 2);
    await links.clock.advance(linkLimits.helloMsMax - 1);
    assert.equal(silent.socket.closed, false);
    await links.clock.advance(1);
    await Promise.all([silent.closed, half.closed]);
  });

  test('of many that say nothing the oldest go, and who says HELLO is heard', async () => {
    const silent: Peer[] = [];
    for (let i = 0; i <= linkLimits.strangersMax; i++) silent.push(new Peer(connect(links.path)));
    await silent[0]!.closed;
    const { link } = await links.linked();
    assert.equal(silent.at(-1)!.socket.closed, false);
    link.destroy();
    for (const peer of silent) peer.socket.destroy();
  });

  test('a secret serves one connection', async () => {
    const expected = links.server.expect('once', 1000);
    const first = new Peer(connect(links.path));
    first.send({ type: types.HELLO, payload: hello('once') });
    const { link } = await expected;
    const second = new Peer(connect(links.path));
    second.send({ type: types.HELLO, payload: hello('once') });
    await second.closed;
    assert.equal(first.socket.closed, false);
    link.destroy();
    await first.closed;
  });

  test('a process that does not connect in time is given up with INSTANCE_NOT_STARTED', async () => {
    const expected = links.server.expect('late', 700);
    expected.catch(() => {});
    await links.clock.advance(700);
    await assert.rejects(expected, { code: 'INSTANCE_NOT_STARTED', message: /700 ms/ });
    const peer = new Peer(connect(links.path));
    peer.send({ type: types.HELLO, payload: hello('late') });
    await peer.closed;
  });

  test('a linked connection stays when the limit for HELLO has passed', async () => {
    const { link, peer } = await links.linked();
    await links.clock.advance(linkLimits.helloMsMax * 2);
    const pong = link.ping();
    const { arg } = await peer.next(types.PING);
    peer.send({ type: types.PONG, arg });
    await pong;
    link.destroy();
  });

  test('a process that ends before its PONG is INSTANCE_NOT_STARTED', async () => {
    const { link, peer } = await links.linked();
    const pong = link.ping();
    peer.socket.destroy();
    await assert.rejects(pong, { code: 'INSTANCE_NOT_STARTED' });
  });

  // A pid is killed with its group: 0 would be the gateway's own group, 1 and -1 everything.
  for (const pid of [0, 1, -1, 1.5, 'x', null]) {
    test(`a HELLO whose pid is ${JSON.stringify(pid)} closes the connection`, async () => {
      const secret = `pid-${pid}`;
      const expected = links.server.expect(secret, 1000);
      expected.catch(() => {});
      const peer = new Peer(connect(links.path));
      const payload = JSON.stringify({ protocol: 1, secret, pid, runtime: 'test' });
      peer.send({ type: types.HELLO, payload });
      const linkedAnyway = await Promise.race([expected, peer.closed]);
      links.server.forget(secret, 'the test is over');
      peer.socket.destroy();
      assert.equal(linkedAnyway, undefined);
    });
  }
});

describe('loading', { timeout: 20_000 }, () => {
  test('settings of several frames arrive as one text, END on the last', async () => {
    const { link, peer } = await links.linked();
    const settings = { function: 'ü', env: { LONG: 'é'.repeat(150_000) } };
    const loaded = link.load(settings);
    const parts = [await peer.next(types.LOAD)];
    while ((parts.at(-1)!.flags & END) === 0) parts.push(await peer.next(types.DATA, 0));
    assert.equal(parts.length, 5);
    assert.ok(parts.slice(0, -1).every(part => part.payload.length === 65_536));
    const text = Buffer.concat(parts.map(part => part.payload)).toString('utf8');
    assert.deepEqual(JSON.parse(text), settings);
    peer.send({ type: types.LOADED, payload: '{"body":"whole"}' });
    assert.deepEqual(await loaded, { ok: true, body: 'whole' } satisfies Loaded);
    link.destroy();
  });

  test("the user's mistake is a value", async () => {
    const { link, peer } = await links.linked();
    const loaded = link.load({});
    const problem = { reason: 'syntax', message: 'Unexpected token', file: 'a.js', line: 3 };
    peer.send({ type: types.LOAD_FAILED, payload: JSON.stringify(problem) });
    assert.deepEqual(await loaded, { ok: false, problem });
    link.destroy();
  });

  test('a process that ends while it loads, or before, is INSTANCE_NOT_STARTED', async () => {
    const { link, peer } = await links.linked();
    const loaded = link.load({});
    peer.socket.destroy();
    await assert.rejects(loaded, { code: 'INSTANCE_NOT_STARTED' });
    await assert.rejects(link.load({}), { code: 'INSTANCE_NOT_STARTED' });
  });

  for (const payload of ['', '7', 'null', '{"body":']) {
    test(`LOADED with ${JSON.stringify(payload)} breaks the protocol`, async () => {
      const { link, peer } = await links.linked();
      const loaded = link.load({});
      peer.send({ type: types.LOADED, payload });
      await assert.rejects(loaded, { code: 'INSTANCE_NOT_STARTED' });
      const broken = await link.closed;
      assert.ok(isGatewayError(broken) && broken.code === 'LINK_PROTOCOL_BROKEN');
    });
  }
});

describe('a call', { timeout: 20_000 }, () => {
  test('head and body reach the process as they were, and the answer comes back', async () => {
    const { link, peer } = await links.linked();
    const headers = ['X-A', '1', 'x-a', '2', 'X-Bytes', '\xe9\xff'];
    const call = callWith({ headers, body: Buffer.from('in'), target: '/\xfc?q' });
    const running = start(link, call, 1500);
    const frame = await peer.next(types.CALL);
    assert.deepEqual(fieldsOf(frame), ['POST', '/\xfc?q', 'call_1', '1500', ...headers]);
    assert.equal(bodyOf(frame).toString(), 'in');
    assert.equal(frame.flags, END);
    assert.equal(link.inFlight, 1);
    peer.reply(frame.stream, ['201', 'set-cookie', 'a', 'set-cookie', 'b\xe9'], 'out');
    const reply = await running.reply;
    assert.equal(reply.status, 201);
    assert.deepEqual(reply.headers, ['set-cookie', 'a', 'set-cookie', 'b\xe9']);
    assert.equal(await read(reply.body), 'out');
    assert.equal(running.ended(), 1);
    assert.equal(link.inFlight, 0);
    link.destroy();
  });

  test('a streamed answer is done at its END, and END may come alone', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'a', 0);
    const reply = await running.reply;
    assert.equal(running.ended(), 0);
    peer.send({ type: types.DATA, stream, payload: 'b' }, { type: types.DATA, stream, flags: END });
    assert.equal(await read(reply.body), 'ab');
    assert.equal(running.ended(), 1);
    link.destroy();
  });

  test('a head too long for a frame is refused before anything is sent', async () => {
    const { link, peer } = await links.linked();
    const request = source();
    const call = callWith({ headers: ['x', 'y'.repeat(65_536)], body: request.body });
    const running = start(link, call);
    await assert.rejects(running.reply, { code: 'HEADERS_TOO_LARGE' });
    assert.equal(running.ended(), 1);
    assert.equal(link.inFlight, 0);
    start(link);
    await peer.next(types.CALL);
    assert.equal(peer.frames.length, 0);
    assert.equal(request.cancelled.length, 1, 'nobody will read the body');
    link.destroy();
  });

  for (const [problem, expected] of [
    [{ reason: 'threw', type: 'TypeError', message: 'no', file: 'a.ts', line: 4 }, 'threw'],
    [{ reason: 'reply-invalid', message: 'no' }, 'reply-invalid'],
    [{ reason: 'of the future', message: 'no' }, 'threw'],
  ] as const) {
    test(`FAIL with the reason ${problem.reason} is a failed reply`, async () => {
      const { link, peer } = await links.linked();
      const running = start(link);
      const { stream } = await peer.next(types.CALL);
      peer.send({ type: types.FAIL, stream, payload: JSON.stringify(problem) });
      const reply = await running.reply;
      assert.equal(reply.status, 502);
      assert.equal(reply.failure!.reason, expected);
      assert.equal(reply.failure!.message, 'no');
      assert.equal(running.ended(), 1);
      link.destroy();
    });
  }

  test('FAIL because of a long body is BODY_TOO_LARGE', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    const payload = JSON.stringify({ reason: 'body-too-large', message: 'too long' });
    peer.send({ type: types.FAIL, stream, payload });
    await assert.rejects(running.reply, { code: 'BODY_TOO_LARGE', message: 'too long' });
    assert.equal(running.ended(), 1);
    link.destroy();
  });

  test('a process that ends fails every call in it with what the obituary says', async () => {
    const { link, peer } = await links.linked();
    link.obituary = async () => () => failedReply({ reason: 'crashed', message: 'signal SIGSEGV' });
    const request = source();
    const waiting = start(link);
    const streaming = start(link, callWith({ body: request.body }));
    const gone = start(link);
    await peer.next(types.CALL);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'half', 0);
    const half = await streaming.reply;
    gone.signal.abort(leave);
    peer.socket.destroy();
    assert.equal((await waiting.reply).failure!.message, 'signal SIGSEGV');
    await assert.rejects(read(half.body), { code: 'FUNCTION_FAILED', message: 'signal SIGSEGV' });
    await assert.rejects(gone.reply, { code: 'CALL_CANCELLED' });
    assert.deepEqual([waiting.ended(), streaming.ended(), gone.ended()], [1, 1, 1]);
    assert.equal(link.inFlight, 0);
    assert.equal(request.cancelled.length, 1);
  });

  test('a call into a closed link is refused and done', async () => {
    const { link, peer } = await links.linked();
    peer.socket.destroy();
    await link.closed;
    const running = start(link);
    await assert.rejects(running.reply, { code: 'INSTANCE_NOT_STARTED' });
    assert.equal(running.ended(), 1);
  });

  test('frames for a stream that is over are ignored', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'x');
    await running.reply;
    peer.reply(stream, ['200'], 'again');
    for (const type of [types.DATA, types.CREDIT, types.CANCEL, types.FAIL]) {
      peer.send({ type, stream, payload: '{}' });
    }
    const next = start(link);
    const second = await peer.next(types.CALL);
    peer.reply(second.stream, ['200'], 'still here');
    assert.equal(await read((await next.reply).body), 'still here');
    assert.equal(running.ended(), 1);
    link.destroy();
  });
});

describe('when calls are written', () => {
  /** The gateway's end over a socket that is none, so that each write of it is seen as it happens. */
  function watched() {
    const writes: Buffer[] = [];
    const socket = new Duplex({
      read() {},
      write(chunk, _encoding, done) {
        // A copy: the outbox uses its memory again.
        writes.push(Buffer.from(chunk));
        done();
      },
    });
    const link = new Link(socket as Socket, () => {});
    socket.push(encode({ type: types.HELLO, payload: hello('x') }));
    const turn = () => new Promise(resolve => setImmediate(resolve));
    const answer = async ({ reply }: Running, call: Buffer) => {
      const stream = call.readUInt32LE(8);
      socket.push(encodeHead({ type: types.REPLY, flags: END, stream, fields: ['200'] }));
      await reply;
    };
    /** One call alone; how many writes there were when it was made, and in its turn. */
    const once = async () => {
      const before = writes.length;
      const running = start(link);
      const atOnce = writes.length - before;
      await turn();
      const inTurn = writes.length - before;
      await answer(running, writes.at(-1)!);
      return { atOnce, inTurn };
    };
    return { link, writes, turn, answer, once };
  }

  test('calls share a write at the end of the turn, until enough of them came alone', async () => {
    const { link, writes, turn, answer, once } = watched();
    await turn();
    for (let i = 0; i < aloneCallsMin; i++)
      assert.deepEqual(await once(), { atOnce: 0, inTurn: 1 }, `call ${i}`);
    for (let i = 0; i < 3; i++) assert.deepEqual(await once(), { atOnce: 1, inTurn: 1 });
    const before = writes.length;
    const both = [start(link), start(link)];
    assert.equal(writes.length - before, 1, 'the first could not know');
    await turn();
    assert.equal(writes.length - before, 2);
    for (const [i, running] of both.entries()) await answer(running, writes[before + i]!);
    assert.deepEqual(await once(), { atOnce: 0, inTurn: 1 });
  });
});
