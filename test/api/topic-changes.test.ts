/**
 * Goal: whatever is changed of a subscription while messages are on their way, what was answered is delivered, and goes where
 * the subscription says. Method: publications that take long, since their messages are written to files, and changes meanwhile.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const topics = client.resources('topics');
const subscriptions = client.resources('subscriptions');
const large = Buffer.alloc(1_000_000, 'a').toString('base64');

const countOf = async (name: string): Promise<number> => {
  const response = await gateway.call(`/function/${name}`);
  return Number(await response.text());
};
const counter = javascript(
  `let count = 0; export default async request => {
    if (request.method === 'GET') return new Response(String(count));
    count++; return new Response(); };`,
  { instances: { max: 1 } },
);

test('a seek loses nothing that is published meanwhile', async () => {
  await topics.put('sought', { retention: '1h' });
  await subscriptions.put('sought', { topic: 'sought', pull: true });
  const old = Array.from({ length: 60 }, () => ({ data: large.slice(0, 100_000) }));
  const ids = new Set<string>((await client.publish('sought', old)).messageIds);
  for (let round = 0; round < 4; round++) {
    const publishing = Array.from({ length: 3 }, () =>
      client.publish('sought', [{ data: large }, { data: large }]),
    );
    const seeking = client.seek('sought', '1h');
    for (const { messageIds } of await Promise.all(publishing))
      for (const id of messageIds) ids.add(id);
    await seeking;
  }
  const seen = new Set<string>();
  while (seen.size < ids.size) {
    const { receivedMessages } = await client.pull('sought', { maxMessages: 50, wait: '1s' });
    assert.ok(receivedMessages.length > 0, `${ids.size - seen.size} of ${ids.size} are missing`);
    for (const { message } of receivedMessages) seen.add(message.messageId);
    await client.ack(
      'sought',
      receivedMessages.map(({ ackId }) => ackId),
    );
  }
});

test('a pause holds for what is on its way, and so does a resume', async () => {
  await gateway.put('paused', counter);
  await topics.put('paused', {});
  await subscriptions.put('paused', { topic: 'paused', function: 'paused' });
  for (let round = 1; round <= 4; round++) {
    const publishing = client.publish('paused', [
      { data: large },
      { data: large },
      { data: large },
    ]);
    await subscriptions.pause('paused');
    await publishing;
    const before = await countOf('paused');
    // What was delivered before the pause was; from here on nothing is.
    await client.publish('paused', [{ data: 'AA==' }]);
    assert.ok((await countOf('paused')) <= before + 3);
    const view = await subscriptions.get('paused');
    assert.equal(view.paused, true);
    const again = client.publish('paused', [{ data: large }]);
    await subscriptions.resume('paused');
    await again;
    await waitFor(async () => (await countOf('paused')) === 5 * round, {
      what: `${5 * round} calls`,
      timeoutMs: 20_000,
    });
  }
});

test('what is published while a subscription is removed leaves nothing behind', async () => {
  await topics.put('removed', {});
  for (let round = 0; round < 5; round++) {
    await subscriptions.put('removed', { topic: 'removed', pull: true });
    const publishing = client.publish('removed', [{ data: large }, { data: large }]);
    await subscriptions.remove('removed');
    await publishing;
  }
  await subscriptions.put('removed', { topic: 'removed', pull: true });
  await client.publish('removed', [{ data: 'AA==' }]);
  const { receivedMessages } = await client.pull('removed', { maxMessages: 10 });
  assert.equal(receivedMessages.length, 1);
});

test('a change of who gets the messages keeps those that were pulled and not acknowledged', async () => {
  await gateway.put('moved', counter);
  await topics.put('moved', {});
  const retry = { attempts: 10, minDelay: '10ms', maxDelay: '10ms' };
  await subscriptions.put('moved', { topic: 'moved', pull: true, retry, ackDeadline: '1s' });
  await client.publish('moved', [{ data: 'AA==' }]);
  for (let i = 0; i < 3; i++) {
    const { receivedMessages } = await client.pull('moved', { wait: '20s' });
    assert.equal(receivedMessages.length, 1);
  }
  await subscriptions.put('moved', { topic: 'moved', function: 'moved', retry });
  await waitFor(async () => (await countOf('moved')) === 1, {
    what: 'the call',
    timeoutMs: 20_000,
  });
});
