/**
 * Goal: the gateway's end sends no more than it may, takes no more than it allowed, and every cancelled or broken
 * call still ends exactly once. Method: as in link.test.ts; the last test plays random processes.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { isGatewayError } from '../errors.ts';
import { isStream } from '../invoke/invoke.ts';
import { payloadBytesMax, windowBytes } from './frames.ts';
import type { Link } from './link.ts';
import {
  callWith,
  type Links,
  leave,
  openLinks,
  type Running,
  read,
  source,
  start,
  until,
} from './link-fixture.ts';
import {
  bodyOf,
  END,
  encode,
  encodeHead,
  type Peer,
  type RawFrame,
  types,
} from './peer-fixture.ts';

let links: Links;
before(async () => {
  links = await openLinks();
});
after(() => links.close());

/** Body bytes of a call that have arrived at the process so far. */
function arrived(peer: Peer, stream: number): number {
  return peer.frames
    .filter(frame => frame.type === types.DATA && frame.stream === stream)
    .reduce((sum, frame) => sum + frame.payload.length, 0);
}

/** Proves that all frames sent before have been handled: the answer to a PING comes after them. */
async function turn(link: Link, peer: Peer): Promise<void> {
  const pong = link.ping();
  const { arg } = await peer.next(types.PING);
  peer.send({ type: types.PONG, arg });
  await pong;
}

describe('what the gateway sends', { timeout: 20_000 }, () => {
  for (const streamed of [true, false]) {
    const what = streamed ? 'streamed' : 'whole';
    test(`a ${what} body stops at the window and goes on with credit`, async () => {
      const { link, peer } = await links.linked();
      const bytes = Buffer.alloc(windowBytes * 2 + 1000, 'x');
      const request = source();
      if (streamed) {
        request.body.push(bytes);
        request.body.end();
      }
      start(link, callWith({ body: streamed ? request.body : bytes }));
      const { stream } = await peer.next(types.CALL);
      await until(() => arrived(peer, stream) === windowBytes);
      await turn(link, peer);
      assert.equal(arrived(peer, stream), windowBytes);
      peer.send({ type: types.CREDIT, stream, arg: 1 });
      await until(() => arrived(peer, stream) === windowBytes + 1);
      await turn(link, peer);
      assert.equal(arrived(peer, stream), windowBytes + 1);
      peer.send({ type: types.CREDIT, stream, arg: windowBytes * 3 });
      await until(() => arrived(peer, stream) === bytes.length);
      await until(() => peer.frames.some(frame => (frame.flags & END) !== 0));
      assert.ok(peer.frames.every(frame => frame.payload.length <= payloadBytesMax));
      link.destroy();
    });
  }

  test('a streamed body is read no faster than the process takes it', async () => {
    const { link, peer } = await links.linked();
    const request = source();
    for (let i = 0; i < 100; i++) request.body.push(Buffer.alloc(10_000));
    start(link, callWith({ body: request.body }));
    const { stream } = await peer.next(types.CALL);
    await until(() => arrived(peer, stream) === windowBytes);
    await turn(link, peer);
    assert.ok(request.read() <= windowBytes + 10_000);
    link.destroy();
  });

  test('a waiting body lets go when the call is answered, cancelled or the process ends', async () => {
    const { link, peer } = await links.linked();
    const requests = [source(), source(), source()];
    const running = requests.map(({ body }) => {
      body.push(Buffer.alloc(windowBytes * 2));
      return start(link, callWith({ body }));
    });
    const streams: number[] = [];
    for (const _ of requests) streams.push((await peer.next(types.CALL)).stream);
    await until(() => streams.every(stream => arrived(peer, stream) === windowBytes));
    peer.reply(streams[0]!, ['200']);
    running[1]!.signal.abort(leave);
    await running[0]!.reply;
    await until(() => requests[0]!.cancelled.length === 1);
    await until(() => requests[1]!.cancelled.length === 1);
    peer.socket.destroy();
    await running[2]!.reply;
    assert.equal(requests[2]!.cancelled.length, 1);
    assert.deepEqual(
      running.map(one => one.ended()),
      [1, 1, 1],
    );
  });

  test('a request body that breaks off cancels the call', async () => {
    const { link, peer } = await links.linked();
    const request = source();
    const running = start(link, callWith({ body: request.body }));
    const { stream } = await peer.next(types.CALL);
    request.body.fail(leave);
    const cancel = await peer.next(types.CANCEL, stream);
    assert.equal(cancel.payload.toString(), 'CALL_CANCELLED');
    await assert.rejects(running.reply, leave);
    assert.equal(running.ended(), 0);
    peer.send({ type: types.CANCEL, stream });
    await until(() => running.ended() === 1);
    link.destroy();
  });

  test('many bodies that wait for the socket at once raise no warning', async () => {
    const warnings: string[] = [];
    const warn = (warning: Error) => warnings.push(warning.message);
    process.on('warning', warn);
    const { link, peer } = await links.linked();
    peer.socket.pause();
    for (let i = 0; i < 40; i++) start(link, callWith({ body: Buffer.alloc(windowBytes) }));
    for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve));
    peer.socket.resume();
    await until(() => peer.frames.filter(frame => frame.type === types.CALL).length === 40);
    process.off('warning', warn);
    link.destroy();
    assert.deepEqual(warnings, []);
  });
});

