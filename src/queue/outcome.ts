/** What a try makes of a job: the settlement, but for its bytes. Pure. */
import { type JobEnd, judge, type RetryPolicy, type Try } from '../domain/retry.ts';

export interface Tried {
  last: Try;
  givenBackMs?: number;
}

export type Next =
  | { kind: 'end'; state: JobEnd; isCounted: boolean }
  | { kind: 'retry'; dueMs: number; isCounted: boolean };

/** After so many tries whose gateway was gone before they ended, a job is not tried again: it may be what ends gateways. */
export const lostMax = 3;
export function nextOf(
  /** `acceptedMs`: or when it was due first, where that was later. */
  job: { attempts: number; lost: number; acceptedMs: number },
  policy: RetryPolicy,
  { last, givenBackMs }: Tried,
  { nowMs, random }: { nowMs: number; random: number },
): Next {
  if (job.lost >= lostMax) return { kind: 'end', state: 'dead', isCounted: false };
  if (givenBackMs !== undefined) {
    const isTooOld = nowMs + givenBackMs > job.acceptedMs + (policy.maxAgeMs ?? Number.MAX_VALUE);
    // A gateway that stops says nothing about a job.
    if (isTooOld && givenBackMs > 0) return { kind: 'end', state: 'dead', isCounted: false };
    return { kind: 'retry', dueMs: nowMs + givenBackMs, isCounted: false };
  }
  const { acceptedMs } = job;
  const verdict = judge(policy, last, { number: job.attempts + 1, acceptedMs, nowMs, random });
  if ('end' in verdict) return { kind: 'end', state: verdict.end, isCounted: true };
  return { kind: 'retry', dueMs: verdict.retryAtMs, isCounted: true };
}
