/**
 * Goal: slots are where cron and `every` say, whatever the clocks of a zone do, and each that has come is decided once.
 * Method: examples of the seed and of days on which clocks change; then random moments against a walk from slot to slot.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { decide, onTimeMs, scheduleSchema, type Timing, timingKey, timingOf } from './schedule.ts';

const at = (text: string) => Date.parse(text);
const iso = (ms: number | undefined) => ms && new Date(ms).toISOString();

function walk(timing: Timing, afterMs: number, count: number): Array<string | 0 | undefined> {
  const slots: Array<string | 0 | undefined> = [];
  for (let i = 0, from = afterMs; i < count; i++) {
    const slot = timing.next(from);
    slots.push(iso(slot));
    if (slot === undefined) break;
    from = slot;
  }
  return slots;
}

describe('slots', () => {
  test('of a start and a period are at the start, and every period after it', () => {
    const timing = timingOf({ start: '2021-01-01T04:00:00Z', every: '1d' });
    assert.equal(iso(timing.next(at('2026-11-27T03:00:00Z'))), '2026-11-27T04:00:00.000Z');
    assert.equal(iso(timing.next(at('2026-11-27T04:00:00Z'))), '2026-11-28T04:00:00.000Z');
    assert.equal(iso(timing.next(at('2019-05-05T05:00:00Z'))), '2021-01-01T04:00:00.000Z');
  });

  test('of a period alone are whole multiples of it since midnight', () => {
    const timing = timingOf({ every: '15m' });
    assert.equal(iso(timing.next(at('2026-11-27T03:07:31Z'))), '2026-11-27T03:15:00.000Z');
  });

  test('of cron are in its zone, with seconds where it has six fields', () => {
    const berlin = timingOf({ cron: '0 4 * * *', timezone: 'Europe/Berlin' });
    assert.equal(iso(berlin.next(at('2026-11-27T00:00:00Z'))), '2026-11-27T03:00:00.000Z');
    const seconds = timingOf({ cron: '*/20 * * * * *' });
    assert.deepEqual(walk(seconds, at('2026-11-27T00:00:30Z'), 2), [
      '2026-11-27T00:00:40.000Z',
      '2026-11-27T00:01:00.000Z',
    ]);
  });

  test('that do not exist come when clocks have been put forward', () => {
    const timing = timingOf({ cron: '30 2 * * *', timezone: 'Europe/Berlin' });
    assert.deepEqual(walk(timing, at('2026-03-28T00:00:00Z'), 3), [
      '2026-03-28T01:30:00.000Z',
      '2026-03-29T01:00:00.000Z',
      '2026-03-30T00:30:00.000Z',
    ]);
  });

  test('that exist twice come once, and those of every hour in both', () => {
    const daily = timingOf({ cron: '30 2 * * *', timezone: 'Europe/Berlin' });
    assert.deepEqual(walk(daily, at('2026-10-24T12:00:00Z'), 2), [
      '2026-10-25T00:30:00.000Z',
      '2026-10-26T01:30:00.000Z',
    ]);
    const hourly = timingOf({ cron: '0 * * * *', timezone: 'Europe/Berlin' });
    assert.deepEqual(walk(hourly, at('2026-10-24T23:30:00Z'), 3), [
      '2026-10-25T00:00:00.000Z',
      '2026-10-25T01:00:00.000Z',
      '2026-10-25T02:00:00.000Z',
    ]);
  });

  const timings = [
    { cron: '*/7 * * * *', timezone: 'Europe/Berlin' },
    { cron: '30 2 * * *', timezone: 'America/New_York' },
    { cron: '0 0 29 2 *', timezone: 'UTC' },
    { cron: '0 */3 * * MON-FRI', timezone: 'Australia/Lord_Howe' },
    { cron: '*/9 * * * * *', timezone: 'UTC' },
    { start: '2026-10-25T00:00:07Z', every: '90s' },
    { every: '36h' },
  ];
  test('that are looked back at are those that were looked forward to', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...timings),
        fc.integer({ min: at('2026-10-01T00:00:00Z'), max: at('2027-04-15T00:00:00Z') }),
        fc.integer({ min: 0, max: 20 }),
        fc.integer({ min: 1, max: 25 }),
        (when, afterMs, count, limit) => {
          const timing = timingOf(when);
          const forward: number[] = [];
          for (let from = afterMs; forward.length < count; from = forward.at(-1)!)
            forward.push(timing.next(from)!);
          const untilMs = forward.at(-1) ?? afterMs;
          assert.deepEqual(timing.last(afterMs, untilMs, limit), forward.slice(-limit));
        },
      ),
    );
  });

  test('of equal texts are equal, whatever was asked for before', () => {
    const shared = timingOf(timings[0]!);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2e12 }), ms => {
        assert.equal(shared.next(ms), timingOf(timings[0]!).next(ms));
      }),
    );
    assert.equal(timingKey({ cron: '0 4 * * *' }), timingKey({ cron: '0 4 * * *' }));
  });
});

