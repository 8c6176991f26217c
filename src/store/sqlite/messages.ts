/** The facet `messages` in SQL, in the queue's file and thread: see jobs.ts, which has what deliveries name. */
import type { MessageStore, NewMessage } from '../messages.ts';
import type { SqliteConnection } from './database.ts';
import type { SqliteJobs } from './jobs.ts';

type Row = Record<string, null | number | bigint | string | Uint8Array>;

/** The port's methods, without promises. */
export type MessageMethods = {
  [K in keyof MessageStore]: (
    ...args: Parameters<MessageStore[K]>
  ) => Awaited<ReturnType<MessageStore[K]>>;
};

export function createSqliteMessages(db: SqliteConnection['db'], jobs: SqliteJobs): MessageMethods {
  const page = db.prepare(`SELECT * FROM messages
    WHERE topic = ? AND published_ms >= ? AND (published_ms, id) > (?, ?)
    ORDER BY published_ms, id LIMIT ?`);
  return {
    publish({ messages, deliveries }, nowMs) {
      if (!jobs.hasRoom(deliveries)) return 'full';
      for (const message of messages) jobs.addMessage(message);
      for (const job of deliveries) jobs.accept(job, nowMs);
      return 'accepted';
    },
    messages: ({ topic, sinceMs, after = { publishedMs: -1, id: '' }, limit }) =>
      (page.all(topic, sinceMs, after.publishedMs, after.id, limit) as Row[]).map(toMessage),
    seek: ({ lane, sinceMs, deliveries }, nowMs) => jobs.replace(lane, sinceMs, deliveries, nowMs),
  };
}

function toMessage(row: Row): NewMessage {
  return {
    id: row.id as string,
    topic: row.topic as string,
    publishedMs: row.published_ms as number,
    keepUntilMs: row.keep_until_ms as number,
    ...(row.sealed !== null && { sealed: row.sealed as Uint8Array }),
    ...(row.blob !== null && { blob: row.blob as string }),
  };
}
