/**
 * Records in SQLite files of their own, written by a thread of their own. What comes is put behind one another as bytes
 * and handed over a few times a second, or when there is a batch of it; a question is asked behind what was written
 * before. Bounded: when the thread falls behind, successful records go first, then all.
 */
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../../clock.ts';
import type { Retention } from '../../config.ts';
import type { InvocationRecord, LogLine, RecordSubject } from '../../domain/record.ts';
import { GatewayError } from '../../errors.ts';
import type { Log } from '../../log.ts';
import type {
  LineQuery,
  RecordedBodies,
  RecordPage,
  RecordQuery,
  RecordStore,
} from '../records.ts';
import { bodiesRoom, type ItemKind, ItemWriter } from './items.ts';
import type { Answer, FromWorker, Question, ToWorker, WorkerSettings } from './worker.ts';

export const writeLimits = {
  /** What is handed over at once. */
  batchBytesMax: 262_144,
  /** Longest that something waits: what a crash may lose. */
  flushMsMax: 200,
  /** Handed over and not written: beyond, records of calls that succeeded are dropped. */
  unwrittenBytesMax: 8 * 1024 ** 2,
  /** Beyond, everything is dropped. */
  unwrittenBytesLargest: 32 * 1024 ** 2,
} as const;

/** Batches up to this are copied out of their memory, which is then used again. */
const copiedBytesMax = 16_384;
/** After a thread has ended by itself: it would most likely end again. */
const restartMs = 10_000;
/** How often what is too old is looked for, while nothing is written. */
const retainMs = 60_000;

export interface SqliteRecordsOptions {
  directory: string;
  keyFile: string;
  retention: Record<ItemKind, Retention>;
  clock: Clock;
  log: Log;
}

export function createSqliteRecords(options: SqliteRecordsOptions): RecordStore {
  return new SqliteRecords(options);
}

class SqliteRecords implements RecordStore {
  readonly dropped = { records: 0, lines: 0, bodies: 0 };
  readonly #options: SqliteRecordsOptions;
  /** Started with the first thing to write or to find: a gateway that is not called has no use for it. */
  #worker: Worker | undefined;
  #writer = new ItemWriter(writeLimits.batchBytesMax);
  /** Of functions, by their ids, in the order of `#subjects`. */
  readonly #numbers = new Map<string, number>();
  readonly #subjects: RecordSubject[] = [];
  #newSubjects: RecordSubject[] = [];
  #lastSubject: RecordSubject | undefined;
  #lastNumber = -1;
  #unwritten = 0;
  /** No other thread is started before then. */
  #restartAtMs = 0;
  #timer: Timer | undefined;
  #retainTimer: Timer | undefined;
  readonly #asked = new Map<number, (message: FromWorker & { kind: 'answer' }) => void>();
  #lastAsked = 0;
  #closed: Promise<void> | undefined;
  #onClosed: (() => void) | undefined;

  constructor(options: SqliteRecordsOptions) {
    this.#options = options;
  }

