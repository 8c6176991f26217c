/**
 * Goal: whatever a gateway is doing when it dies, every slot of every schedule is decided once. Method: seeded schedules on a
 * clock moved by hand, over a store whose gateway dies before or after any method, or freezes and goes on when others have
 * taken over. A failing seed is told, and can be run alone: FNWAY_TEST_SEED=7.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMemoryStore } from '../../src/store/memory.ts';
import { scheduleMethods } from '../../src/store/schedules.ts';
import { crashingStore } from '../../src/testing/crashing-store.ts';
import { FakeClock } from '../../src/testing/fake-clock.ts';
import { buildSchedules, slotOf } from '../../src/testing/test-schedules.ts';
import { randomOf, seeds } from './seeds.ts';

const noon = Date.parse('2026-01-31T12:00:00Z');
const second = 1000;

async function simulate(seed: number): Promise<{ gateways: number; slots: number }> {
  const random = randomOf(seed);
  const [clock, store] = [new FakeClock(noon), createMemoryStore()];
  const periods = Array.from({ length: 3 }, () => 1 + Math.floor(random() * 9));
  const setUp = await buildSchedules({ clock, store });
  for (const [i, period] of periods.entries())
    await setUp.put(`every-${i}`, {
      ...{ start: new Date(noon).toISOString(), every: `${period}s` },
      ...{ catchUp: 'all', catchUpMax: 1000 },
    });
  let canDie = true;
  let gateways = 0;
  const freezes = seed % 2 === 0;
  const stops: Array<() => Promise<void>> = [];
  const start = async () => {
    gateways++;
    const crashing = crashingStore(store.schedules, scheduleMethods, () => {
      if (!canDie || random() >= 0.05) return 'lives';
      if (!freezes) return 'dies';
      clock.after(random() * 100 * second, () => crashing.thaw());
      return 'freezes';
    });
    const { schedules } = await buildSchedules({ clock, store, schedules: crashing.store });
    void schedules.start();
    stops.push(() => schedules.stop());
    return crashing;
  };
  let current = await start();
  for (let i = 0; i < 50; i++) {
    await clock.advance(second * random() * 4);
    // It may take a while until somebody starts another.
    if (current.isGone && random() < 0.5) current = await start();
  }
  canDie = false;
  if (current.isGone) current = await start();
  const untilMs = clock.now();
  await clock.advance(130 * second);
  const listed = await store.jobs.list({ namespace: 'default', limit: 100_000 });
  const found = await Promise.all(
    listed.map(async ({ id }) => slotOf((await store.jobs.find(id))!.sealedInput)),
  );
  const expected = periods.flatMap(period => {
    const count = Math.floor((clock.now() - noon) / (period * second));
    return Array.from({ length: count }, (_, i) => noon + (i + 1) * period * second);
  });
  const upTo = (slots: number[]) => slots.filter(ms => ms <= untilMs).sort((a, b) => a - b);
  assert.deepEqual(upTo(found), upTo(expected), `seed ${seed}`);
  return { gateways, slots: found.length };
}

test(`every slot is decided once, whatever dies (${seeds.length} seeds)`, async () => {
  let [gateways, slots] = [0, 0];
  for (const seed of seeds) {
    const seen = await simulate(seed);
    gateways += seen.gateways;
    slots += seen.slots;
  }
  // Else nothing was put to the test.
  assert.ok(gateways > seeds.length && slots > 10 * seeds.length, `${gateways}, ${slots}`);
});
