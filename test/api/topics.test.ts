/**
 * Goal: a message reaches every subscription that wants it, in order by key, again where it failed, and is dead where it must;
 * functions of every style get the shapes that they know. Method: a real gateway, real functions and a real server over HTTP.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({
  shared: true,
  env: { FNWAY_ALLOW_PRIVATE_CALLBACKS: 'true' },
});
const { client } = gateway;
const topics = client.resources('topics');
const subscriptions = client.resources('subscriptions');

interface Pushed {
  url: string;
  headers: IncomingMessage['headers'];
  body: Buffer;
}
/** What was pushed or posted here, by path; `answers` says what a path answers next. */
const pushed: Pushed[] = [];
const answers = new Map<string, number[]>();
const server = createServer(async (request, response) => {
  const body = Buffer.concat(await Array.fromAsync(request));
  const { url = '/', headers } = request;
  pushed.push({ url, headers, body });
  response.writeHead(answers.get(url)?.shift() ?? 204).end();
});
await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
const target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
after(() => {
  server.closeAllConnections();
  server.close();
});

const at = (path: string) => pushed.filter(({ url }) => url === path);
async function reached(path: string, count: number): Promise<Pushed[]> {
  await waitFor(() => at(path).length >= count, { what: `${count} at ${path}`, timeoutMs: 15_000 });
  return at(path);
}

/** Posts what it was called with to the server, and fails as often as it is asked to. */
const echo = `const failures = new Map();
export default async request => {
  const body = await request.text();
  await fetch('${target}' + new URL(request.url).pathname.replace(/^\\/$/, '/echo'), { method: 'POST', body, headers: {
    'x-seen': JSON.stringify(Object.fromEntries(request.headers)) } });
  if (request.headers.get('x-fnway-subscription')?.startsWith('failing')) throw new TypeError('not today');
  return new Response('ok');
};`;
await gateway.put('echo', javascript(echo));

const text = (value: string) => Buffer.from(value).toString('base64');
const quick = { attempts: 3, minDelay: '10ms', maxDelay: '20ms' };