  record(record: InvocationRecord): void {
    const bytesMax =
      record.state === 'succeeded'
        ? writeLimits.unwrittenBytesMax
        : writeLimits.unwrittenBytesLargest;
    const number = this.#numberOf(record.subject);
    if (this.#unwritten > bytesMax) this.dropped.records++;
    // Nearly always there is room: no function is made for the case that there is not.
    else if (this.#timer !== undefined && this.#writer.record(record, number)) return;
    else if (!this.#add(writer => writer.record(record, number))) this.dropped.records++;
  }

  line(line: LogLine): void {
    const number = this.#numberOf(line.subject);
    const isFull = this.#unwritten > writeLimits.unwrittenBytesLargest;
    if (isFull || !this.#add(writer => writer.line(line, number))) this.dropped.lines++;
  }

  bodies(kept: RecordedBodies): void {
    const number = this.#numberOf(kept.subject);
    const isFull = this.#unwritten > writeLimits.unwrittenBytesMax;
    const room = bodiesRoom(kept);
    if (isFull || !this.#add(writer => writer.bodies(kept, number), room)) this.dropped.bodies++;
  }

  list(query: RecordQuery): Promise<RecordPage> {
    return this.#ask({ about: 'list', query }) as Promise<RecordPage>;
  }

  get(id: string): Promise<InvocationRecord | undefined> {
    return this.#ask({ about: 'get', id }) as Promise<InvocationRecord | undefined>;
  }

  lines(query: LineQuery): Promise<LogLine[]> {
    return this.#ask({ about: 'lines', query }) as Promise<LogLine[]>;
  }

  bodiesOf(id: string): Promise<RecordedBodies | undefined> {
    return this.#ask({ about: 'bodies', id }) as Promise<RecordedBodies | undefined>;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  get #isDown(): boolean {
    return this.#worker === undefined && this.#options.clock.monotonicMs() < this.#restartAtMs;
  }

  /** False when there is no room even in a batch of its own, or nobody to write it. */
  #add(write: (writer: ItemWriter) => boolean, room = itemBytesMax): boolean {
    if (this.#closed !== undefined || this.#isDown) return false;
    if (!write(this.#writer)) {
      this.#flush();
      if (!write(this.#writer)) {
        const larger = new ItemWriter(room);
        if (!write(larger)) return false;
        this.#writer = larger;
        this.#flush();
        return true;
      }
    }
    this.#timer ??= this.#options.clock.after(writeLimits.flushMsMax, this.#flush, { unref: true });
    return true;
  }

  readonly #flush = (): void => {
    this.#timer?.cancel();
    this.#timer = undefined;
    const writer = this.#writer;
    const { used } = writer;
    if (used === 0) return;
    if (this.#isDown) {
      // What it holds was counted as kept: a few of many that are lost.
      writer.clear();
      return;
    }
    let bytes: ArrayBuffer;
    if (used <= copiedBytesMax && writer.bytes.length === writeLimits.batchBytesMax) {
      bytes = new Uint8Array(writer.bytes.subarray(0, used)).buffer;
      writer.clear();
    } else {
      bytes = writer.bytes.buffer as ArrayBuffer;
      this.#writer = new ItemWriter(writeLimits.batchBytesMax);
    }
    this.#unwritten += used;
    const subjects = this.#newSubjects;
    this.#newSubjects = [];
    const nowMs = this.#options.clock.now();
    this.#post({ kind: 'batch', bytes, used, subjects, nowMs }, [bytes]);
  };

  #numberOf(given: RecordSubject): number {
    // Often the one of the last call.
    if (given === this.#lastSubject) return this.#lastNumber;
    const { functionId } = given;
    const number = this.#numbers.get(functionId) ?? this.#newNumber(given);
    this.#lastSubject = given;
    this.#lastNumber = number;
    return number;
  }

  #newNumber({ functionId, namespace, name }: RecordSubject): number {
    const number = this.#numbers.size;
    const subject = { functionId, namespace, name };
    this.#numbers.set(functionId, number);
    this.#subjects.push(subject);
    this.#newSubjects.push(subject);
    return number;
  }

  #ask(question: Question): Promise<Answer> {
    if (this.#closed !== undefined) {
      const detail = 'the gateway is stopping';
      return Promise.reject(new GatewayError('GATEWAY_STOPPING', detail));
    }
    if (this.#isDown) {
      const detail = 'the thread that reads records has ended; it is started again in a moment';
      return Promise.reject(new GatewayError('DATA_DIRECTORY_UNUSABLE', detail));
    }
    this.#flush();
    return new Promise((resolve, reject) => {
      const id = ++this.#lastAsked;
      this.#asked.set(id, ({ value, error }) => {
        this.#asked.delete(id);
        if (this.#asked.size === 0) this.#worker?.unref();
        if (error === undefined) resolve(value);
        else reject(new GatewayError('DATA_DIRECTORY_UNUSABLE', `records: ${error}`));
      });
      this.#post({ kind: 'ask', id, question });
      this.#worker?.ref();
    });
  }

  #post(message: ToWorker, transfer: ArrayBuffer[] = []): void {
    this.#worker ??= this.#start();
    this.#worker.postMessage(message, transfer);
  }

  #start(): Worker {
    const { directory, keyFile, retention, clock } = this.#options;
    const workerData: WorkerSettings = { directory, keyFile, retention, nowMs: clock.now() };
    const worker = new Worker(workerFile, {
      workerData,
      // It needs little: the gateway's own limits would be counted twice.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    // A gateway that has stopped all else is not kept alive.
    worker.unref();
    worker.on('message', message => this.#receive(message as FromWorker));
    worker.on('error', error => this.#lost(worker, error as Error));
    worker.on('exit', () => this.#lost(worker, undefined));
    this.#retainTimer = this.#options.clock.after(retainMs, this.#retain, { unref: true });
    return worker;
  }

  readonly #retain = (): void => {
    if (this.#worker === undefined || this.#closed !== undefined) return;
    this.#post({ kind: 'retain', nowMs: this.#options.clock.now() });
    this.#retainTimer = this.#options.clock.after(retainMs, this.#retain, { unref: true });
  };

  #receive(message: FromWorker): void {
    switch (message.kind) {
      case 'written':
        this.#unwritten -= message.used;
        if (message.failed !== undefined)
          for (const [kind, count] of Object.entries(message.failed))
            this.dropped[kind as ItemKind] += count;
        return;
      case 'answer':
        return this.#asked.get(message.id)?.(message);
      case 'trouble':
        return this.#options.log.warn(message.what);
      case 'closed':
        return this.#onClosed?.();
    }
  }

  /** The thread is gone: calls go on, and the next thing to write starts another. */
  #lost(worker: Worker, error: Error | undefined): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#restartAtMs = this.#options.clock.monotonicMs() + restartMs;
    this.#retainTimer?.cancel();
    this.#unwritten = 0;
    // The new one knows none of them.
    this.#newSubjects = [...this.#subjects];
    if (error !== undefined)
      this.#options.log.error('the thread that writes records ended; what it had is lost', {
        error,
      });
    for (const [id, answer] of this.#asked)
      answer({ kind: 'answer', id, error: error?.message ?? 'the thread ended' });
    this.#onClosed?.();
  }

  async #close(): Promise<void> {
    this.#flush();
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#retainTimer?.cancel();
    worker.ref();
    await new Promise<void>(resolve => {
      this.#onClosed = resolve;
      worker.postMessage({ kind: 'close' } satisfies ToWorker);
    });
    this.#worker = undefined;
    await worker.terminate();
  }
}

/** A record with the longest failure, or a line of the longest, in their worst encodings. */
const itemBytesMax = 1024 ** 2;

/** Beside this file in the sources; in a build this is part of a chunk, and the worker lies beside the programs. */
const workerFile = new URL(
  import.meta.url.endsWith('.ts')
    ? './worker.ts'
    : import.meta.url.includes('/chunks/')
      ? '../records-worker.js'
      : './records-worker.js',
  import.meta.url,
);
