/** Messages in memory: the executable specification of the facet. */
import type { MemoryJobs } from './memory-jobs.ts';
import type { MessageStore } from './messages.ts';

export function createMemoryMessages(jobs: MemoryJobs): MessageStore {
  return {
    async publish({ messages, deliveries }, nowMs) {
      if (!jobs.hasRoom(deliveries)) return 'full';
      for (const message of messages) jobs.addMessage(message);
      for (const job of deliveries) jobs.accept(job, nowMs);
      return 'accepted';
    },
    async messages({ topic, sinceMs, after, limit }) {
      return [...jobs.messages()]
        .filter(message => message.topic === topic && message.publishedMs >= sinceMs)
        .filter(
          ({ publishedMs, id }) =>
            after === undefined ||
            publishedMs > after.publishedMs ||
            (publishedMs === after.publishedMs && id > after.id),
        )
        .sort((a, b) => a.publishedMs - b.publishedMs || (a.id < b.id ? -1 : 1))
        .slice(0, limit)
        .map(message => ({ ...message }));
    },
    seek: async ({ lane, sinceMs, deliveries }, nowMs) =>
      jobs.replace(lane, sinceMs, deliveries, nowMs),
  };
}
