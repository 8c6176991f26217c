/**
 * Goal: bytes become the frames that were meant, however they are split, and broken bytes end in one error.
 * Method: properties over random frames, splits and garbage; the encoder in peer-fixture.ts shares no code with
 * the decoder. The outbox is tried through a real socket pair.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { isGatewayError } from '../errors.ts';
import { FrameDecoder, type FrameType, Outbox, payloadBytesMax } from './frames.ts';
import { encode, encodeHead, Peer, type RawFrame, types } from './peer-fixture.ts';

/** Pushes chunks one after the other and returns the frames; throws what the decoder throws. */
function decode(chunks: readonly Buffer[]): RawFrame[] {
  const frames: RawFrame[] = [];
  const decoder = new FrameDecoder((type, flags, stream, arg, chunk, start, end) => {
    frames.push({ type, flags, stream, arg, payload: Buffer.from(chunk.subarray(start, end)) });
  });
  for (const chunk of chunks) decoder.push(chunk);
  return frames;
}

/** Cuts bytes at random places; empty pieces included. */
function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = cuts.map(cut => cut % (bytes.length + 1)).sort((a, b) => a - b);
  return [...places, bytes.length].map((end, i) => bytes.subarray(places[i - 1] ?? 0, end));
}

const anyFrame: fc.Arbitrary<RawFrame> = fc
  .record({
    type: fc.integer({ min: 1, max: 13 }),
    flags: fc.integer({ min: 0, max: 255 }),
    stream: fc.integer({ min: 0, max: 0xffff_ffff }),
    arg: fc.integer({ min: 0, max: 0xffff_ffff }),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.integer({ min: 0, max: payloadBytesMax }).map(length => new Uint8Array(length).fill(7)),
    ),
  })
  .map(frame => {
    const hasHead = frame.type === types.CALL || frame.type === types.REPLY;
    const arg = hasHead ? frame.arg % (frame.payload.length + 1) : frame.arg;
    return { ...frame, arg, payload: Buffer.from(frame.payload) };
  });
const anyCuts = fc.array(fc.nat(1_000_000), { maxLength: 20 });

function assertBroken(error: unknown): void {
  assert.ok(isGatewayError(error) && error.code === 'LINK_PROTOCOL_BROKEN', String(error));
}

describe('the decoder', () => {
  test('frames come out as they went in, however they are split', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 6 }), anyCuts, (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(frame => encode(frame)));
        assert.deepEqual(decode(split(bytes, cuts)), frames);
      }),
    );
  });

  test('one byte at a time is enough', () => {
    const frames = [
      encodeHead({ type: types.CALL, stream: 1, fields: ['GET', '/', 'id', '0'], body: 'x' }),
      encode({ type: types.PING, arg: 5 }),
    ];
    const bytes = Buffer.concat(frames);
    const got = decode([...bytes].map(byte => Buffer.from([byte])));
    assert.deepEqual(
      got.map(frame => [frame.type, frame.stream, frame.arg, frame.payload.toString('latin1')]),
      [
        [types.CALL, 1, 10, 'GET\0/\0id\0' + '0x'],
        [types.PING, 0, 5, ''],
      ],
    );
  });

  test('a truncated frame gives nothing and no error', () => {
    fc.assert(
      fc.property(anyFrame, fc.nat(), (frame, cut) => {
        const bytes = encode(frame);
        assert.deepEqual(decode([bytes.subarray(0, cut % bytes.length)]), []);
      }),
    );
  });

  test('random bytes give frames or LINK_PROTOCOL_BROKEN, and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), anyCuts, (bytes, cuts) => {
        try {
          decode(split(Buffer.from(bytes), cuts));
        } catch (error) {
          assertBroken(error);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('a valid stream with one byte changed gives frames or LINK_PROTOCOL_BROKEN', () => {
    const frames = fc.array(anyFrame, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(frames, fc.nat(), fc.integer({ min: 1, max: 255 }), (all, at, change) => {
        const bytes = Buffer.concat(all.map(frame => encode(frame)));
        bytes[at % bytes.length]! ^= change;
        try {
          decode([bytes]);
        } catch (error) {
          assertBroken(error);
        }
      }),
    );
  });

  for (const [what, bytes] of [
    ['type 0', encode({ type: 0 })],
    ['type 14', encode({ type: 14 })],
    ['type 255', encode({ type: 255 })],
    ['one byte too many', encode({ type: types.DATA, payload: Buffer.alloc(65_537) })],
    ['a length of 4 GiB', Buffer.from('ffffffff070000000000000000000000', 'hex')],
    ['a CALL head past its end', encode({ type: types.CALL, arg: 3, payload: 'ab' })],
    ['a REPLY head past its end', encode({ type: types.REPLY, arg: 3, payload: 'ab' })],
  ] as const) {
    test(`${what} breaks the protocol as soon as the header is there`, () => {
      const good = encode({ type: types.DATA, stream: 1, payload: 'before' });
      const seen: number[] = [];
      const decoder = new FrameDecoder(type => seen.push(type));
      decoder.push(good);
      assert.throws(
        () => decoder.push(bytes),
        error => {
          assertBroken(error);
          return true;
        },
      );
      assert.deepEqual(seen, [types.DATA], 'the good frame before it, and not the bad one');
    });
  }

  test('a payload of exactly the limit passes', () => {
    const [frame] = decode([encode({ type: types.DATA, payload: Buffer.alloc(payloadBytesMax) })]);
    assert.equal(frame!.payload.length, payloadBytesMax);
  });
});

