/**
 * Goal: what is pulled is held by one, until it is acknowledged, given back or its deadline passes; what is dead is counted,
 * shown, tried again once, or forgotten. Method: a real gateway over HTTP; restarts where it matters.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import { after, describe, test } from 'node:test';
import type { DeadLetterView, ReceivedMessage } from '../../client/api.ts';
import {
  javascript,
  makeDataDirectory,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';
import { pulledBytesMax } from '../../src/trigger/pull.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const topics = client.resources('topics');
const subscriptions = client.resources('subscriptions');

const text = (value: string) => Buffer.from(value).toString('base64');
const idsOf = (received: ReceivedMessage[]) => received.map(({ ackId }) => ackId);
const textsOf = (received: ReceivedMessage[]) =>
  received.map(({ message }) => Buffer.from(message.data, 'base64').toString());
const quick = { attempts: 3, minDelay: '10ms', maxDelay: '20ms' };

async function setUp(name: string, definition: object = {}) {
  await topics.put(name, {});
  await subscriptions.put(name, { topic: name, pull: true, retry: quick, ...definition });
}
const publish = (name: string, ...texts: string[]) =>
  client.publish(
    name,
    texts.map(data => ({ data: text(data) })),
  );
const take = async (name: string, wait = '10s') =>
  (await client.pull(name, { maxMessages: 100, wait })).receivedMessages;

describe('a pull', () => {
  test('waits for the first message, and gives no more than is asked for', async () => {
    await setUp('waiting');
    const pulled = take('waiting', '30s');
    await publish('waiting', 'a', 'b', 'c');
    assert.ok((await pulled).length >= 1);
    await setUp('some');
    await publish('some', 'a', 'b', 'c');
    const { receivedMessages } = await client.pull('some', { maxMessages: 2 });
    assert.deepEqual(textsOf(receivedMessages), ['a', 'b']);
    assert.deepEqual(textsOf(await take('some')), ['c']);
    assert.deepEqual(await take('some', '10ms'), []);
  });

  test('ends with what goes beyond its bytes, and leaves the others as they were', async () => {
    await setUp('large', { ackDeadline: '60s' });
    const mebibyte = 'x'.repeat(1024 ** 2);
    for (let i = 0; i < 20; i++) await publish('large', `${i} ${mebibyte}`);
    const first = await client.pull('large', { maxMessages: 1000 });
    const second = await client.pull('large', { maxMessages: 1000 });
    const numbers = [...textsOf(first.receivedMessages), ...textsOf(second.receivedMessages)].map(
      data => Number(data.split(' ')[0]),
    );
    assert.equal(first.receivedMessages.length, Math.ceil(pulledBytesMax / 1024 ** 2));
    assert.deepEqual(numbers, [...Array(20).keys()]);
    await client.ack('large', idsOf([...first.receivedMessages, ...second.receivedMessages]));
    const { waiting, running } = await subscriptions.get('large');
    assert.deepEqual([waiting, running], [0, 0]);
  });

  test('holds what it gave until it is acknowledged; a second acknowledgement is stale', async () => {
    await setUp('acked');
    await publish('acked', 'a', 'b');
    const received = await take('acked');
    await client.ack('acked', idsOf(received));
    assert.deepEqual(await take('acked', '10ms'), []);
    await assert.rejects(client.ack('acked', idsOf(received)), {
      ...{ code: 'ACK_ID_STALE', status: 409 },
      message: '2 of 2 ack ids are stale',
    });
  });

  test('of which some are stale acknowledges the others, and says which', async () => {
    await setUp('partly');
    await publish('partly', 'a', 'b');
    const [first, second] = idsOf(await take('partly'));
    await client.ack('partly', [first!]);
    await assert.rejects(
      client.ack('partly', [first!, second!]),
      (error: Error & { problem: { issues: unknown[] } }) => {
        assert.equal(error.message, '1 of 2 ack ids are stale; the other 1 were acknowledged');
        assert.deepEqual(error.problem.issues, [
          { path: 'ackIds.0', message: 'its deadline has passed, or it was settled before' },
        ]);
        return true;
      },
    );
    await assert.rejects(client.ack('partly', [second!]), { code: 'ACK_ID_STALE' });
  });

  test('with an ack id that is made up, or of another subscription, is refused and does nothing', async () => {
    await setUp('mine');
    await setUp('theirs');
    await publish('mine', 'a');
    const [ackId] = idsOf(await take('mine'));
    const [id, lease, signature] = ackId!.split('.');
    for (const forged of [
      'nonsense',
      `${id}.${Number(lease) + 1}.${signature}`,
      `${id}.${lease}.${'A'.repeat(43)}`,
    ])
      for (const call of [
        () => client.ack('mine', [ackId!, forged]),
        () => client.nack('mine', [forged]),
        () => client.extend('mine', [forged], '10s'),
      ])
        await assert.rejects(call(), { code: 'ACK_ID_INVALID', status: 422 });
    await assert.rejects(client.ack('theirs', [ackId!]), { code: 'ACK_ID_INVALID' });
    await client.ack('mine', [ackId!]);
  });

  test('comes again when its deadline passes, or when it is given back', async () => {
    await setUp('again', { ackDeadline: '1s', deadLetter: 'waiting' });
    await publish('again', 'a');
    const [first] = await take('again');
    const [second] = await take('again');
    assert.deepEqual([first!.deliveryAttempt, second!.deliveryAttempt], [1, 2]);
    assert.equal(second!.message.messageId, first!.message.messageId);
    await assert.rejects(client.ack('again', [first!.ackId]), { code: 'ACK_ID_STALE' });
    await client.nack('again', [second!.ackId]);
    const [third] = await take('again');
    assert.equal(third!.deliveryAttempt, 3);
    await client.ack('again', [third!.ackId]);
  });

  test('is held longer when it is extended', async () => {
    await setUp('extended', { ackDeadline: '1s' });
    await publish('extended', 'a');
    const [{ ackId }] = (await take('extended')) as [ReceivedMessage];
    await client.extend('extended', [ackId], '10m');
    await setUp('beside', { ackDeadline: '1s' });
    await publish('beside', 'b');
    await take('beside');
    // Whoever had the same deadline has lost it by now.
    await take('beside');
    assert.deepEqual(await take('extended', '10ms'), []);
    await client.ack('extended', [ackId]);
    await assert.rejects(client.extend('extended', [ackId], '11m'), { code: 'DEFINITION_INVALID' });
  });

  test('of one key, the next comes when the one before is acknowledged', async () => {
    await setUp('keyed');
    await client.publish(
      'keyed',
      ['1', '2', '3'].map(data => ({ data: text(data), orderingKey: 'k' })),
    );
    const seen: string[] = [];
    for (let i = 0; i < 3; i++) {
      const received = await take('keyed');
      assert.equal(received.length, 1);
      seen.push(...textsOf(received));
      await client.ack('keyed', idsOf(received));
    }
    assert.deepEqual(seen, ['1', '2', '3']);
  });

  test('that nobody acknowledges is dead after its attempts', async () => {
    await topics.put('pulled-dead', {});
    await setUp('poison', { deadLetter: 'pulled-dead' });
    await subscriptions.put('pulled-dead', { topic: 'pulled-dead', pull: true });
    await publish('poison', 'x');
    for (let i = 0; i < 3; i++) await client.nack('poison', idsOf(await take('poison')));
    assert.deepEqual(await take('poison', '10ms'), []);
    const [copy] = await take('pulled-dead');
    assert.equal(copy!.message.attributes.CloudPubSubDeadLetterSourceDeliveryCount, '3');
    const { items } = await client.listDeadLetters({ subscription: 'poison' });
    assert.deepEqual(
      items.map(({ cause, attempts }) => [cause, attempts.length]),
      [['not acknowledged', 3]],
    );
  });

  test('of a subscription that is not pulled, or paused, gives nothing', async () => {
    await setUp('paused');
    await subscriptions.pause('paused');
    await publish('paused', 'a');
    assert.deepEqual(await take('paused', '10ms'), []);
    await subscriptions.resume('paused');
    assert.equal((await take('paused')).length, 1);
    await gateway.put('sink', javascript('export default () => new Response();'));
    await subscriptions.put('called', { topic: 'paused', function: 'sink' });
    await assert.rejects(client.pull('called'), /is not pulled: it delivers by itself/);
    await assert.rejects(client.pull('none'), { code: 'RESOURCE_NOT_FOUND' });
  });

  test('whose client has left takes nothing from those who wait', async () => {
    await setUp('left', { ackDeadline: '10m' });
    const path = '/v1/namespaces/default/subscriptions/left/pull';
    const headers = {
      authorization: `Bearer ${gateway.adminToken}`,
      'content-type': 'application/json',
    };
    const left = Array.from({ length: 5 }, () =>
      request(`${gateway.url}${path}`, { method: 'POST', headers, agent: false }),
    );
    for (const pull of left) pull.on('error', () => {}).end(JSON.stringify({ wait: '30s' }));
    await Promise.all(left.map(pull => once(pull, 'finish')));
    await waitFor(async () => (await (await gateway.call('/healthz')).text()).startsWith('ok'));
    // A client that is only about to leave may be given something still.
    const gone = left.map(pull => new Promise(resolve => pull.once('close', resolve)));
    for (const pull of left) pull.destroy();
    await Promise.all(gone);
    await publish('left', 'a');
    assert.deepEqual(textsOf(await take('left', '20s')), ['a']);
  });

  test('messages that wait go with their subscription', async () => {
    await setUp('removed');
    await publish('removed', 'a', 'b');
    await subscriptions.remove('removed');
    await subscriptions.put('removed', { topic: 'removed', pull: true });
    await publish('removed', 'c');
    assert.deepEqual(textsOf(await take('removed')), ['c']);
  });

  test('becomes a function’s when the subscription says so', async () => {
    await setUp('moved');
    await publish('moved', 'a', 'b');
    await gateway.put(
      'mover',
      javascript(
        `const seen = []; export default async request => {
        if (request.method === 'POST') seen.push((await request.json()).message.data);
        return Response.json(seen.sort()); };`,
        { instances: { max: 1 } },
      ),
    );
    await subscriptions.put('moved', { topic: 'moved', function: 'mover' });
    await waitFor(
      async () =>
        (await (await gateway.call('/function/mover')).text()) ===
        JSON.stringify([text('a'), text('b')]),
      { what: 'both messages' },
    );
  });
});

describe('a gateway that is started again', () => {
  const data = makeDataDirectory();
  after(() => rmSync(data, { recursive: true, force: true }));

  test('has what was published, and leaves what was pulled with whoever holds it', async () => {
    const first = await startTestGateway({ data });
    await first.client.resources('topics').put('t', { retention: '1d' });
    await first.client
      .resources('subscriptions')
      .put('s', { topic: 't', pull: true, ackDeadline: '10m' });
    const all = ['a', 'b', 'c'].map(value => ({ data: text(value) }));
    await first.client.publish('t', all);
    const { receivedMessages } = await first.client.pull('s');
    await first.stop();
    const second = await startTestGateway({ data });
    const rest = await second.client.pull('s', { maxMessages: 10 });
    assert.deepEqual(textsOf(rest.receivedMessages), ['b', 'c']);
    await second.client.ack('s', idsOf(receivedMessages));
    await second.client.ack('s', idsOf(rest.receivedMessages));
    assert.deepEqual(await second.client.seek('s', '1h'), { dropped: 0, added: 3 });
    await second.stop();
  });
});

describe('dead letters', () => {
  const failing = `let broken = true; export default async request => {
    if (request.method === 'DELETE') { broken = false; return new Response(); }
    if (broken) { const e = new Error('broken'); e.name = (await request.json()).message.attributes.as; throw e; }
    return new Response('mended'); };`;

  async function kill(
    self: TestGateway,
    name: string,
    ...causes: string[]
  ): Promise<DeadLetterView[]> {
    await self.put(name, javascript(failing, { instances: { max: 1 } }));
    await self.client.resources('topics').put(name, {});
    await self.client.resources('subscriptions').put(name, {
      ...{ topic: name, function: name, retry: { attempts: 1 } },
    });
    await self.client.publish(
      name,
      causes.map(as => ({ attributes: { as } })),
    );
    return (await waitFor(
      async () => {
        const { items } = await self.client.listDeadLetters({ subscription: name });
        return items.length >= causes.length ? items : undefined;
      },
      { what: `${causes.length} dead letters` },
    )) as DeadLetterView[];
  }

  test('are counted by cause, and listed by it', async () => {
    await kill(gateway, 'causes', 'AError', 'BError', 'AError', 'not a name');
    const { items } = await client.listDeadCauses();
    const mine = items.filter(({ subscription }) => subscription === 'causes');
    assert.deepEqual(mine.map(({ cause, count }) => `${cause}: ${count}`).sort(), [
      'threw AError: 2',
      'threw BError: 1',
      'threw: 1',
    ]);
    const listed = await client.listDeadLetters({ subscription: 'causes', cause: 'threw AError' });
    assert.equal(listed.items.length, 2);
    const page = await client.listDeadLetters({ subscription: 'causes', limit: 3 });
    const rest = await client.listDeadLetters({
      subscription: 'causes',
      limit: 3,
      cursor: page.next!,
    });
    assert.deepEqual([page.items.length, rest.items.length], [3, 1]);
  });

  test('are tried again once, and purged', async () => {
    const letters = await kill(gateway, 'mended', 'AError', 'AError', 'BError');
    const dry = await client.redriveDeadLetters({ subscription: 'mended', dryRun: true });
    assert.deepEqual([dry.redriven.length, dry.redriven[0]!.as], [3, '']);
    await gateway.call('/function/mended', { method: 'DELETE' });
    const some = await client.redriveDeadLetters({ subscription: 'mended', cause: 'threw AError' });
    assert.equal(some.redriven.length, 2);
    for (const { id, as } of some.redriven) {
      const view = await client.getInvocation(as, { wait: '20s' });
      assert.deepEqual([view.state, view.parent], ['succeeded', id]);
      assert.equal((await client.getDeadLetter(id)).redriven, as);
    }
    const again = await client.redriveDeadLetters({ ids: [some.redriven[0]!.id] });
    assert.match(again.left[0]!.reason, /it was redriven as inv_/);
    assert.deepEqual(
      await client.purgeDeadLetters({ subscription: 'mended', cause: 'threw BError' }),
      { purged: 1 },
    );
    assert.deepEqual((await client.listDeadLetters({ subscription: 'mended' })).items, []);
    const gone = letters.find(({ cause }) => cause === 'threw BError')!;
    await assert.rejects(client.getDeadLetter(gone.id), {
      code: 'DEAD_LETTER_NOT_FOUND',
      status: 404,
    });
  });

  test('of one key are tried again in the order of their publication', async () => {
    await setUp('reordered', { retry: { attempts: 1 } });
    const keyed = ['1', '2', '3', '4', '5'].map(data => ({ data: text(data), orderingKey: 'k' }));
    await client.publish('reordered', keyed);
    for (let i = 0; i < keyed.length; i++)
      await client.nack('reordered', idsOf(await take('reordered')));
    const { redriven } = await client.redriveDeadLetters({ subscription: 'reordered' });
    assert.equal(redriven.length, 5);
    const seen: string[] = [];
    for (let i = 0; i < 5; i++) {
      const received = await take('reordered');
      seen.push(...textsOf(received));
      await client.ack('reordered', idsOf(received));
    }
    assert.deepEqual(seen, ['1', '2', '3', '4', '5']);
    const mixed = await client.redriveDeadLetters({ ids: ['inv_none', redriven[0]!.id] });
    assert.equal(mixed.left.length, 2);
  });

  test('are tried again with a version of their function', async () => {
    const [letter] = await kill(gateway, 'pinned', 'AError');
    await gateway.put('pinned', javascript(`export default () => new Response('version two');`));
    const { redriven } = await client.redriveDeadLetters({ ids: [letter!.id], version: 2 });
    const view = await client.getInvocation(redriven[0]!.as, { wait: '20s' });
    assert.deepEqual([view.state, view.version, view.parent], ['succeeded', 2, letter!.id]);
    assert.equal(await (await client.getResult(redriven[0]!.as)).text(), 'version two');
    const missing = await client.redriveDeadLetters({ ids: [letter!.id], version: 9 });
    assert.equal(missing.left.length, 1);
  });

  test('are those of calls and callbacks too', async () => {
    await gateway.put(
      'caller',
      javascript(`export default () => { throw new RangeError('no'); }`, {
        retry: { attempts: 2, minDelay: '1ms' },
      }),
    );
    const { id } = await client.invokeAsync('caller', { body: 'x' });
    await client.getInvocation(id, { wait: '20s' });
    const { items } = await client.listDeadLetters({ function: 'caller' });
    assert.deepEqual(
      items.map(letter => [letter.id, letter.kind, letter.cause]),
      [[id, 'call', 'threw RangeError']],
    );
    const { redriven } = await client.redriveDeadLetters({ function: 'caller' });
    assert.equal((await client.getInvocation(redriven[0]!.as, { wait: '20s' })).parent, id);
  });

  test('are not all tried again, or forgotten, for want of a word', async () => {
    for (const call of [
      () => client.redriveDeadLetters({}),
      () => client.purgeDeadLetters({}),
      () => client.redriveDeadLetters({ subscription: 'a', function: 'b' }),
    ])
      await assert.rejects(call(), { code: 'DEFINITION_INVALID' });
    await assert.rejects(
      client.redriveDeadLetters({ all: true, version: 1 }),
      /version: say of which/,
    );
    await assert.rejects(client.listDeadLetters({ subscription: 'none' }), {
      code: 'RESOURCE_NOT_FOUND',
    });
    await assert.rejects(client.listDeadLetters({ function: 'none' }), {
      code: 'FUNCTION_NOT_FOUND',
    });
  });
});