describe('what the gateway takes', { timeout: 20_000 }, () => {
  test('credit comes as the answer is read, and never before', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], '', 0);
    for (let i = 0; i < 4; i++)
      peer.send({ type: types.DATA, stream, payload: Buffer.alloc(windowBytes / 4) });
    const { body } = await running.reply;
    await turn(link, peer);
    assert.equal(peer.frames.filter(frame => frame.type === types.CREDIT).length, 0);
    assert.ok(isStream(body));
    const reader = body[Symbol.asyncIterator]();
    await reader.next();
    const credit = await peer.next(types.CREDIT, stream);
    assert.equal(credit.arg, windowBytes / 4);
    link.destroy();
    await assert.rejects(async () => {
      while (!(await reader.next()).done);
    });
  });

  test('a process that sends more than its credit breaks the protocol', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], '', 0);
    const { body } = await running.reply;
    for (let i = 0; i < 16; i++)
      peer.send({ type: types.DATA, stream, payload: Buffer.alloc(payloadBytesMax) });
    const closed = await Promise.race([
      link.closed.then(() => 'closed'),
      turn(link, peer).then(() => 'a mebibyte lies in the gateway'),
    ]);
    assert.equal(closed, 'closed');
    await assert.rejects(read(body));
  });

  test('an answer that comes early drops the rest of the request', async () => {
    const { link, peer } = await links.linked();
    const request = source();
    request.body.push(Buffer.from('first'));
    const running = start(link, callWith({ body: request.body }));
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'enough');
    await running.reply;
    await until(() => request.cancelled.length === 1);
    request.body.push(Buffer.from('ignored'));
    await turn(link, peer);
    assert.ok(!peer.frames.some(frame => frame.payload.toString() === 'ignored'));
    link.destroy();
  });
});

describe('a cancelled call', { timeout: 20_000 }, () => {
  test('holds its place until the process ends the stream', async () => {
    for (const last of [types.CANCEL, types.FAIL, types.REPLY, types.DATA]) {
      const { link, peer } = await links.linked();
      const running = start(link);
      const { stream } = await peer.next(types.CALL);
      running.signal.abort(leave);
      await assert.rejects(running.reply, leave);
      await peer.next(types.CANCEL, stream);
      peer.reply(stream, ['200'], 'on its way', 0);
      peer.send({ type: types.DATA, stream, payload: 'on its way too' });
      await turn(link, peer);
      assert.equal(running.ended(), 0);
      assert.equal(link.inFlight, 1);
      peer.send({ type: last, flags: last === types.CANCEL ? 0 : END, stream, payload: '{}' });
      await until(() => running.ended() === 1);
      assert.equal(link.inFlight, 0);
      link.destroy();
    }
  });

  test('one that is cancelled in mid-answer breaks the body and tells the process once', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'half', 0);
    const reply = await running.reply;
    running.signal.abort(leave);
    running.signal.abort(leave);
    assert.ok(isStream(reply.body));
    reply.body.cancel(leave);
    await assert.rejects(read(reply.body), leave);
    await peer.next(types.CANCEL, stream);
    await turn(link, peer);
    assert.equal(peer.frames.length, 0);
    peer.send({ type: types.CANCEL, stream });
    await until(() => running.ended() === 1);
    link.destroy();
  });

  test('a reader that gives the answer up cancels the call', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'half', 0);
    const { body } = await running.reply;
    assert.ok(isStream(body));
    for await (const _ of body) break;
    await peer.next(types.CANCEL, stream);
    peer.send({ type: types.CANCEL, stream });
    await until(() => running.ended() === 1);
    link.destroy();
  });

  test('one that was cancelled before it began still ends', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { signal } = running;
    signal.abort(leave);
    const again: Running = { ...running };
    const late = link.call(callWith(), signal, 0, () => {});
    await assert.rejects(late, leave);
    await assert.rejects(again.reply, leave);
    for (let i = 0; i < 2; i++) {
      const { stream } = await peer.next(types.CANCEL);
      peer.send({ type: types.CANCEL, stream });
    }
    await until(() => link.inFlight === 0);
    link.destroy();
  });

  test('CANCEL from the process breaks the answer off with its reason', async () => {
    const { link, peer } = await links.linked();
    const before = start(link);
    const during = start(link);
    const one = await peer.next(types.CALL);
    const two = await peer.next(types.CALL);
    peer.send({ type: types.CANCEL, stream: one.stream });
    peer.reply(two.stream, ['200'], 'half', 0);
    const reply = await during.reply;
    peer.send({ type: types.CANCEL, stream: two.stream, payload: 'it broke' });
    await assert.rejects(before.reply, { code: 'FUNCTION_FAILED' });
    await assert.rejects(read(reply.body), { code: 'FUNCTION_FAILED', message: 'it broke' });
    assert.deepEqual([before.ended(), during.ended()], [1, 1]);
    link.destroy();
  });
});

