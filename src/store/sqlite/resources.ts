/** The facet `resources` of the SQLite store. */
import type { ResourceKind } from '../../domain/resource.ts';
import type { ResourceRow, ResourceStore } from '../store.ts';
import type { SqliteConnection } from './database.ts';

export function createSqliteResources(connection: SqliteConnection): ResourceStore {
  const { db } = connection;
  const nextRevision = db.prepare(
    `UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value`,
  );
  const find = db.prepare('SELECT revision FROM resources WHERE id = ?');
  const taken = db.prepare(
    'SELECT 1 FROM resources WHERE kind = ? AND namespace = ? AND name = ? AND id <> ?',
  );
  const put = db.prepare(`INSERT OR REPLACE INTO resources
    (id, kind, namespace, name, sealed_spec, is_paused, since_ms, created_ms, updated_ms, revision)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
  const remove = db.prepare('DELETE FROM resources WHERE id = ?');
  const list = db.prepare('SELECT * FROM resources ORDER BY id');
  return {
    put: async (row, expected) =>
      connection.write(() => {
        const { id, kind, namespace, name } = row;
        if (find.get(id)?.revision !== expected.revision) return 'conflict';
        if (taken.get(kind, namespace, name, id) !== undefined) return 'conflict';
        const revision = nextRevision.get()!.value as number;
        put.run(
          ...[id, kind, namespace, name, row.sealedSpec, row.isPaused ? 1 : 0, row.sinceMs],
          ...[row.createdMs, row.updatedMs, revision],
        );
        return { ...row, revision };
      }),
    remove: async id => connection.write(() => remove.run(id).changes === 1),
    list: async () =>
      connection.read(() =>
        list.all().map(
          (columns): ResourceRow => ({
            id: columns.id as string,
            kind: columns.kind as ResourceKind,
            namespace: columns.namespace as string,
            name: columns.name as string,
            sealedSpec: columns.sealed_spec as Uint8Array,
            isPaused: columns.is_paused === 1,
            sinceMs: columns.since_ms as number,
            createdMs: columns.created_ms as number,
            updatedMs: columns.updated_ms as number,
            revision: columns.revision as number,
          }),
        ),
      ),
  };
}
