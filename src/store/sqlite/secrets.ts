/** The facet `secrets` of the SQLite store. */
import type { SecretRow, SecretStore } from '../store.ts';
import type { SqliteConnection } from './database.ts';

export function createSqliteSecrets(connection: SqliteConnection): SecretStore {
  const { db } = connection;
  const put = db.prepare(`INSERT INTO secrets (namespace, name, sealed_value, updated_ms)
    VALUES (?, ?, ?, ?) ON CONFLICT (namespace, name)
    DO UPDATE SET sealed_value = excluded.sealed_value, updated_ms = excluded.updated_ms`);
  const found = db.prepare(
    'SELECT count(*) AS found FROM secrets WHERE namespace = ? AND name = ?',
  );
  const remove = db.prepare('DELETE FROM secrets WHERE namespace = ? AND name = ?');
  const list = db.prepare('SELECT * FROM secrets ORDER BY namespace, name');
  return {
    put: async row =>
      connection.write(() => {
        const isNew = found.get(row.namespace, row.name)!.found === 0;
        put.run(row.namespace, row.name, row.sealedValue, row.updatedMs);
        return isNew ? 'created' : 'updated';
      }),
    remove: async (namespace, name) =>
      connection.write(() => remove.run(namespace, name).changes === 1),
    list: async () =>
      connection.read(() =>
        list.all().map(
          (columns): SecretRow => ({
            namespace: columns.namespace as string,
            name: columns.name as string,
            sealedValue: columns.sealed_value as Uint8Array,
            updatedMs: columns.updated_ms as number,
          }),
        ),
      ),
  };
}
