/**
 * Goal: no published message is lost to any of its subscriptions, and order by key holds, however often the gateway is killed.
 * Method: the real `fnway serve`; publishers that go on publishing, a function that writes down what it gets, and somebody who
 * pulls; `kill -9` at random moments. FNWAY_TEST_KILLS=100 kills more often, FNWAY_TEST_SEED=7 at other moments.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../client/client.ts';
import { randomOf } from './seeds.ts';
import { serveHere } from './serve.ts';

const kills = Number(process.env.FNWAY_TEST_KILLS ?? 10);
const random = randomOf(Number(process.env.FNWAY_TEST_SEED ?? 1));
const served = serveHere();
const publishers = 6;

const code = `import { appendFileSync } from 'node:fs';
let calls = 0;
export default async request => {
  const { message } = await request.json();
  appendFileSync(process.env.LOG, message.messageId + ' ' + message.attributes.key + ' ' + message.attributes.n + '\\n');
  if (calls++ % 5 === 0) throw new Error('this time not');
  return new Response();
};`;

async function setUp(client: Client): Promise<void> {
  const definition = { runtime: 'node', source: { files: { 'handler.mjs': code } } };
  const env = { LOG: served.log };
  const { function: view } = await client.putFunction(
    'noted',
    { ...definition, env },
    { wait: '60s' },
  );
  assert.equal(view.state, 'ready');
  await client.resources('topics').put('t', {});
  const retry = { attempts: 100, minDelay: '5ms', maxDelay: '20ms' };
  const subscriptions = client.resources('subscriptions');
  // What a kill meets three times is lost for good: few at a time.
  await subscriptions.put('called', { topic: 't', function: 'noted', retry, concurrency: 6 });
  await subscriptions.put('pulled', { topic: 't', pull: true, retry, ackDeadline: '2s' });
}

/** One key: its messages are published one after the other. Notes ids that were answered. */
async function publishOn(
  client: Client,
  { key, from, isOver }: { key: string; from: number; isOver(): boolean },
  published: Map<string, string>,
): Promise<number> {
  let n = from;
  while (!isOver()) {
    const attributes = { key, n: String(n++) };
    try {
      const { messageIds } = await client.publish('t', [{ attributes, orderingKey: key }]);
      published.set(messageIds[0]!, `${key} ${attributes.n}`);
    } catch {
      // The gateway is gone: it may have been accepted or not.
      break;
    }
  }
  return n;
}

async function pullOn(
  client: Client,
  isOver: () => boolean,
  taken: Map<string, string>,
): Promise<void> {
  while (!isOver()) {
    try {
      const { receivedMessages } = await client.pull('pulled', { maxMessages: 50, wait: '1s' });
      if (receivedMessages.length === 0) continue;
      for (const { message } of receivedMessages)
        taken.set(message.messageId, `${message.attributes.key} ${message.attributes.n}`);
      await client.ack(
        'pulled',
        receivedMessages.map(({ ackId }) => ackId),
      );
    } catch {
      await sleep(5);
    }
  }
}

test(`${kills} times kill -9 while messages are published`, { timeout: 600_000 }, async t => {
  let client = await served.start();
  await setUp(client);
  const [published, taken] = [new Map<string, string>(), new Map<string, string>()];
  const counters = Array.from({ length: publishers }, () => 0);
  for (let round = 0; round < kills; round++) {
    let isOver = false;
    const current = client;
    const work = counters.map(async (from, i) => {
      const given = { key: `k${i}`, from, isOver: () => isOver };
      counters[i] = await publishOn(current, given, published);
    });
    work.push(pullOn(current, () => isOver, taken));
    await sleep(100 + random() * 500);
    await served.kill();
    isOver = true;
    await Promise.all(work);
    client = await served.start();
  }
  let isDone = false;
  const pulling = pullOn(client, () => isDone, taken);
  const isMissing = () => [...published.keys()].some(id => !taken.has(id));
  const noted = () => new Set(served.lines().map(line => line.split(' ')[0]));
  for (
    let i = 0;
    i < 600 && (isMissing() || [...published.keys()].some(id => !noted().has(id)));
    i++
  )
    await sleep(50);
  isDone = true;
  await pulling;
  const lost = [...published].filter(([id]) => !taken.has(id) || !noted().has(id));
  const { items: dead } = await client.listDeadCauses();
  assert.deepEqual(lost, [], JSON.stringify(dead));
  for (const key of counters.keys()) {
    const numbers = served.lines().map(line => line.split(' '));
    const seen = numbers.filter(([, of]) => of === `k${key}`).map(([, , n]) => Number(n));
    // Again where a try failed or died; never back.
    const steps = seen.map((n, i) => n - (seen[i - 1] ?? -1));
    assert.ok(
      steps.every(step => step >= 0),
      `k${key}: ${seen}`,
    );
  }
  assert.ok(published.size > kills * publishers, `${published.size} were published`);
  t.diagnostic(`${published.size} published, ${served.lines().length} deliveries to the function`);
  assert.equal(await served.stop(), 0);
});
