/** Goal: a pushed body is read once, in order, and closes once, whoever ends it. Method: each end by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PushedBody } from './body.ts';

function made() {
  const events: string[] = [];
  const body = new PushedBody({
    onRead: bytes => events.push(`read ${bytes}`),
    onCancel: reason => events.push(`cancel ${reason.message}`),
  });
  body.onClose(() => events.push('close'));
  return { body, events };
}

async function text(body: PushedBody): Promise<string> {
  let all = '';
  for await (const chunk of body) all += Buffer.from(chunk).toString();
  return all;
}

test('pieces come in order, pushed before or while it is read', async () => {
  const { body, events } = made();
  body.push(Buffer.from('a'));
  const whole = text(body);
  await Promise.resolve();
  body.push(Buffer.from('bc'));
  body.push(new Uint8Array(0));
  await new Promise(resolve => setImmediate(resolve));
  body.end();
  assert.equal(await whole, 'abc');
  assert.deepEqual(events, ['read 1', 'read 2', 'close']);
});

test('one that ends unread closes when its last piece is taken', async () => {
  const { body, events } = made();
  body.push(Buffer.from('a'));
  body.end();
  assert.deepEqual(events, []);
  assert.equal(await text(body), 'a');
  assert.deepEqual(events, ['close', 'read 1']);
});

test('small pieces that wait become few, whatever their sizes, and no byte is lost', async () => {
  const sizes = fc.array(
    fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ max: 20_000, min: 1 })),
  );
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(30), async (lengths, readFirst) => {
      const { body } = made();
      const sent: Buffer[] = [];
      const reader = body[Symbol.asyncIterator]();
      const got: Uint8Array[] = [];
      for (const [i, length] of lengths.entries()) {
        const piece = Buffer.alloc(length, i);
        sent.push(piece);
        body.push(piece);
        // Somebody who reads meanwhile keeps what he has got.
        if (i === readFirst) got.push((await reader.next()).value as Uint8Array);
      }
      body.end();
      for await (const piece of { [Symbol.asyncIterator]: () => reader }) got.push(piece);
      assert.deepEqual(Buffer.concat(got), Buffer.concat(sent));
      const bytes = lengths.reduce((sum, length) => sum + length, 0);
      assert.ok(got.length <= 3 + bytes / 4096, `${got.length} pieces of ${bytes} bytes`);
    }),
  );
});

test('a failure reaches a waiting reader and closes at once, pieces unread or not', async () => {
  const { body, events } = made();
  const whole = text(body);
  await Promise.resolve();
  body.fail(new Error('broken'));
  await assert.rejects(whole, /broken/);
  body.push(Buffer.from('late'));
  body.end();
  body.fail(new Error('again'));
  assert.deepEqual(events, ['close']);
});

test('a cancel tells the producer once, and not after the end', async () => {
  const open = made();
  open.body.cancel(new Error('enough'));
  open.body.cancel(new Error('again'));
  assert.deepEqual(open.events, ['close', 'cancel enough']);
  const ended = made();
  ended.body.push(Buffer.from('x'));
  ended.body.end();
  ended.body.cancel(new Error('enough'));
  assert.deepEqual(ended.events, ['close']);
  await assert.rejects(text(ended.body), /enough/);
});

test('a reader that leaves cancels', async () => {
  const { body, events } = made();
  body.push(Buffer.from('a'));
  for await (const _ of body) break;
  assert.deepEqual(events, ['read 1', 'close', 'cancel the reader left before the end']);
});

test('whoever asks for the close after it is told at once', () => {
  const { body } = made();
  body.end();
  let told = 0;
  body.onClose(() => told++);
  assert.equal(told, 1);
});
