/**
 * Goal: each deadline fires once, never early, at most a tick late, and a removed one never. Method: properties on a
 * fake clock, with deadlines beyond one turn of the wheel, and a blocked event loop.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from './testing/fake-clock.ts';
import { TimerWheel } from './timer-wheel.ts';

const tickMs = 10;
/** One turn is 1024 ticks. */
const turnMs = 10_240;

test('deadlines fire once, never early, at most a tick late, whenever they are added', async () => {
  const anyDeadline = fc.record({
    pauseMs: fc.oneof(fc.nat(30), fc.nat(3000)),
    delayMs: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 3 * turnMs })),
    removed: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(anyDeadline, { minLength: 1, maxLength: 12 }), async all => {
      const clock = new FakeClock();
      const wheel = new TimerWheel(clock);
      const lateMs: number[] = [];
      let expected = 0;
      for (const { pauseMs, delayMs, removed } of all) {
        await clock.advance(pauseMs);
        const dueMs = clock.monotonicMs() + delayMs;
        const deadline = wheel.after(dueMs - clock.monotonicMs(), () =>
          lateMs.push(clock.monotonicMs() - dueMs),
        );
        if (removed) wheel.remove(deadline);
        else expected++;
      }
      await clock.advance(3 * turnMs + 2 * tickMs);
      assert.equal(lateMs.length, expected);
      for (const late of lateMs) assert.ok(late >= 0 && late <= tickMs, `${late} ms late`);
      await clock.advance(turnMs);
      assert.equal(clock.pending, 0, 'it turns while there are deadlines, and no longer');
    }),
    { numRuns: 60 },
  );
});

test('a deadline beyond one turn of the wheel waits for its own turn', async () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const fired: number[] = [];
  for (const dueMs of [50, 50 + turnMs, 50 + 2 * turnMs])
    wheel.after(dueMs - clock.monotonicMs(), () => fired.push(clock.monotonicMs()));
  await clock.advance(50 + turnMs - 1);
  assert.equal(fired.length, 1);
  await clock.advance(tickMs + 1);
  assert.equal(fired.length, 2);
  await clock.advance(turnMs);
  assert.equal(fired.length, 3);
});

test('after a blocked event loop everything that is due fires, and nothing else', async () => {
  for (const blockedMs of [35, 500, turnMs + 5, 5 * turnMs]) {
    const clock = new FakeClock();
    const wheel = new TimerWheel(clock);
    const fired: string[] = [];
    wheel.after(20, () => fired.push('20'));
    wheel.after(blockedMs - 5, () => fired.push('shortly before'));
    wheel.after(blockedMs + 200, () => fired.push('after'));
    clock.skip(blockedMs);
    await clock.advance(tickMs);
    assert.deepEqual(fired.sort(), ['20', 'shortly before']);
    await clock.advance(220);
    assert.equal(fired.length, 3);
  }
});

test('a deadline added while another fires is not forgotten, even when it is past', async () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  let fired = 0;
  wheel.after(1000, () => {});
  wheel.after(180, () => {
    wheel.after(-60, () => fired++);
    wheel.after(1, () => fired++);
  });
  clock.skip(200);
  await clock.advance(4 * tickMs);
  assert.equal(fired, 2);
});

test('calls that end long before their deadlines set a timer once a turn', async () => {
  const clock = new FakeClock();
  let timers = 0;
  const wheel = new TimerWheel({
    now: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
    after(delayMs, fn) {
      timers++;
      return clock.after(delayMs, fn);
    },
  });
  for (let elapsedMs = 0; elapsedMs < turnMs; elapsedMs += 4) {
    const deadline = wheel.after(60_000, () => assert.fail('it was removed'));
    await clock.advance(4);
    wheel.remove(deadline);
  }
  assert.ok(timers <= 2, `${timers} timers`);
});

test('a deadline before the one that is waited for fires on time', async () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const fired: number[] = [];
  for (const dueMs of [9000, 3000, 40, 6000])
    wheel.after(dueMs - clock.monotonicMs(), () => fired.push(clock.monotonicMs()));
  await clock.advance(10_000);
  assert.deepEqual(fired, [40, 3000, 6000, 9000]);
});

test('removing is idempotent, also after it has fired and from within', async () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const own = wheel.after(10, () => wheel.remove(own));
  const other = wheel.after(10, () => {});
  wheel.remove(other);
  wheel.remove(other);
  await clock.advance(50);
  wheel.remove(own);
  let fired = 0;
  wheel.after(10, () => fired++);
  await clock.advance(30);
  assert.equal(fired, 1);
});
