/** Goal: what is no message, topic or subscription is refused with its place, and leaves nothing. Method: over HTTP. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/test-gateway.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const topics = client.resources('topics');
const subscriptions = client.resources('subscriptions');
await gateway.put('echo', javascript('export default () => new Response();'));

const text = (value: string) => Buffer.from(value).toString('base64');

describe('what cannot be is refused', () => {
  for (const [messages, detail] of [
    [[{}], /messages\.0: it has neither data nor attributes/],
    [[{ data: '***' }], /messages\.0\.data: not base64/],
    [[], /messages: no message/],
    [[{ attributes: { 'content-type': 'a\0b' } }], /"content-type" becomes a header/],
    [[{ attributes: { 'content-type': 'a\r\nX-Evil: 1' } }], /"content-type" becomes a header/],
    [[{ attributes: { 'content-type': '中' } }], /"content-type" becomes a header/],
    [[{ attributes: { 'ce-a b': '1' } }], /"ce-a b" becomes a header/],
    [[{ attributes: { a: '\ud800' } }], /half of a pair/],
    [[{ data: text('a'), orderingKey: '\ud800x' }], /half of a pair/],
    [[{ data: text('a'), attributes: { a: 1 } }], /messages\.0\.attributes\.a: /],
    [[{ data: text('a'), attributes: { a: 'x'.repeat(1025) } }], /attributes\.a: /],
    [[{ data: text('a'), orderingKey: 'x'.repeat(1025) }], /orderingKey: /],
    [[{ data: Buffer.alloc(10 * 1024 ** 2 + 1).toString('base64') }], /more than 10485760 bytes/],
    [Array.from({ length: 1001 }, () => ({ data: 'AA==' })), /more than 1000 messages/],
    [[{ dat: 'AA==' }], /dat: unknown key; did you mean data/],
  ] as Array<[unknown[], RegExp]>)
    test(`messages ${JSON.stringify(messages).slice(0, 50)}`, async () => {
      await topics.put('refusing', {});
      await assert.rejects(client.publish('refusing', messages as never), (error: Error) => {
        assert.equal((error as Error & { code: string }).code, 'MESSAGE_INVALID');
        assert.match(error.message, detail);
        return true;
      });
    });

  test('a topic that is not there, a body that is none, and a type that is unknown', async () => {
    await assert.rejects(client.publish('nowhere', [{ data: 'AA==' }]), {
      code: 'RESOURCE_NOT_FOUND',
    });
    await topics.put('refusing', {});
    const send = (headers: Record<string, string>, body: string) =>
      gateway.control('/v1/namespaces/default/topics/refusing/publish', {
        method: 'POST',
        headers,
        body,
      });
    assert.equal((await send({ 'content-type': 'application/json' }, '{')).status, 400);
    assert.equal((await send({ 'content-type': 'text/html' }, 'x')).status, 415);
  });

  for (const [definition, detail] of [
    [{ topic: 'nowhere', function: 'echo' }, /topic: there is no topic nowhere/],
    [{ topic: 'refusing', function: 'nobody' }, /function: there is no function nobody/],
    [
      { topic: 'refusing', function: 'echo', deadLetter: 'nowhere' },
      /deadLetter: there is no topic nowhere/,
    ],
    [
      { topic: 'refusing', function: 'echo', deadLetter: 'refusing' },
      /deadLetter: what is dead would come back/,
    ],
    [{ topic: 'refusing' }, /function: say one of function, push and pull/],
    [{ topic: 'refusing', function: 'echo', pull: true }, /pull: say one of/],
    [{ topic: 'refusing', push: { url: 'ftp://x/' } }, /push\.url: not an http address/],
    [{ topic: 'refusing', function: 'echo', retry: { attempts: 101 } }, /retry\.attempts/],
    [{ topic: 'refusing', pull: true, ackDeadline: '11m' }, /ackDeadline: from 1s to 10m/],
    [
      { topic: 'refusing', function: 'echo', ackDeadline: '10s' },
      /ackDeadline: it is for push and pull/,
    ],
    [{ topic: 'refusing', pull: true, filter: { a: { near: 'b' } } }, /filter\.a/],
    [{ topic: 'refusing', pull: true, filter: { a: { exists: 'yes' } } }, /filter\.a/],
  ] as Array<[object, RegExp]>)
    test(`subscription ${JSON.stringify(definition)}`, async () => {
      await topics.put('refusing', {});
      await assert.rejects(subscriptions.put('refused', definition), (error: Error) => {
        assert.equal((error as Error & { code: string }).code, 'DEFINITION_INVALID');
        assert.match(error.message, detail);
        return true;
      });
    });

  test('a pause of a topic, which does nothing by itself', async () => {
    await topics.put('unpaused', {});
    await assert.rejects(topics.pause('unpaused'), {
      code: 'DEFINITION_INVALID',
      message: /a topic does nothing by itself; pause its subscriptions/,
    });
  });

  test('a retention that is none, and a dead-letter topic that leads back', async () => {
    await assert.rejects(topics.put('refused', { retention: '32d' }), /retention: from 1s to 31d/);
    for (const name of ['loop-a', 'loop-b', 'loop-c']) await topics.put(name, {});
    const put = (topic: string, deadLetter: string) =>
      subscriptions.put(`${topic}-sub`, { topic, pull: true, deadLetter });
    await put('loop-a', 'loop-b');
    await put('loop-b', 'loop-c');
    await assert.rejects(put('loop-c', 'loop-a'), /loop-c → loop-a → loop-b → loop-c/);
    await assert.rejects(topics.remove('loop-b'), { code: 'RESOURCE_IN_USE' });
  });

  test('a publication when as many wait as may: nothing of it is there', async () => {
    await topics.put('full', {});
    await subscriptions.put('full-a', { topic: 'full', pull: true });
    await subscriptions.put('full-b', { topic: 'full', pull: true, waiting: 1 });
    await client.publish('full', [{ data: 'AA==' }]);
    await assert.rejects(client.publish('full', [{ data: 'AA==' }]), {
      code: 'QUEUE_FULL',
      status: 429,
    });
    const { receivedMessages } = await client.pull('full-a', { maxMessages: 10 });
    assert.equal(receivedMessages.length, 1);
  });
});
