/**
 * When a job is tried again, and what it comes to when it is not. Pure: told the time and the randomness.
 */
import { z } from 'zod';
import type { RetryView } from '../../client/api.ts';
import { failureReasons } from '../../client/errors.ts';
import { durationSchema } from './duration.ts';
import { formatDuration } from './units.ts';

export interface RetryPolicy {
  /** Tries in all, the first one included. */
  attempts: number;
  /** Before the second try; doubles with each further one, up to the maximum. */
  minDelayMs: number;
  maxDelayMs: number;
  /** Up to this share of the delay is added at random, so that what failed together does not come back together. */
  jitter: number;
  /** Since it was accepted: beyond, it is not tried again. */
  maxAgeMs?: number;
  /** What is worth another try: statuses (`429`), classes of them (`5xx`) and reasons (`timeout`). */
  on: string[];
}

export const retryLimits = {
  attemptsMax: 100,
  delayMsMax: 86_400_000,
  maxAgeMsMax: 31 * 86_400_000,
} as const;

/** Answers that ask for another try, and every way in which a function fails without an answer of its own. */
export const retriedDefault: readonly string[] = ['408', '429', '5xx', ...failureReasons];

/** Why a function could not be tried, or not to its end, where it is not the function's own doing. */
const platformReason = /^[A-Z_]+$/;

/** Of a function whose definition says nothing: one try. */
export const noRetry: RetryPolicy = {
  attempts: 1,
  minDelayMs: 10_000,
  maxDelayMs: 600_000,
  jitter: 0.1,
  on: [...retriedDefault],
};

const delaySchema = durationSchema.pipe(
  z.number().min(0).max(retryLimits.delayMsMax, 'at most 1d'),
);

export const retrySchema = z
  .strictObject({
    attempts: z.int().min(1).max(retryLimits.attemptsMax),
    minDelay: delaySchema.optional(),
    maxDelay: delaySchema.optional(),
    jitter: z.number().min(0).max(1).optional(),
    maxAge: durationSchema
      .pipe(z.number().min(1000, 'at least 1s').max(retryLimits.maxAgeMsMax, 'at most 31d'))
      .optional(),
    on: z
      .array(
        z
          .string()
          .refine(
            text =>
              /^[1-5](?:\d\d|xx)$/.test(text) ||
              (failureReasons as readonly string[]).includes(text),
            `write a status (429), a class (5xx), or one of ${failureReasons.join(', ')}`,
          ),
      )
      .min(1)
      .max(64)
      .optional(),
  })
  .refine(
    ({ minDelay = noRetry.minDelayMs, maxDelay = Math.max(noRetry.maxDelayMs, minDelay) }) =>
      minDelay <= maxDelay,
    'minDelay is larger than maxDelay',
  );

/** The policy that a definition's `retry` asks for. */
export function retryPolicyOf(given: z.output<typeof retrySchema>): RetryPolicy {
  const { attempts, minDelay = noRetry.minDelayMs, jitter, maxAge, on } = given;
  return {
    attempts,
    minDelayMs: minDelay,
    maxDelayMs: given.maxDelay ?? Math.max(noRetry.maxDelayMs, minDelay),
    jitter: jitter ?? noRetry.jitter,
    ...(maxAge !== undefined && { maxAgeMs: maxAge }),
    on: on ?? [...retriedDefault],
  };
}

/** As a definition would say it. */
export function retryViewOf(policy: RetryPolicy): RetryView {
  const { attempts, minDelayMs, maxDelayMs, jitter, maxAgeMs, on } = policy;
  return {
    attempts,
    minDelay: formatDuration(minDelayMs),
    maxDelay: formatDuration(maxDelayMs),
    jitter,
    ...(maxAgeMs !== undefined && { maxAge: formatDuration(maxAgeMs) }),
    ...(on.join() !== retriedDefault.join() && { on }),
  };
}

/** How one try of a job ended. */
export interface Try {
  /** As the caller of a function sees it: its own, or 502 or 504 where it failed. */
  status: number;
  /** How it failed; absent where it answered. */
  reason?: string;
  /** The caller's mistake, or an error that says of itself that another try is of no use. */
  isTerminal?: boolean;
  /** What the answer asked to be waited for. */
  retryAfterMs?: number;
}

export type JobEnd = 'succeeded' | 'failed' | 'dead';
export type Verdict = { end: JobEnd } | { retryAtMs: number };

/**
 * What a try that has ended makes of its job. `number`: of this try, those that were lost with their gateway not counted.
 * `random` is from 0 up to 1.
 */
export function judge(
  policy: RetryPolicy,
  last: Try,
  facts: { number: number; acceptedMs: number; nowMs: number; random: number },
): Verdict {
  if (last.reason === undefined && last.status < 400) return { end: 'succeeded' };
  if (last.isTerminal || !isRetried(policy, last)) return { end: 'failed' };
  const hasRetries = policy.attempts > 1;
  if (facts.number >= policy.attempts) return { end: hasRetries ? 'dead' : 'failed' };
  const delayMs = Math.max(
    delayBefore(policy, facts.number + 1, facts.random),
    Math.min(last.retryAfterMs ?? 0, retryLimits.delayMsMax),
  );
  const retryAtMs = facts.nowMs + delayMs;
  if (policy.maxAgeMs !== undefined && retryAtMs > facts.acceptedMs + policy.maxAgeMs)
    return { end: 'dead' };
  return { retryAtMs };
}

/** Milliseconds between the try before and this one; `number` is 2 or more. */
export function delayBefore(policy: RetryPolicy, number: number, random: number): number {
  const base = Math.min(policy.maxDelayMs, policy.minDelayMs * 2 ** Math.min(number - 2, 40));
  return Math.round(base * (1 + policy.jitter * random));
}

function isRetried({ on }: RetryPolicy, { status, reason }: Try): boolean {
  // What the platform could not do is worth another try, whatever the function asks for.
  if (reason !== undefined) return platformReason.test(reason) || on.includes(reason);
  return on.includes(String(status)) || on.includes(`${Math.floor(status / 100)}xx`);
}

/** Of a Retry-After header: seconds, or a date. Undefined where it is neither. */
export function parseRetryAfter(text: string, nowMs: number): number | undefined {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
