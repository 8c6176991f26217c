/** Goal: the fake clock keeps the order and the times of a real one. Method: timers that note when they ran. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sleep } from '../clock.ts';
import { FakeClock } from './fake-clock.ts';

test('timers run in order, each at its own time', async () => {
  const clock = new FakeClock(1000);
  const ran: Array<[string, number, number]> = [];
  const note = (name: string) => () => ran.push([name, clock.monotonicMs(), clock.now()]);
  clock.after(20, note('later'));
  clock.after(10, note('sooner'));
  clock.after(10, note('same time, set later'));
  await clock.advance(15);
  await clock.advance(5);
  assert.deepEqual(ran, [
    ['sooner', 10, 1010],
    ['same time, set later', 10, 1010],
    ['later', 20, 1020],
  ]);
  assert.equal(clock.monotonicMs(), 20);
});

test('a timer set while time passes runs in the same advance when it falls due', async () => {
  const clock = new FakeClock();
  const ran: number[] = [];
  clock.after(10, () => clock.after(10, () => ran.push(clock.monotonicMs())));
  await clock.advance(19);
  assert.deepEqual(ran, []);
  await clock.advance(1);
  assert.deepEqual(ran, [20]);
});

test('what a timer resolves settles before the next timer runs', async () => {
  const clock = new FakeClock();
  const order: string[] = [];
  void sleep(clock, 10).then(async () => {
    await Promise.resolve();
    order.push('continued');
  });
  clock.after(10, () => order.push('second timer'));
  await clock.advance(10);
  assert.deepEqual(order, ['continued', 'second timer']);
});

test('a cancelled timer does not run, and cancelling again does no harm', async () => {
  const clock = new FakeClock();
  const timer = clock.after(10, () => assert.fail('cancelled'));
  timer.cancel();
  timer.cancel();
  assert.equal(clock.pending, 0);
  await clock.advance(100);
});

test('any set of timers runs once each, sorted, and none before its time', async () => {
  const delays = fc.array(fc.integer({ min: 0, max: 100 }), { maxLength: 30 });
  await fc.assert(
    fc.asyncProperty(delays, fc.array(fc.integer({ min: 1, max: 40 })), async (all, steps) => {
      const clock = new FakeClock();
      const ran: number[] = [];
      for (const delay of all) {
        clock.after(delay, () => {
          assert.equal(clock.monotonicMs(), delay);
          ran.push(delay);
        });
      }
      for (const step of steps) await clock.advance(step);
      const passed = clock.monotonicMs();
      assert.deepEqual(
        ran,
        all.filter(delay => delay <= passed && steps.length > 0).sort((a, b) => a - b),
      );
    }),
  );
});
