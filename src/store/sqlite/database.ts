/**
 * One SQLite file (node:sqlite): opening, migrating, transactions, and what its errors mean. The facets (functions.ts and
 * its siblings) hold the SQL. What a method acknowledged survives a power cut: the log is synced at every commit
 * (synchronous=FULL). The file holds secrets, sealed, and is for its owner only.
 *
 * Calls are synchronous inside, so those of one store never overlap; other stores on the file, also
 * of other processes, wait for one another, up to a limit.
 */
import { chmodSync, closeSync, fsyncSync, openSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { assert, GatewayError, isGatewayError } from '../../errors.ts';
import { openRule } from '../rules.ts';
import { diskFull } from '../store.ts';
import { applicationId } from './migrations.ts';

/** Long enough for any transaction of ours, which take well under a millisecond each. */
const busyTimeoutMsDefault = 5000;

/** One connection, as the facets see it. */
export interface SqliteConnection {
  /** For preparing statements, once. */
  readonly db: DatabaseSync;
  /** Runs `body` in one transaction that may write. When it throws, nothing remains of it. */
  write<T>(body: () => T): T;
  /** Runs `body`, one SELECT: that is a transaction by itself and waits for no writer. */
  read<T>(body: () => T): T;
}

export interface Database {
  readonly connection: SqliteConnection;
  /** The last connection to close also folds the log into the file. Idempotent. */
  close(): void;
}

/**
 * Opens a file, making or migrating it. Throws DATA_DIRECTORY_UNUSABLE when it cannot be used: not ours, damaged, made by
 * a newer fnway; DATA_DIRECTORY_LOCKED when another program holds it.
 */
export function openDatabase(options: {
  path: string;
  migrations: readonly string[];
  busyTimeoutMs?: number | undefined;
}): Database {
  const { path: file, migrations, busyTimeoutMs: timeout = busyTimeoutMsDefault } = options;
  let db: DatabaseSync | undefined;
  try {
    makeFile(file);
    const opened = new DatabaseSync(file, { timeout, enableForeignKeyConstraints: true });
    db = opened;
    prepareDatabase(opened, { file, migrations });
    restrictFiles(file);
    const connection = createConnection(opened, file);
    return { connection, close: () => opened.isOpen && opened.close() };
  } catch (error) {
    if (db?.isOpen) db.close();
    throw toGatewayError(error, file);
  }
}

/** What it is about: a file, and the list of its changes. */
interface Opening {
  file: string;
  migrations: readonly string[];
}

/**
 * Before SQLite opens it, which would make it readable to all; -wal and -shm take its mode over.
 */
function makeFile(file: string): void {
  closeSync(openSync(file, 'a', 0o600));
  const directory = openSync(path.dirname(file), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

function prepareDatabase(db: DatabaseSync, { file, migrations }: Opening): void {
  // Looked at before anything is written: a database that is not ours stays as it is.
  assertUsable(db, { file, migrations });
  const mode = readPragma(db, 'journal_mode = WAL');
  if (mode !== 'wal') {
    throw unusable(file, `its file system does not support a write-ahead log (mode ${mode})`);
  }
  db.exec('PRAGMA synchronous = FULL');
  // What a migration drops must not stay readable in free pages.
  db.exec('PRAGMA secure_delete = ON');
  while (Number(readPragma(db, 'user_version')) < migrations.length)
    migrateOnce(db, { file, migrations });
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
}

function assertUsable(db: DatabaseSync, { file, migrations }: Opening): void {
  const version = Number(readPragma(db, 'user_version'));
  const owner = readPragma(db, 'application_id');
  const { tables } = db.prepare('SELECT count(*) AS tables FROM sqlite_schema').get()!;
  const isNew = owner === 0 && version === 0 && tables === 0;
  if (owner !== applicationId && !isNew) {
    throw unusable(file, 'it is a database of another program');
  }
  if (version <= migrations.length) return;
  throw unusable(
    file,
    `it was written by a newer fnway (schema ${version}; this one knows ${migrations.length})`,
    'Use that version of fnway or a later one, or another --data directory.',
  );
}

/**
 * One migration, one transaction. Another process may have been first, so the version is read
 * inside.
 */
function migrateOnce(db: DatabaseSync, { file, migrations }: Opening): void {
  db.exec('BEGIN IMMEDIATE');
  try {
    assertUsable(db, { file, migrations });
    const version = Number(readPragma(db, 'user_version'));
    const sql = migrations[version];
    if (sql !== undefined) {
      db.exec(sql);
      db.exec(`PRAGMA application_id = ${applicationId}`);
      db.exec(`PRAGMA user_version = ${version + 1}`);
    }
    db.exec('COMMIT');
  } catch (error) {
    rollBack(db);
    throw error;
  }
}

/** Also for files that an earlier umask, a copy or a restored backup left open to others. */
function restrictFiles(file: string): void {
  chmodSync(file, 0o600);
  for (const suffix of ['-wal', '-shm']) {
    try {
      chmodSync(`${file}${suffix}`, 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

function createConnection(db: DatabaseSync, file: string): SqliteConnection {
  const [begin, commit] = [db.prepare('BEGIN IMMEDIATE'), db.prepare('COMMIT')];
  return {
    db,
    write(body) {
      assert(db.isOpen, openRule);
      try {
        begin.run();
        const result = body();
        commit.run();
        return result;
      } catch (error) {
        rollBack(db);
        throw toGatewayError(error, file);
      }
    },
    read(body) {
      assert(db.isOpen, openRule);
      try {
        return body();
      } catch (error) {
        throw toGatewayError(error, file);
      }
    },
  };
}

/** Some failures, as of a full disk, have rolled back by themselves. */
function rollBack(db: DatabaseSync): void {
  if (db.isTransaction) db.exec('ROLLBACK');
}

function readPragma(db: DatabaseSync, pragma: string): SQLInputValue | undefined {
  return Object.values(db.prepare(`PRAGMA ${pragma}`).get() ?? {})[0];
}

/** Primary result codes of SQLite that tell of the machine, not of our SQL. */
const meanings: Record<number, string> = {
  8: 'it cannot be written',
  10: 'the disk failed',
  11: 'it is damaged',
  13: diskFull,
  14: 'it cannot be opened',
  26: 'it is not a database, or is damaged',
};
const busyCode = 5;

/** Errors that are neither of SQLite nor of the file system are ours, and stay as they are. */
export function toGatewayError(error: unknown, file: string): unknown {
  if (!(error instanceof Error) || isGatewayError(error)) return error;
  const { code, errcode, message } = error as Error & { code?: string; errcode?: number };
  if (code === 'ERR_SQLITE_ERROR' && errcode !== undefined) {
    const primary = errcode & 0xff;
    if (primary === busyCode) {
      const detail = `${file}: another program holds it for too long.`;
      return new GatewayError('DATA_DIRECTORY_LOCKED', detail, { cause: error });
    }
    const meaning = meanings[primary];
    return meaning === undefined ? error : unusable(file, meaning, undefined, error);
  }
  return 'syscall' in error ? unusable(file, message, undefined, error) : error;
}

function unusable(file: string, why: string, remedy?: string, cause?: unknown): GatewayError {
  const advice =
    remedy ?? (why.includes('damaged') ? 'Restore it from a backup, or move it away.' : undefined);
  return new GatewayError('DATA_DIRECTORY_UNUSABLE', `${file}: ${why}.`, {
    cause,
    ...(advice !== undefined && { remedy: advice }),
  });
}
