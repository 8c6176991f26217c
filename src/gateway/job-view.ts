/** An async call, whatever has become of it, as the control plane tells it. */
import type { InvocationView } from '../../client/api.ts';
import { isoOf } from '../domain/units.ts';
import type { CallTold } from '../queue/calls.ts';
import { attemptView } from '../queue/story-view.ts';
import type { StoredJob } from '../store/jobs.ts';

export function jobView(job: StoredJob, { about, attempts, result }: CallTold): InvocationView {
  const { id, namespace, state, acceptedMs, endedMs, dueMs, status, priority, parent } = job;
  const last = attempts.at(-1);
  const failure = result?.failure ?? last?.failure;
  return {
    ...{ id, namespace, function: about?.name ?? job.functionId, state },
    ...(last?.version !== undefined && { version: last.version }),
    ...(status !== undefined && { status }),
    ...{ origin: about?.trigger?.origin ?? 'async', caller: about?.caller ?? 'anonymous' },
    attempt: job.attempts + job.lost,
    ...{ method: about?.method ?? 'POST', path: about?.target ?? '/' },
    startedAt: isoOf(acceptedMs),
    ...(endedMs !== undefined && { durationMs: endedMs - acceptedMs, endedAt: isoOf(endedMs) }),
    attempts: attempts.map(attemptView),
    ...(dueMs !== undefined && { dueAt: isoOf(dueMs) }),
    priority,
    ...(last?.instance !== undefined && { instance: last.instance }),
    ...(parent !== undefined && { parent }),
    ...(about?.trigger !== undefined && { trigger: about.trigger.name }),
    ...(about?.label !== undefined && { label: about.label }),
    ...(failure !== undefined && state !== 'succeeded' && { failure }),
  };
}