describe('a topic', () => {
  test('delivers to functions as Pub/Sub pushes, and each subscription on its own', async () => {
    await topics.put('orders', {});
    await subscriptions.put('orders-echo', { topic: 'orders', function: 'echo' });
    await subscriptions
      .put('orders-push', {
        ...{ topic: 'orders', push: { url: `${target}/orders-push` }, deadLetter: 'orders-dead' },
      })
      .catch(() => {});
    await topics.put('orders-dead', {});
    await subscriptions.put('orders-push', {
      ...{ topic: 'orders', push: { url: `${target}/orders-push` }, deadLetter: 'orders-dead' },
    });
    const { messageIds } = await client.publish('orders', [
      { data: text('ünï'), attributes: { kind: 'new' }, orderingKey: 'k' },
    ]);
    assert.match(messageIds[0]!, /^msg_/);
    const [called] = await reached('/echo', 1);
    const body = JSON.parse(String(called!.body));
    const { publishTime } = body.message;
    assert.ok(Math.abs(Date.parse(publishTime) - Date.now()) < 60_000);
    assert.deepEqual(body, {
      message: {
        ...{ data: text('ünï'), attributes: { kind: 'new' }, orderingKey: 'k' },
        ...{ messageId: messageIds[0], message_id: messageIds[0] },
        ...{ publishTime, publish_time: publishTime },
      },
      subscription: 'projects/default/subscriptions/orders-echo',
    });
    const seen = JSON.parse(String(called!.headers['x-seen']));
    assert.equal(seen['x-fnway-topic'], 'orders');
    assert.equal(seen['x-fnway-message-id'], messageIds[0]);
    const [push] = await reached('/orders-push', 1);
    // Only where there is a dead-letter topic is it told which delivery this is.
    assert.equal(JSON.parse(String(push!.body)).deliveryAttempt, 1);
    const { signingKey } = await client.getSigningKey('orders-push');
    const [, seconds, v1] = /^t=(\d+),v1=(\w+)$/.exec(String(push!.headers['x-fnway-signature']))!;
    const expected = createHmac('sha256', signingKey).update(`${seconds}.`).update(push!.body);
    assert.equal(v1, expected.digest('hex'));
  });

  test('delivers what the filter wants, and nothing else', async () => {
    await topics.put('filtered', {});
    const wanted: Record<string, object> = {
      exact: { kind: 'new' },
      'one-of': { kind: ['new', 'old'] },
      prefix: { kind: { prefix: 'ne' } },
      not: { kind: { not: 'new' } },
      absent: { kind: { exists: false } },
      both: { kind: 'new', size: { exists: true } },
    };
    for (const [name, filter] of Object.entries(wanted))
      await subscriptions.put(`filter-${name}`, { topic: 'filtered', pull: true, filter });
    const kinds: Array<Record<string, string>> = [
      { kind: 'new' },
      { kind: 'old' },
      { kind: 'new', size: '1' },
      { other: 'x' },
    ];
    await client.publish(
      'filtered',
      kinds.map(attributes => ({ attributes })),
    );
    const found: Record<string, string[]> = {};
    for (const name of Object.keys(wanted)) {
      const { receivedMessages } = await client.pull(`filter-${name}`, { maxMessages: 10 });
      found[name] = receivedMessages
        .map(({ message }) => JSON.stringify(message.attributes))
        .sort();
    }
    const [one, two, three, four] = kinds.map(kind => JSON.stringify(kind));
    assert.deepEqual(found, {
      exact: [one, three].sort(),
      'one-of': [one, two, three].sort(),
      prefix: [one, three].sort(),
      not: [two, four].sort(),
      absent: [four],
      both: [three],
    });
  });

  test('tries again what failed, and keeps the order of a key meanwhile', async () => {
    await topics.put('ordered', {});
    await subscriptions.put('ordered-push', {
      ...{ topic: 'ordered', push: { url: `${target}/ordered` }, payload: 'raw', retry: quick },
    });
    answers.set('/ordered', [500, 302]);
    await client.publish('ordered', [
      ...['a1', 'a2'].map(data => ({ data: text(data), orderingKey: 'a' })),
      ...['b1', 'b2', 'b3'].map(data => ({ data: text(data), orderingKey: 'b' })),
    ]);
    const all = await reached('/ordered', 7);
    const bodies = all.map(({ body }) => String(body));
    for (const [key, expected] of [
      ['a', ['a1', 'a2']],
      ['b', ['b1', 'b2', 'b3']],
    ] as const) {
      const taken = bodies.filter(
        (body, i) => body.startsWith(key) && bodies.indexOf(body, i + 1) === -1,
      );
      assert.deepEqual(taken, expected, bodies.join());
    }
    assert.equal(all[0]!.headers['content-type'], 'application/octet-stream');
    assert.equal(all[0]!.headers['x-fnway-ordering-key'], 'a');
  });

  test('puts a copy of what is dead into the dead-letter topic, and says where it is from', async () => {
    await topics.put('failing', {});
    await topics.put('failed', {});
    await subscriptions.put('failing-echo', {
      ...{ topic: 'failing', function: 'echo', retry: quick, deadLetter: 'failed' },
    });
    await subscriptions.put('failed-pull', { topic: 'failed', pull: true });
    const { messageIds } = await client.publish('failing', [
      { data: text('poison'), attributes: { a: 'b' } },
    ]);
    const { receivedMessages } = await client.pull('failed-pull', { wait: '20s' });
    const { message } = receivedMessages[0]!;
    assert.notEqual(message.messageId, messageIds[0]);
    assert.equal(message.data, text('poison'));
    const { CloudPubSubDeadLetterSourceTopicPublishTime: publishedAt, ...attributes } =
      message.attributes;
    assert.ok(Date.parse(publishedAt!) <= Date.parse(message.publishTime));
    assert.deepEqual(attributes, {
      a: 'b',
      CloudPubSubDeadLetterSourceDeliveryCount: '3',
      CloudPubSubDeadLetterSourceSubscription: 'failing-echo',
      CloudPubSubDeadLetterSourceSubscriptionProject: 'default',
    });
    const { items } = await client.listDeadCauses();
    const group = items.find(({ subscription }) => subscription === 'failing-echo')!;
    assert.deepEqual([group.kind, group.cause, group.count], ['delivery', 'threw TypeError', 1]);
    const [letter] = (await client.listDeadLetters({ subscription: 'failing-echo' })).items;
    assert.equal(letter!.attempts.length, 3);
    assert.match(letter!.attempts[0]!.failure!.message, /not today/);
    const shown = await client.getDeadLetter(letter!.id);
    assert.deepEqual(
      [shown.message?.data, shown.message?.messageId],
      [text('poison'), messageIds[0]],
    );
    const view = await client.getInvocation(letter!.id);
    assert.deepEqual(
      [view.state, view.origin, view.trigger, view.function],
      ['dead', 'subscription', 'failing-echo', 'echo'],
    );
  });

  test('with a terminal error a message is dead at once', async () => {
    await gateway.put(
      'terminal',
      javascript(
        `export default () => { const e = new Error('never'); e.name = 'TerminalError'; throw e; }`,
      ),
    );
    await topics.put('terminal', {});
    await subscriptions.put('terminal-call', { topic: 'terminal', function: 'terminal' });
    await client.publish('terminal', [{ data: text('x') }]);
    const letter = await waitFor(
      async () => (await client.listDeadLetters({ subscription: 'terminal-call' })).items[0],
      { what: 'a dead letter' },
    );
    assert.equal((letter as { attempts: unknown[] }).attempts.length, 1);
  });

  test('keeps messages for its subscriptions to go back to', async () => {
    await topics.put('kept', { retention: '1h' });
    await subscriptions.put('kept-pull', {
      topic: 'kept',
      pull: true,
      filter: { n: { not: '2' } },
    });
    for (const n of ['1', '2', '3']) await client.publish('kept', [{ attributes: { n } }]);
    const take = async () => {
      const { receivedMessages } = await client.pull('kept-pull', { maxMessages: 10 });
      if (receivedMessages.length > 0)
        await client.ack(
          'kept-pull',
          receivedMessages.map(({ ackId }) => ackId),
        );
      return receivedMessages.map(({ message }) => message);
    };
    const first = await take();
    assert.deepEqual(
      first.map(({ attributes }) => attributes.n),
      ['1', '3'],
    );
    assert.deepEqual(await take(), []);
    assert.deepEqual(await client.seek('kept-pull', '1h'), { dropped: 0, added: 2 });
    assert.deepEqual(
      (await take()).map(({ messageId }) => messageId),
      first.map(({ messageId }) => messageId),
    );
    await client.publish('kept', [{ attributes: { n: '4' } }]);
    const later = new Date(Date.now() + 1000).toISOString();
    assert.deepEqual(await client.seek('kept-pull', later), { dropped: 1, added: 0 });
    assert.deepEqual(await take(), []);
    assert.deepEqual(await client.seek('kept-pull', first[1]!.publishTime), {
      dropped: 0,
      added: 2,
    });
    assert.deepEqual(
      (await take()).map(({ attributes }) => attributes.n),
      ['3', '4'],
    );
  });

  test('gives what was published at once again in its order', async () => {
    await topics.put('ordered', { retention: '1h' });
    await subscriptions.put('ordered-pull', { topic: 'ordered', pull: true });
    const numbers = Array.from({ length: 20 }, (_, n) => String(n));
    await client.publish(
      'ordered',
      numbers.map(n => ({ attributes: { n } })),
    );
    assert.deepEqual(await client.seek('ordered-pull', '1h'), { dropped: 20, added: 20 });
    const { receivedMessages } = await client.pull('ordered-pull', { maxMessages: 20 });
    assert.deepEqual(
      receivedMessages.map(({ message }) => message.attributes.n),
      numbers,
    );
  });

  test('is followed as it is published', async () => {
    await topics.put('followed', {});
    const abort = new AbortController();
    const seen: string[] = [];
    const following = (async () => {
      for await (const { data } of client.tail('followed', { signal: abort.signal }))
        seen.push(data);
    })().catch(() => {});
    await waitFor(
      async () => {
        await client.publish('followed', [{ data: text('again') }]);
        return seen.length > 0;
      },
      { what: 'a message' },
    );
    abort.abort();
    await following;
    assert.equal(seen[0], text('again'));
  });

  test('fans one message out to a thousand subscriptions', async () => {
    await topics.put('wide', {});
    for (let i = 0; i < 1000; i++)
      await subscriptions.put(`wide-${i}`, { topic: 'wide', pull: true });
    await client.publish('wide', [{ data: text('once') }]);
    for (const i of [0, 1, 500, 999]) {
      const { receivedMessages } = await client.pull(`wide-${i}`, { maxMessages: 10 });
      assert.equal(receivedMessages.length, 1);
    }
  });
});

