/** A try of a job, as it is told. */
import type { AttemptView } from '../../client/api.ts';
import type { Attempt } from './story.ts';

export function attemptView(attempt: Attempt): AttemptView {
  const { number, startedMs, tookMs, version, instance, status, failure, isGivenBack } = attempt;
  return {
    number,
    ...{ startedAt: new Date(startedMs).toISOString(), durationMs: tookMs, status },
    ...(version !== undefined && { version }),
    ...(instance !== undefined && { instance }),
    ...(failure !== undefined && { failure }),
    ...(isGivenBack && { givenBack: true }),
  };
}
