/**
 * Goal: bodies are kept only whole, and what is copied meanwhile is bounded over all calls and given back however a call
 * ends. Method: a scripted Invoke below the step, streams that the test pushes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushedBody } from '../../body.ts';
import { recordLimits } from '../../domain/record.ts';
import { mockCall, mockVersion } from '../../driver/mock.ts';
import type { RecordedBodies } from '../../store/records.ts';
import {
  CallSignal,
  emptyBody,
  failedReply,
  type Invoke,
  isStream,
  type Reply,
  type Version,
} from '../invoke.ts';
import { bodies } from './bodies.ts';

const { recordedBodyBytesMax, copiedBodiesBytesMax } = recordLimits;
const plain = mockVersion();
const version: Version = { ...plain, settings: { ...plain.settings, record: 'bodies' } };
const newStream = () => new PushedBody({ onRead() {}, onCancel() {} });
const full = Buffer.alloc(recordedBodyBytesMax);

function step() {
  const kept: RecordedBodies[] = [];
  const seen = { dropped: 0 };
  const middleware = bodies({
    keep: one => void kept.push(one),
    onDrop: () => {
      seen.dropped++;
    },
  });
  /** A call with this input, answered as `answer` says. */
  const run = (input: Uint8Array | PushedBody, answer: Invoke) =>
    middleware(answer)(Object.assign(mockCall(version), { body: input }), new CallSignal());
  return { kept, seen, run };
}

const answering = (body: Reply['body']): Invoke => {
  return async () => ({ status: 200, headers: [], body });
};

async function readAll(reply: Reply): Promise<void> {
  assert.ok(isStream(reply.body));
  for await (const _ of reply.body);
}

test('a streamed answer is kept with its last chunk', async () => {
  const { kept, run } = step();
  const output = newStream();
  output.push(Buffer.from('one '));
  const reply = await run(Buffer.from('in'), answering(output));
  output.push(Buffer.from('two'));
  output.end();
  await readAll(reply);
  assert.deepEqual(
    kept.map(({ input, output }) => [input.toString(), output.toString()]),
    [['in', 'one two']],
  );
});

test('what is copied is given back however a call ends, and bounded until then', async () => {
  const { kept, seen, run } = step();
  const broken = async () => {
    const output = newStream();
    const reply = await run(full, answering(output));
    output.push(Buffer.alloc(1000));
    output.fail(new Error('it broke'));
    await assert.rejects(readAll(reply), /it broke/);
  };
  const unread = async () => {
    const output = newStream();
    await run(full, answering(output));
    output.cancel(new Error('the client left'));
  };
  const left = async () => {
    const output = newStream();
    const reply = await run(full, answering(output));
    output.push(Buffer.alloc(1000));
    assert.ok(isStream(reply.body));
    for await (const _ of reply.body) break;
  };
  const refused = () =>
    assert.rejects(
      run(full, () => Promise.reject(new Error('no'))),
      /no/,
    );
  const failed = () =>
    run(full, async () => failedReply({ reason: 'threw', message: 'it threw' })).then(() => {});
  const inputUnread = async () => {
    const input = newStream();
    input.push(full.subarray(0, 1000));
    await run(input, answering(emptyBody));
    input.end();
  };
  const empty = async () => {
    const output = newStream();
    const reply = await run(full, answering(output));
    output.end();
    // As the readers do with an answer that has no body.
    if (isStream(reply.body)) reply.body.cancel(new Error('it has no body'));
  };
  for (const end of [broken, unread, left, refused, failed, inputUnread, empty])
    for (let i = 0; i < 20; i++) await end();
  assert.equal(seen.dropped, 0);
  assert.equal(kept.length, 40, 'those that failed or were refused, with no output');

  const waiting: PushedBody[] = [];
  for (let bytes = 0; bytes < copiedBodiesBytesMax; bytes += full.length) {
    const output = newStream();
    waiting.push(output);
    await run(full, answering(output));
  }
  kept.length = 0;
  await run(Buffer.from('more'), answering(emptyBody));
  assert.deepEqual([kept.length, seen.dropped], [0, 1]);
  for (const output of waiting) output.cancel(new Error('the client left'));
  await run(Buffer.from('more'), answering(emptyBody));
  assert.deepEqual([kept.length, seen.dropped], [1, 1]);
});
