/**
 * The thread that has the queue's file. What has arrived while it was busy is one transaction and one sync of the disk;
 * each method in it stands for itself: one that fails leaves nothing, and the others hold. queue.ts is its other end.
 */
import type { StatementSync } from 'node:sqlite';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { isGatewayError } from '../../errors.ts';
import { jobMethods } from '../jobs.ts';
import { type Database, openDatabase, toGatewayError } from './database.ts';
import { type JobMethods, SqliteJobs } from './jobs.ts';
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

export type ToQueueThread = { kind: 'do'; operations: Operation[] } | { kind: 'close' };

/** An error as another thread can have it. */
export interface ThreadError {
  message: string;
  /** Of a GatewayError. */
  code?: string;
  remedy?: string;
}

export type Result = { value: unknown } | { error: ThreadError };
export type FromQueueThread = { kind: 'done'; results: Result[] } | { kind: 'closed' };

class QueueThread {
  readonly #path: string;
  #open: Opened | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  receive(message: ToQueueThread): FromQueueThread {
    if (message.kind === 'close') {
      this.#open?.database.close();
      return { kind: 'closed' };
    }
    const { operations } = message;
    try {
      return { kind: 'done', results: this.#do(operations) };
    } catch (error) {
      // The transaction as a whole: nothing of it remains.
      const failed = { error: asThreadError(error) };
      return { kind: 'done', results: operations.map(() => failed) };
    }
  }

  #do(operations: Operation[]): Result[] {
    // Also after it could not be opened: the disk may have room again.
    this.#open ??= open(this.#path);
    const { connection } = this.#open.database;
    return connection.write(() => operations.map(operation => this.#one(operation)));
  }

  #one({ method, args }: Operation): Result {
    const { database, methods, savepoint, release, rollBack } = this.#open!;
    const { db } = database.connection;
    savepoint.run();
    try {
      const value = (methods[method] as (...args: unknown[]) => unknown)(...args);
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

interface Opened {
  database: Database;
  methods: QueueMethods;
  savepoint: StatementSync;
  release: StatementSync;
  rollBack: StatementSync;
}

/** Pages of the log that are folded into the file at once: while that goes on, nothing is accepted. */
const checkpointPages = 8000;

function open(path: string): Opened {
  const database = openDatabase({ path, migrations: queueMigrations });
  const { db } = database.connection;
  // What is removed was sealed: it need not be written over.
  db.exec(`PRAGMA secure_delete = OFF; PRAGMA wal_autocheckpoint = ${checkpointPages}`);
  return {
    ...{ database, methods: createQueueMethods(db) },
    savepoint: db.prepare('SAVEPOINT operation'),
    release: db.prepare('RELEASE operation'),
    rollBack: db.prepare('ROLLBACK TO operation'),
  };
}

/** The facets of one file: what one accepts, the others see. */
export function createQueueMethods(db: Database['connection']['db']): QueueMethods {
  const jobs = new SqliteJobs(db);
  const ofJobs = Object.fromEntries(
    jobMethods.map(name => [name, (jobs[name] as () => unknown).bind(jobs)]),
  ) as unknown as JobMethods;
  return {
    ...ofJobs,
    ...createSqliteSchedules(db, jobs),
    ...createSqliteMessages(db, jobs),
    ...createSqliteObjects(db, jobs),
  };
}

function asThreadError(error: unknown): ThreadError {
  const { message } = error as Error;
  return isGatewayError(error) ? { message, code: error.code, remedy: error.remedy } : { message };
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const thread = new QueueThread((workerData as { path: string }).path);
  port.on('message', message => port.postMessage(thread.receive(message as ToQueueThread)));
}