describe('deciding', () => {
  const minutely = timingOf({ cron: '* * * * *' });
  const noon = at('2026-01-31T12:00:00Z');
  const all = { catchUp: 'all', catchUpMax: 3 } as const;
  const fired = (decision: ReturnType<typeof decide>) =>
    decision.slots.filter(({ isFired }) => isFired).map(({ slotMs }) => (slotMs - noon) / 60_000);

  test('a slot that has come is fired, and nothing before the next', () => {
    const decision = decide(minutely, all, { fromMs: noon, nowMs: noon + 60_000 });
    assert.deepEqual(decision, {
      slots: [{ slotMs: noon + 60_000, isFired: true }],
      toMs: noon + 60_000,
    });
    assert.deepEqual(decide(minutely, all, { fromMs: noon, nowMs: noon + 59_999 }), {
      ...{ slots: [], toMs: noon },
    });
  });

  test('slots that nobody looked at are caught up with as asked', () => {
    const times = { fromMs: noon, nowMs: noon + 10 * 60_000 + onTimeMs / 2 };
    const none = decide(minutely, { ...all, catchUp: 'none' }, times);
    assert.deepEqual(fired(none), [10]);
    assert.deepEqual(fired(decide(minutely, { ...all, catchUp: 'one' }, times)), [9, 10]);
    assert.deepEqual(fired(decide(minutely, all, times)), [7, 8, 9, 10]);
    assert.equal(none.slots.length, 10);
    assert.equal(none.toMs, noon + 10 * 60_000);
  });

  test('whatever the moments are, no slot is decided twice and none is left out', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 240_000 }), { minLength: 1, maxLength: 20 }),
        steps => {
          const seen: number[] = [];
          let [fromMs, nowMs] = [noon, noon];
          for (const step of steps) {
            nowMs += step;
            const { slots, toMs } = decide(minutely, all, { fromMs, nowMs });
            seen.push(...slots.map(({ slotMs }) => slotMs));
            fromMs = toMs;
          }
          const count = Math.floor((nowMs - noon) / 60_000);
          const expected = Array.from({ length: count }, (_, i) => noon + (i + 1) * 60_000);
          assert.deepEqual(seen, expected);
        },
      ),
    );
  });

  test('years without a gateway cost no more than what is remembered', () => {
    const secondly = timingOf({ every: '1s' });
    const decision = decide(secondly, all, { fromMs: 0, nowMs: noon });
    assert.equal(fired(decision).length, 3 + 60);
    assert.ok(decision.slots.length <= 50 + 60);
  });
});

describe('a definition', () => {
  const whole = { function: 'a', cron: '0 4 * * *' };
  for (const [changes, message] of [
    [{ cron: '61 * * * *' }, /cron: Invalid value for minute/],
    [{ cron: 'x' }, /cron: expected five fields/],
    [{ cron: '* * * * * * *' }, /cron: expected five fields/],
    [{ cron: '0 0 31 2 *' }, /cron: it never comes/],
    [{ timezone: 'Mars/Phobos' }, /timezone: not a time zone/],
    [{ every: '1d' }, /every: every and cron exclude/],
    [{ cron: undefined }, /cron: say when/],
    [{ cron: undefined, every: '999ms' }, /every: at least 1s/],
    [{ cron: undefined, every: '367d' }, /every: at most 366d/],
    [{ cron: undefined, every: 'often' }, /every: not a duration/],
    [{ cron: undefined, every: '1d', timezone: 'UTC' }, /timezone: it is for cron/],
    [{ cron: undefined, every: '1d', start: '2021-01-01' }, /start: not a time/],
    [{ cron: undefined, every: '1d', start: '2021-13-01T00:00:00Z' }, /start: not a time/],
    [{ cron: undefined, every: '1d', start: '+275760-09-13T00:00:00.000Z' }, /start: not a time/],
    [{ catchUpMax: 1001 }, /catchUpMax/],
    [{ overlap: 'never' }, /overlap/],
    [{ body: 'x'.repeat(65_537) }, /body: more than 65536 bytes/],
    [{ cron: `${'0 '.repeat(200)}` }, /cron: Too big/],
    [{ nope: 1 }, /nope/],
  ] as Array<[object, RegExp]>)
    test(`with ${JSON.stringify(changes).slice(0, 60)} is refused`, () => {
      const { error } = scheduleSchema.safeParse({ ...whole, ...changes });
      const told = error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
      assert.match(told?.join('\n') ?? 'nothing', message);
    });

  test('whose body is nested beyond reason is refused, and ends nothing', () => {
    let body: unknown = 1;
    for (let i = 0; i < 50_000; i++) body = [body];
    assert.match(
      String(scheduleSchema.safeParse({ ...whole, body }).error?.issues[0]?.message),
      /nested deeper/,
    );
  });

  test('has its defaults filled in, and one text for equal durations', () => {
    assert.deepEqual(scheduleSchema.parse(whole), {
      ...{ ...whole, timezone: 'UTC', overlap: 'allow', catchUp: 'one', catchUpMax: 100 },
      description: '',
    });
    const { every } = scheduleSchema.parse({ function: 'a', every: '120s' });
    assert.equal(every, '2m');
  });
});
