/**
 * Goal: each slot brings its job once, late where it must and never lost. Method: a clock moved by hand, the store in memory;
 * what is asked of the store is counted, refused or decided by another gateway.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { buildSchedules, slotOf } from '../testing/test-schedules.ts';

const noon = Date.parse('2026-01-31T12:00:00Z');
const minute = 60_000;

/** Minutes after noon of the slots whose jobs were accepted, in order. */
async function fired({ jobs }: Store): Promise<number[]> {
  const listed = await jobs.list({ namespace: 'default', limit: 1000 });
  const slots = await Promise.all(
    listed.map(async ({ id }) => slotOf((await jobs.find(id))!.sealedInput)),
  );
  return slots.map(slot => (slot - noon) / minute).sort((a, b) => a - b);
}

test('slots bring their jobs as the time comes, each once', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const { schedules, put } = await buildSchedules({ clock, store });
  await schedules.start();
  await put('five', { cron: '*/5 * * * *' });
  await put('seven', { every: '7m', start: '2026-01-31T12:00:00Z' });
  await clock.advance(4 * minute);
  assert.deepEqual(await fired(store), []);
  await clock.advance(11 * minute);
  assert.deepEqual(await fired(store), [5, 7, 10, 14, 15]);
  await schedules.stop();
});

test('what comes while no gateway runs is caught up with as each asks', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const first = await buildSchedules({ clock, store });
  await first.schedules.start();
  const ids = [
    await first.put('none', { cron: '*/5 * * * *', catchUp: 'none' }),
    await first.put('one', { cron: '*/5 * * * *' }),
    await first.put('all', { cron: '*/5 * * * *', catchUp: 'all', catchUpMax: 2 }),
  ];
  await clock.advance(6 * minute);
  await first.schedules.stop();
  await clock.advance(20.5 * minute);
  const second = await buildSchedules({ clock, store });
  await second.schedules.start();
  await clock.advance(minute);
  const outcomes = await Promise.all(
    ids.map(async id =>
      (await store.schedules.slots(id, 10))
        .reverse()
        .map(({ slotMs, outcome }) => `${(slotMs - noon) / minute} ${outcome}`),
    ),
  );
  const missed = (...slots: number[]) => slots.map(slot => `${slot} missed`);
  assert.deepEqual(outcomes, [
    ['5 fired', ...missed(10, 15, 20, 25)],
    ['5 fired', ...missed(10, 15, 20), '25 fired'],
    ['5 fired', ...missed(10, 15), '20 fired', '25 fired'],
  ]);
  await second.schedules.stop();
});

test('a store that refuses for a while costs time, and no slot', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  let isBroken = true;
  let asked = 0;
  const schedules = {
    ...store.schedules,
    fire: async (...args: Parameters<typeof store.schedules.fire>) => {
      asked++;
      if (isBroken) throw new Error('no room');
      return store.schedules.fire(...args);
    },
  };
  const fixture = await buildSchedules({ clock, store, schedules });
  await fixture.schedules.start();
  await fixture.put('often', { cron: '* * * * *' });
  await clock.advance(2.5 * minute);
  assert.deepEqual(await fired(store), []);
  assert.ok(asked > 10 && asked < 100, `asked ${asked} times`);
  isBroken = false;
  await clock.advance(minute);
  assert.deepEqual(await fired(store), [1, 2, 3]);
  await fixture.schedules.stop();
});

test('a slot waits while as many jobs of its function wait as may', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const { schedules, put } = await buildSchedules({ clock, store, lane: { waitingMax: 1 } });
  await schedules.start();
  await put('often', { every: '10s' });
  await clock.advance(25_000);
  assert.deepEqual(await fired(store), [1 / 6]);
  const { jobs } = await store.jobs.claim({ limit: 9, nowMs: clock.now(), leaseMs: minute });
  assert.equal(jobs.length, 1);
  await clock.advance(3000);
  assert.deepEqual(await fired(store), [1 / 6, 2 / 6]);
  await schedules.stop();
});

test('of two gateways on one store, each slot is decided by one', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const first = await buildSchedules({ clock, store });
  const id = await first.put('often', { cron: '* * * * *' });
  const second = await buildSchedules({ clock, store });
  await first.schedules.start();
  await second.schedules.start();
  await clock.advance(5 * minute);
  assert.deepEqual(await fired(store), [1, 2, 3, 4, 5]);
  assert.equal((await store.schedules.slots(id, 10)).length, 5);
  await first.schedules.stop();
  await clock.advance(2 * minute);
  assert.deepEqual(await fired(store), [1, 2, 3, 4, 5, 6, 7]);
  await second.schedules.stop();
});

test('a change of when begins anew; any other change goes on', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const { schedules, put } = await buildSchedules({ clock, store });
  await schedules.start();
  await put('changed', { cron: '*/2 * * * *' });
  await clock.advance(3 * minute);
  await put('changed', { cron: '*/2 * * * *', body: 'other' });
  await clock.advance(2 * minute);
  assert.deepEqual(await fired(store), [2, 4]);
  await put('changed', { cron: '*/7 * * * *' });
  await clock.advance(10 * minute);
  assert.deepEqual(await fired(store), [2, 4, 7, 14]);
  await schedules.stop();
});

test('one that is removed brings nothing more, and is forgotten', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const { schedules, resources, put } = await buildSchedules({ clock, store });
  await schedules.start();
  await put('gone', { cron: '* * * * *' });
  await clock.advance(minute);
  await resources.remove('schedule', 'default', 'gone');
  await clock.advance(3 * minute);
  assert.deepEqual(await fired(store), [1]);
  assert.deepEqual(await store.schedules.positions(), []);
  await schedules.stop();
});

test('one whose function is gone misses its slots, and says so', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const warned: string[] = [];
  const log = { debug() {}, info() {}, error() {}, warn: (text: string) => warned.push(text) };
  const { schedules, put } = await buildSchedules({ clock, store, log: log as never });
  await schedules.start();
  const id = await put('orphan', { function: 'b', cron: '* * * * *' });
  await clock.advance(minute);
  assert.deepEqual(
    (await store.schedules.slots(id, 9)).map(({ outcome }) => outcome),
    ['missed'],
  );
  assert.deepEqual(warned, ['slots were missed']);
  await schedules.stop();
});

test('a wall clock that jumps is noticed, and costs or doubles no slot', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  let jumpMs = 0;
  const jumping = {
    now: () => clock.now() + jumpMs,
    monotonicMs: () => clock.monotonicMs(),
    after: clock.after.bind(clock),
  };
  const { schedules, put } = await buildSchedules({ clock: jumping, store });
  await schedules.start();
  await put('hourly', { cron: '0 * * * *' });
  jumpMs = 65 * minute;
  await clock.advance(minute);
  assert.deepEqual(await fired(store), [60]);
  // Back: what was decided is not decided again.
  jumpMs = 0;
  await clock.advance(70 * minute);
  assert.deepEqual(await fired(store), [60]);
  await clock.advance(60 * minute);
  assert.deepEqual(await fired(store), [60, 120]);
  await schedules.stop();
});

test('two runs by hand in one moment are two', async () => {
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const { schedules, resources, put } = await buildSchedules({ clock, store });
  const id = await put('daily', { cron: '0 4 * * *' });
  const schedule = resources.find('schedule', 'default', 'daily');
  const runs = await Promise.all([schedules.run(schedule), schedules.run(schedule)]);
  const slots = await store.schedules.slots(id, 10);
  assert.deepEqual(slots.map(({ job }) => job).sort(), runs.map(run => run.id).sort());
});