async function socketPair(): Promise<{ near: Socket; far: Socket; close(): void }> {
  const directory = mkdtempSync(join(tmpdir(), 'fnway-frames-'));
  const path = join(directory, 's');
  const server = createServer();
  server.listen(path);
  await once(server, 'listening');
  const near = createConnection(path);
  const [[far]] = (await Promise.all([once(server, 'connection'), once(near, 'connect')])) as [
    [Socket],
    unknown,
  ];
  return {
    near,
    far,
    close() {
      near.destroy();
      far.destroy();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

describe('the outbox', { timeout: 30_000 }, () => {
  const anyPost = fc.record({
    type: fc.constantFrom(types.CALL, types.DATA, types.CREDIT),
    stream: fc.integer({ min: 1, max: 9 }),
    head: fc.string({ unit: fc.integer({ min: 1, max: 255 }).map(c => String.fromCharCode(c)) }),
    bytes: fc.oneof(
      { weight: 3, arbitrary: fc.integer({ min: 0, max: 300 }) },
      { weight: 1, arbitrary: fc.integer({ min: 8190, max: 8194 }) },
      { weight: 1, arbitrary: fc.integer({ min: 60_000, max: 65_000 }) },
    ),
    turn: fc.boolean(),
    prompt: fc.boolean(),
  });

  test('what is posted arrives whole and in order, with and without waiting between', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyPost, { minLength: 1, maxLength: 25 }), async posts => {
        const { near, far, close } = await socketPair();
        try {
          const peer = new Peer(far);
          const outbox = new Outbox(near);
          const expected: RawFrame[] = [];
          for (const [n, { type, stream, head, bytes, turn, prompt }] of posts.entries()) {
            outbox.prompt = prompt;
            const body = Buffer.alloc(bytes, n + 1);
            if (type === types.CALL) outbox.head(type as FrameType, 1, stream, head, body);
            else outbox.frame(type as FrameType, 0, stream, n, body);
            const isCall = type === types.CALL;
            const payload = isCall ? Buffer.concat([Buffer.from(head, 'latin1'), body]) : body;
            const arg = isCall ? head.length : n;
            expected.push({ type, flags: isCall ? 1 : 0, stream, arg, payload });
            if (turn) await new Promise(resolve => setImmediate(resolve));
          }
          outbox.flush();
          near.end();
          await peer.closed.catch(() => {});
          assert.deepEqual(peer.frames, expected);
        } finally {
          close();
        }
      }),
      { numRuns: 40 },
    );
  });

  test('bytes that the kernel has not taken yet are not written over', async () => {
    const { near, far, close } = await socketPair();
    const outbox = new Outbox(near);
    const count = 4000;
    for (let n = 0; n < count; n++) {
      outbox.frame(types.DATA as FrameType, 0, n + 1, n, Buffer.alloc(1000, n & 255));
      if (n % 7 === 0) outbox.flush();
    }
    outbox.flush();
    assert.equal(outbox.drained, false, 'the far end has not read anything');
    const peer = new Peer(far);
    near.end();
    await peer.closed;
    assert.equal(peer.frames.length, count);
    for (const [n, frame] of peer.frames.entries()) {
      assert.equal(frame.arg, n);
      assert.ok(frame.payload.equals(Buffer.alloc(1000, n & 255)));
    }
    close();
  });
});