describe('functions of each style', () => {
  const shapes = new Map<string, unknown>();
  const deploy = async (name: string, code: string, more = {}) => {
    await gateway.put(name, {
      runtime: 'node',
      source: { files: { 'index.js': code } },
      ...more,
    });
    await subscriptions.put(`styled-${name}`, { topic: 'styled', function: name });
  };
  const post = (name: string, value: string) =>
    `fetch('${target}/style-${name}', { method: 'POST', body: JSON.stringify(${value}) })`;

  test('background and CloudEvent functions get the events that they know', {
    timeout: 120_000,
  }, async () => {
    await topics.put('styled', {});
    await deploy(
      'event',
      `exports.function = async (data, context) => { await ${post('event', '{ data, context }')}; };`,
      {
        signature: 'event',
      },
    );
    await deploy(
      'cloud',
      `exports.function = async event => { await ${post('cloud', 'event')}; };`,
      {
        signature: 'cloudevent',
      },
    );
    const { messageIds } = await client.publish('styled', [{ attributes: { only: 'attributes' } }]);
    for (const name of ['event', 'cloud'])
      shapes.set(name, JSON.parse(String((await reached(`/style-${name}`, 1))[0]!.body)));
    const { data, context } = shapes.get('event') as Record<string, Record<string, unknown>>;
    assert.deepEqual(data!.attributes, { only: 'attributes' });
    assert.deepEqual(
      [context!.eventId, context!.eventType],
      [messageIds[0], 'google.pubsub.topic.publish'],
    );
    assert.equal((context!.resource as { name: string }).name, 'projects/default/topics/styled');
    const event = shapes.get('cloud') as Record<string, unknown>;
    assert.equal(event.id, messageIds[0]);
    assert.equal(event.type, 'google.cloud.pubsub.topic.v1.messagePublished');
    assert.equal(event.source, '//pubsub.googleapis.com/projects/default/topics/styled');
  });
});