describe('a process that breaks the protocol in the middle of a call', { timeout: 20_000 }, () => {
  const breaks: Array<[string, (stream: number) => Buffer]> = [
    ['garbage', () => Buffer.alloc(64, 0xff)],
    ['a frame type of the other direction', stream => encode({ type: types.CALL, stream })],
    ['HELLO again', () => encode({ type: types.HELLO, payload: '{}' })],
    ['PING', () => encode({ type: types.PING })],
    ['DATA before REPLY', stream => encode({ type: types.DATA, stream, payload: 'x' })],
    ['REPLY without a status', stream => encode({ type: types.REPLY, stream })],
    ['a status of 99', stream => encodeHead({ type: types.REPLY, stream, fields: ['99'] })],
    ['a status of 600', stream => encodeHead({ type: types.REPLY, stream, fields: ['600'] })],
    ['a status of 200.5', stream => encodeHead({ type: types.REPLY, stream, fields: ['200.5'] })],
    ['half a header', stream => encodeHead({ type: types.REPLY, stream, fields: ['200', 'a'] })],
    ['a FAIL that is no JSON', stream => encode({ type: types.FAIL, stream, payload: 'no' })],
    ['a FAIL of nothing', stream => encode({ type: types.FAIL, stream, payload: '{}' })],
    ['a FAIL of a list', stream => encode({ type: types.FAIL, stream, payload: '[]' })],
    ...Object.entries({ type: {}, file: 1, stack: [], line: '1', column: 0.5, message: {} }).map(
      ([key, value]): [string, (stream: number) => Buffer] => [
        `a FAIL whose ${key} is of another kind`,
        stream => {
          const problem = { reason: 'threw', message: 'm', [key]: value };
          return encode({ type: types.FAIL, stream, payload: JSON.stringify(problem) });
        },
      ],
    ),
  ];
  for (const [what, bytes] of breaks) {
    test(`${what}: the link closes, and each call fails once`, { timeout: 2000 }, async () => {
      const { link, peer } = await links.linked();
      const other = start(link);
      const streaming = start(link);
      const target = start(link);
      await peer.next(types.CALL);
      const half = await peer.next(types.CALL);
      const { stream } = await peer.next(types.CALL);
      peer.reply(half.stream, ['200'], 'half', 0);
      const { body } = await streaming.reply;
      peer.send(bytes(stream));
      const outcome = await Promise.race([link.closed, target.reply]);
      assert.ok(isGatewayError(outcome) && outcome.code === 'LINK_PROTOCOL_BROKEN', 'it is closed');
      assert.equal((await other.reply).status, 502);
      assert.equal((await target.reply).status, 502);
      await assert.rejects(read(body), { code: 'LINK_PROTOCOL_BROKEN' });
      assert.deepEqual([other.ended(), streaming.ended(), target.ended()], [1, 1, 1]);
      await peer.closed;
    });
  }

  test('FAIL after REPLY: the link closes, and the answer breaks off', {
    timeout: 2000,
  }, async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'half', 0);
    const { body } = await running.reply;
    peer.send({ type: types.FAIL, stream, payload: '{"reason":"threw","message":"late"}' });
    await assert.rejects(read(body), { code: 'LINK_PROTOCOL_BROKEN' });
    assert.equal(running.ended(), 1);
    await link.closed;
  });

  test('a second REPLY: the link closes, and the first answer breaks off', async () => {
    const { link, peer } = await links.linked();
    const running = start(link);
    const { stream } = await peer.next(types.CALL);
    peer.reply(stream, ['200'], 'half', 0);
    const { body } = await running.reply;
    peer.reply(stream, ['200'], 'again', 0);
    await assert.rejects(read(body), { code: 'LINK_PROTOCOL_BROKEN' });
    assert.equal(running.ended(), 1);
    await link.closed;
  });
});

