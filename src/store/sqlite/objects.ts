/** The facet `objects` in SQL, in the queue's file and thread: see jobs.ts. */
import type { ObjectRow, ObjectStore } from '../objects.ts';
import type { SqliteConnection } from './database.ts';
import type { SqliteJobs } from './jobs.ts';

type Row = Record<string, null | number | bigint | string | Uint8Array>;

/** The port's methods, without promises. */
export type ObjectMethods = {
  [K in keyof ObjectStore]: (
    ...args: Parameters<ObjectStore[K]>
  ) => Awaited<ReturnType<ObjectStore[K]>>;
};

export function createSqliteObjects(db: SqliteConnection['db'], jobs: SqliteJobs): ObjectMethods {
  const watch = db.prepare('INSERT OR IGNORE INTO buckets (id) VALUES (?)');
  const unwatch = db.prepare(`DELETE FROM buckets WHERE id = ?1
    AND NOT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1)`);
  const watched = db.prepare('SELECT id FROM buckets ORDER BY id');
  const find = db.prepare('SELECT content, metadata FROM objects WHERE bucket = ? AND key = ?');
  const put = db.prepare(
    'INSERT OR REPLACE INTO objects (bucket, key, content, metadata) VALUES (?, ?, ?, ?)',
  );
  const remove = db.prepare('DELETE FROM objects WHERE bucket = ? AND key = ?');
  // No text comes before the empty one, and no key is empty.
  const page = db.prepare(
    'SELECT key, content, metadata FROM objects WHERE bucket = ? AND key > ? ORDER BY key LIMIT ?',
  );
  const forget = db.prepare(`DELETE FROM objects WHERE bucket = ?1 AND key IN
    (SELECT key FROM objects WHERE bucket = ?1 ORDER BY key LIMIT ?2)`);
  return {
    observe(bucket, observations, nowMs) {
      if (!jobs.hasRoom(observations.flatMap(observation => observation.jobs))) return 'full';
      watch.run(bucket);
      let seen = 0;
      for (const { key, before, after, jobs: brought } of observations) {
        const stored = find.get(bucket, key) as Row | undefined;
        if (stored?.content !== before?.content || stored?.metadata !== before?.metadata) continue;
        if (after === undefined) remove.run(bucket, key);
        else put.run(bucket, key, after.content, after.metadata);
        for (const job of brought) jobs.accept(job, nowMs);
        seen++;
      }
      return seen;
    },
    objects: (bucket, { after = '', limit }) =>
      (page.all(bucket, after, limit) as Row[]).map(
        (row): ObjectRow => ({
          ...{ key: row.key as string, content: row.content as string },
          metadata: row.metadata as string,
        }),
      ),
    watched: () => (watched.all() as Row[]).map(({ id }) => id as string),
    unwatch(bucket, limit) {
      const removed = Number(forget.run(bucket, limit).changes);
      unwatch.run(bucket);
      return removed;
    },
  };
}