describe('CloudEvents', () => {
  const publish = (headers: Record<string, string>, body: string) =>
    gateway.control('/v1/namespaces/default/topics/events:publish', {
      method: 'POST',
      headers,
      body,
    });
  const event = { specversion: '1.0', id: 'e1', source: '/s', type: 'order.created' };

  test('come in binary, structured and batched mode, and arrive in binary mode', async () => {
    await topics.put('events', {});
    await subscriptions.put('events-push', { topic: 'events', push: { url: `${target}/events` } });
    const responses = [
      await publish(
        {
          ...{
            'ce-specversion': '1.0',
            'ce-id': 'e0',
            'ce-source': '/s',
            'ce-type': 'order.created',
          },
          ...{ 'ce-subject': 'caf%C3%A9', 'content-type': 'text/plain' },
        },
        'binary ü',
      ),
      await publish(
        { 'content-type': 'application/cloudevents+json; charset=utf-8' },
        JSON.stringify({ ...event, data: { n: 1 }, subject: 'café' }),
      ),
      await publish(
        { 'content-type': 'application/cloudevents-batch+json' },
        JSON.stringify([
          { ...event, id: 'e2', datacontenttype: 'text/plain', data: 'as text' },
          { ...event, id: 'e3', data_base64: text('bytes') },
        ]),
      ),
    ];
    for (const response of responses) assert.equal(response.status, 200, await response.text());
    const found = (await reached('/events', 4)).map(({ headers, body }) => ({
      id: headers['ce-id'],
      type: headers['content-type'],
      subject: headers['ce-subject'],
      body: String(body),
    }));
    assert.deepEqual(
      found.sort((a, b) => (a.id! < b.id! ? -1 : 1)),
      [
        { id: 'e0', type: 'text/plain', subject: 'caf%C3%A9', body: 'binary ü' },
        { id: 'e1', type: 'application/json', subject: 'caf%C3%A9', body: '{"n":1}' },
        { id: 'e2', type: 'text/plain', subject: undefined, body: 'as text' },
        { id: 'e3', type: 'application/json', subject: undefined, body: 'bytes' },
      ],
    );
  });

  for (const [what, headers, body, detail] of [
    ['another version', {}, { ...event, specversion: '0.3' }, /specversion: only version 1\.0/],
    ['no source', {}, { ...event, source: undefined }, /source: /],
    ['a name with capitals', {}, { ...event, Bad: 1 }, /Bad: a name is lower-case/],
    ['data twice', {}, { ...event, data: 1, data_base64: 'AA==' }, /data and data_base64/],
    ['bad base64', {}, { ...event, data_base64: '*' }, /data_base64: not base64/],
  ] as Array<[string, Record<string, string>, object, RegExp]>)
    test(`${what} is refused`, async () => {
      await topics.put('events', {});
      const type = { 'content-type': 'application/cloudevents+json', ...headers };
      const response = await publish(type, JSON.stringify(body));
      assert.equal(response.status, 422);
      const problem = (await response.json()) as { code: string; detail: string };
      assert.equal(problem.code, 'MESSAGE_INVALID');
      assert.match(problem.detail, detail);
    });
});