/** A process that answers each call in a random way, breaks the protocol or dies. */
const anyAct = fc.record({
  stream: fc.nat(6),
  act: fc.constantFrom(
    ...['reply', 'head', 'data', 'end', 'fail', 'cancel', 'credit', 'garbage', 'die'],
    ...['reply', 'head', 'data', 'end', 'abort', 'abort', 'drop'],
  ),
});

describe('any process', { timeout: 60_000 }, () => {
  test('each call settles once and is done once, whatever the process does', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyAct, { maxLength: 30 }), async acts => {
        const { link, peer } = await links.linked();
        const bodies = Array.from({ length: 6 }, () => source());
        const running = bodies.map(({ body }, i) => {
          if (i % 2 === 0) return start(link);
          body.push(Buffer.alloc(windowBytes + 1));
          return start(link, callWith({ body }));
        });
        const frames: RawFrame[] = [];
        for (const _ of bodies) frames.push(await peer.next(types.CALL));
        for (const { stream: n, act } of acts) {
          play(act, peer, frames[n]?.stream ?? 99, running[n]);
          if (n % 3 === 0) await new Promise(resolve => setImmediate(resolve));
        }
        peer.socket.end();
        await link.closed;
        let settled = 0;
        for (const one of running) {
          const whole = one.reply.then(reply => read(reply.body));
          void whole.catch(() => {}).finally(() => settled++);
        }
        await until(() => settled === running.length);
        assert.deepEqual(
          running.map(one => one.ended()),
          [1, 1, 1, 1, 1, 1],
        );
        assert.equal(link.inFlight, 0);
      }),
      { numRuns: 150 },
    );
  });

  function play(act: string, peer: Peer, stream: number, running: Running | undefined): void {
    if (act === 'reply') peer.reply(stream, ['200'], 'x');
    else if (act === 'head') peer.reply(stream, ['200'], 'x', 0);
    else if (act === 'data') peer.send({ type: types.DATA, stream, payload: 'y' });
    else if (act === 'end') peer.send({ type: types.DATA, stream, flags: END });
    else if (act === 'fail')
      peer.send({ type: types.FAIL, stream, payload: '{"reason":"threw","message":"m"}' });
    else if (act === 'cancel') peer.send({ type: types.CANCEL, stream });
    else if (act === 'credit') peer.send({ type: types.CREDIT, stream, arg: 100 });
    else if (act === 'garbage') peer.send(Buffer.alloc(16, 0xee));
    else if (act === 'die') peer.socket.destroy();
    else if (act === 'abort') running?.signal.abort(leave);
    else {
      void running?.reply.then(
        reply => isStream(reply.body) && reply.body.cancel(leave),
        () => {},
      );
    }
  }
});

test('a body is what it was, however large and in whatever pieces', async () => {
  const { link, peer } = await links.linked();
  const sizes = [1, 8191, 8192, 8193, 65_535, 65_536, 65_537, windowBytes, windowBytes + 1];
  for (const size of sizes) {
    const bytes = Buffer.alloc(size, 'abc');
    const running = start(link, callWith({ body: bytes }));
    const first = await peer.next(types.CALL);
    const parts = [bodyOf(first)];
    for (let last = first; (last.flags & END) === 0; ) {
      last = await peer.next(types.DATA, first.stream);
      peer.send({ type: types.CREDIT, stream: first.stream, arg: last.payload.length });
      parts.push(last.payload);
    }
    assert.ok(Buffer.concat(parts).equals(bytes), `${size} bytes`);
    peer.reply(first.stream, ['204']);
    await running.reply;
  }
  link.destroy();
});
