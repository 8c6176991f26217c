/**
 * Goal: what is left in the lane of a subscription that is no more goes, also while the gateway runs. Method: a clock moved by
 * hand, the store in memory, a queue that only counts and drops.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../log.ts';
import { buildDelivery, buildMessage } from '../store/contract-messages.ts';
import { createMemoryStore } from '../store/memory.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { Topics, type TopicsOptions } from './topics.ts';

const minute = 60_000;

test('what a late delivery leaves for a removed subscription goes within a minute', async () => {
  const clock = new FakeClock();
  const { jobs, messages } = createMemoryStore();
  const isThere = new Set(['sub_there']);
  const topics = new Topics({
    resources: {
      onChange() {},
      all: () => [],
      byId: (id: string) => (isThere.has(id) ? {} : undefined),
    },
    store: messages,
    queue: {
      laneCounts: () => jobs.counts(),
      drop: (lane: string) => jobs.drop(lane, { nowMs: clock.now(), limit: 100 }),
    },
    ...{ clock, log: silentLog },
  } as unknown as TopicsOptions);
  await topics.start();
  for (const laneId of ['sub_there', 'sub_gone']) {
    const message = buildMessage();
    const deliveries = [buildDelivery(message, { laneId, runningMax: 0 })];
    await messages.publish({ messages: [message], deliveries }, clock.now());
  }
  const lanes = async () => (await jobs.counts()).map(({ lane }) => lane);
  assert.deepEqual(await lanes(), ['sub_gone', 'sub_there']);
  await clock.advance(minute + 1);
  assert.deepEqual(await lanes(), ['sub_there']);
  topics.stop();
  isThere.clear();
  await clock.advance(2 * minute);
  assert.deepEqual(await lanes(), ['sub_there']);
});
