/** Objects in memory: the executable specification of the facet. */
import type { MemoryJobs } from './memory-jobs.ts';
import type { ObjectRow, ObjectState, ObjectStore } from './objects.ts';

export function createMemoryObjects(jobs: MemoryJobs): ObjectStore {
  const buckets = new Map<string, Map<string, ObjectState>>();
  const inOrder = (bucket: string): ObjectRow[] =>
    [...(buckets.get(bucket) ?? [])]
      .map(([key, state]) => ({ key, ...state }))
      .sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  return {
    async observe(bucket, observations, nowMs) {
      if (!jobs.hasRoom(observations.flatMap(observation => observation.jobs))) return 'full';
      const noted = buckets.get(bucket) ?? new Map<string, ObjectState>();
      buckets.set(bucket, noted);
      let seen = 0;
      for (const { key, before, after, jobs: brought } of observations) {
        const stored = noted.get(key);
        if (stored?.content !== before?.content || stored?.metadata !== before?.metadata) continue;
        if (after === undefined) noted.delete(key);
        else noted.set(key, { content: after.content, metadata: after.metadata });
        for (const job of brought) jobs.accept(job, nowMs);
        seen++;
      }
      return seen;
    },
    objects: async (bucket, { after, limit }) =>
      inOrder(bucket)
        .filter(
          ({ key }) =>
            after === undefined || Buffer.compare(Buffer.from(key), Buffer.from(after)) > 0,
        )
        .slice(0, limit),
    watched: async () => [...buckets.keys()].sort(),
    async unwatch(bucket, limit) {
      const gone = inOrder(bucket).slice(0, limit);
      for (const { key } of gone) buckets.get(bucket)!.delete(key);
      if (buckets.get(bucket)?.size === 0) buckets.delete(bucket);
      return gone.length;
    },
  };
}
