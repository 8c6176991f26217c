/**
 * The store in SQLite: definitions in one file, read and written in this thread; the queue in another, which a thread of
 * its own commits, so that no call waits for a disk.
 */
import { dirname, join } from 'node:path';
import type { Store } from '../store.ts';
import { openDatabase } from './database.ts';
import { createSqliteFunctions } from './functions.ts';
import { migrations } from './migrations.ts';
import { openQueue } from './queue.ts';
import { createSqliteResources } from './resources.ts';
import { createSqliteSecrets } from './secrets.ts';

/** Beside the file of definitions. */
export const queueFile = 'queue.db';

/** Opens the store, making or migrating the files. Throws as `openDatabase`; what is wrong with the queue, its methods do. */
export function openSqliteStore(options: { path: string; busyTimeoutMs?: number }): Store {
  const { path, busyTimeoutMs } = options;
  const { connection, close } = openDatabase({ path, migrations, busyTimeoutMs });
  const queue = openQueue(join(dirname(path), queueFile));
  return {
    functions: createSqliteFunctions(connection),
    secrets: createSqliteSecrets(connection),
    resources: createSqliteResources(connection),
    ...{ jobs: queue.jobs, schedules: queue.schedules, messages: queue.messages },
    objects: queue.objects,
    async close() {
      await queue.close();
      close();
    },
  };
}
