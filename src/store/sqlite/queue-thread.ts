/**
 * The thread that has the queue's file. What has arrived while it was busy is one transaction and one sync of the disk;
 * each method in it stands for itself: one that fails leaves nothing, and the others hold. queue.ts is its other end.
 */
import type { StatementSync } from 'node:sqlite';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { isGatewayError } from '../../errors.ts';
import { jobMethods } from '../jobs.ts';
import { Checkpoints, walPagesMax } from './checkpoints.ts';
import { type Database, openDatabase, toGatewayError } from './database.ts';
import { Packer, type Parcel, Unpacker } from './hand-over.ts';
import { type JobMethods, SqliteJobs } from './jobs.ts';
import { Lanes } from './lanes.ts';
import { createSqliteMessages, type MessageMethods } from './messages.ts';
import { createSqliteObjects, type ObjectMethods } from './objects.ts';
import { queueMigrations } from './queue-migrations.ts';
import { createSqliteSchedules, type ScheduleMethods } from './schedules.ts';

/** Of all the file's facets. */
export type QueueMethods = JobMethods & ScheduleMethods & MessageMethods & ObjectMethods;

export interface Operation {
  method: keyof QueueMethods;
  args: unknown[];
}

/** Of a parcel: how many operations, then each one's method and arguments. */
export type ToQueueThread = { kind: 'do'; parcel: Parcel } | { kind: 'close' };

/** An error as another thread can have it. */
export interface ThreadError {
  message: string;
  /** Of a GatewayError. */
  code?: string;
  remedy?: string;
}

export type Result = { value: unknown } | { error: ThreadError };
/** Of a parcel: of each operation the error or nothing, then the answer where there is no error. */
export type FromQueueThread = { kind: 'done'; parcel: Parcel } | { kind: 'closed' };

class QueueThread {
  readonly #path: string;
  #open: Opened | undefined;
  /** Written so far. */
  #rows = 0;

  constructor(path: string) {
    this.#path = path;
  }

  do(parcel: Parcel): Parcel {
    const operations = unpackOperations(parcel);
    return packResults(operations, this.#doAll(operations));
  }

  /** Between two transactions, when whoever asked for one has its answer. */
  afterwards(bytes: number): void {
    if (this.#open === undefined) return;
    const { changes, checkpoints } = this.#open;
    const { rows } = changes.get() as { rows: number };
    checkpoints.wrote({ bytes, rows: rows - this.#rows });
    this.#rows = rows;
  }

  async close(): Promise<void> {
    await this.#open?.checkpoints.close();
    this.#open?.database.close();
  }

  #doAll(operations: Operation[]): Result[] {
    try {
      return this.#do(operations);
    } catch (error) {
      // The transaction as a whole: nothing of it remains.
      const failed = { error: asThreadError(error) };
      return operations.map(() => failed);
    }
  }

  #do(operations: Operation[]): Result[] {
    // Also after it could not be opened: the disk may have room again.
    this.#open ??= open(this.#path);
    const { connection } = this.#open.database;
    try {
      return connection.write(() => this.#open!.within(() => operations.map(this.#perform)));
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      return connection.write(() => operations.map(operation => this.#one(operation)));
    }
  }

  /** Throws `Failed`: then the transaction is tried once more, and what fails in it stands for itself. */
  readonly #perform = (operation: Operation): Result => {
    try {
      return { value: perform(this.#open!.methods, operation) };
    } catch (cause) {
      throw this.#open!.database.connection.db.isTransaction ? new Failed() : cause;
    }
  };

  #one(operation: Operation): Result {
    const { database, methods, within, savepoint, release, rollBack } = this.#open!;
    const { db } = database.connection;
    savepoint.run();
    try {
      const value = within(() => perform(methods, operation));
      release.run();
      return { value };
    } catch (error) {
      // A full disk has ended the transaction.
      if (!db.isTransaction) throw error;
      rollBack.run();
      release.run();
      return { error: asThreadError(toGatewayError(error, this.#path)) };
    }
  }
}

/** One of the transaction's methods. */
class Failed extends Error {}

function perform(methods: QueueMethods, { method, args }: Operation): unknown {
  return (methods[method] as (...args: unknown[]) => unknown)(...args);
}

interface Opened extends QueueFacets {
  database: Database;
  checkpoints: Checkpoints;
  changes: StatementSync;
  savepoint: StatementSync;
  release: StatementSync;
  rollBack: StatementSync;
}

function open(path: string): Opened {
  const database = openDatabase({ path, migrations: queueMigrations });
  const { db } = database.connection;
  // What is removed was sealed: it need not be written over.
  db.exec(`PRAGMA secure_delete = OFF; PRAGMA wal_autocheckpoint = ${walPagesMax}`);
  const rest = db.prepare('PRAGMA wal_checkpoint(PASSIVE)');
  return {
    ...{ database, ...createQueueFacets(db) },
    checkpoints: new Checkpoints({ path, foldRest: () => rest.get() }),
    changes: db.prepare('SELECT total_changes() AS rows'),
    savepoint: db.prepare('SAVEPOINT operation'),
    release: db.prepare('RELEASE operation'),
    rollBack: db.prepare('ROLLBACK TO operation'),
  };
}

function unpackOperations(parcel: Parcel): Operation[] {
  const unpacker = new Unpacker(parcel);
  return Array.from({ length: unpacker.cell() as number }, () => {
    const method = unpacker.cell() as keyof QueueMethods;
    return { method, args: unpacker.arguments(method) };
  });
}

function packResults(operations: readonly Operation[], results: readonly Result[]): Parcel {
  const packer = new Packer();
  for (const [i, result] of results.entries()) {
    packer.cell('error' in result ? result.error : undefined);
    if ('value' in result) packer.answer(operations[i]!.method, result.value);
  }
  return packer.parcel();
}

export interface QueueFacets {
  methods: QueueMethods;
  /** All that is done with the methods in one transaction. */
  within<T>(body: () => T): T;
}

/** The facets of one file: what one accepts, the others see. */
export function createQueueFacets(db: Database['connection']['db']): QueueFacets {
  const lanes = new Lanes(db);
  const jobs = new SqliteJobs(db, lanes);
  const ofJobs = Object.fromEntries(
    jobMethods.map(name => [name, (jobs[name] as () => unknown).bind(jobs)]),
  ) as unknown as JobMethods;
  return {
    methods: {
      ...ofJobs,
      ...createSqliteSchedules(db, jobs),
      ...createSqliteMessages(db, jobs),
      ...createSqliteObjects(db, jobs),
    },
    within: body => lanes.within(body),
  };
}

function asThreadError(error: unknown): ThreadError {
  const { message } = error as Error;
  return isGatewayError(error) ? { message, code: error.code, remedy: error.remedy } : { message };
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const thread = new QueueThread((workerData as { path: string }).path);
  port.on('message', message => {
    const asked = message as ToQueueThread;
    if (asked.kind === 'close') {
      void thread.close().finally(() => port.postMessage({ kind: 'closed' }));
      return;
    }
    const parcel = thread.do(asked.parcel);
    port.postMessage({ kind: 'done', parcel }, [parcel.bytes.buffer]);
    thread.afterwards(asked.parcel.bytes.length);
  });
}
