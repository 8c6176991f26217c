/** Goal: when a job is tried again, and what it comes to, is what docs/concepts/delivery.md says. Pure. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  delayBefore,
  judge,
  noRetry,
  parseRetryAfter,
  type RetryPolicy,
  retryPolicyOf,
  retrySchema,
  retryViewOf,
  type Try,
} from './retry.ts';

const minute = 60_000;
/** Of seed 2: six attempts, from two minutes to ten. */
const six = retryPolicyOf(retrySchema.parse({ attempts: 6, minDelay: '2m', maxDelay: '10m' }));
const facts = { number: 1, acceptedMs: 0, nowMs: 0, random: 0 };

function endOf(policy: RetryPolicy, last: Try, changes: Partial<typeof facts> = {}): string {
  const verdict = judge(policy, last, { ...facts, ...changes });
  return 'end' in verdict ? verdict.end : `in ${verdict.retryAtMs - (changes.nowMs ?? 0)} ms`;
}

test('delays double from the least to the most, and jitter only adds', () => {
  const delays = [2, 3, 4, 5, 6].map(number => delayBefore(six, number, 0) / minute);
  assert.deepEqual(delays, [2, 4, 8, 10, 10]);
  assert.equal(delayBefore(six, 100, 0), 10 * minute);
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 100 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (number, random) => {
        const least = delayBefore(six, number, 0);
        const delay = delayBefore(six, number, random);
        assert.ok(delay >= least && delay <= Math.ceil(least * (1 + six.jitter)));
      },
    ),
  );
});

test('each kind of end', () => {
  const cases: Array<[RetryPolicy, Try, string, Partial<typeof facts>?]> = [
    [six, { status: 200 }, 'succeeded'],
    [six, { status: 302 }, 'succeeded'],
    [six, { status: 404 }, 'failed'],
    [six, { status: 503 }, 'in 120000 ms'],
    [six, { status: 429 }, 'in 120000 ms'],
    [six, { status: 502, reason: 'threw' }, 'in 240000 ms', { number: 2 }],
    [six, { status: 502, reason: 'threw' }, 'dead', { number: 6 }],
    [six, { status: 502, reason: 'threw', isTerminal: true }, 'failed'],
    [six, { status: 503, retryAfterMs: 180_000 }, 'in 180000 ms'],
    [six, { status: 503, retryAfterMs: 1000 }, 'in 120000 ms'],
    [six, { status: 503, retryAfterMs: 1e12 }, 'in 86400000 ms'],
    [noRetry, { status: 500 }, 'failed'],
    [noRetry, { status: 504, reason: 'timeout' }, 'failed'],
    [{ ...six, on: ['timeout'] }, { status: 500 }, 'failed'],
    [{ ...six, on: ['404'] }, { status: 404 }, 'in 120000 ms'],
    [{ ...six, maxAgeMs: 10 * minute }, { status: 500 }, 'in 120000 ms', { nowMs: 8 * minute }],
    [{ ...six, maxAgeMs: 10 * minute }, { status: 500 }, 'dead', { nowMs: 8 * minute + 1 }],
  ];
  for (const [policy, last, expected, changes] of cases)
    assert.equal(endOf(policy, last, changes), expected, JSON.stringify({ last, changes }));
});

test('a definition may say all of it, and mistakes are named', () => {
  assert.deepEqual(retryViewOf(six), {
    ...{ attempts: 6, minDelay: '2m', maxDelay: '10m', jitter: 0.1 },
  });
  const later = retryPolicyOf(retrySchema.parse({ attempts: 2, minDelay: '1h', on: ['5xx'] }));
  assert.equal(later.maxDelayMs, 3_600_000, 'the most is never less than the least');
  assert.deepEqual(retryViewOf(later).on, ['5xx']);
  for (const [wrong, message] of [
    [{ attempts: 0 }, /expected number to be >=1/],
    [{ attempts: 101 }, /expected number to be <=100/],
    [{ attempts: 2, minDelay: '2d' }, /at most 1d/],
    [{ attempts: 2, minDelay: '2m', maxDelay: '1m' }, /minDelay is larger than maxDelay/],
    [{ attempts: 2, maxAge: '10ms' }, /at least 1s/],
    [{ attempts: 2, maxAge: '32d' }, /at most 31d/],
    [{ attempts: 2, on: ['slow'] }, /write a status \(429\), a class \(5xx\), or one of threw/],
    [{ attempts: 2, jitter: 2 }, /expected number to be <=1/],
    [{}, /attempts/],
  ] as const)
    assert.match(String(retrySchema.safeParse(wrong).error?.message), message);
});

test('Retry-After is seconds or a date', () => {
  const nowMs = Date.parse('2026-01-31T12:00:00Z');
  assert.equal(parseRetryAfter('120', nowMs), 120_000);
  assert.equal(parseRetryAfter('Sat, 31 Jan 2026 12:01:00 GMT', nowMs), 60_000);
  assert.equal(parseRetryAfter('Sat, 31 Jan 2026 11:00:00 GMT', nowMs), 0);
  assert.equal(parseRetryAfter('soon', nowMs), undefined);
});
