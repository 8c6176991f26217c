/**
 * The queue's facets, by way of the thread that has their file. Group commit without a timer: what is asked for while the
 * thread commits is its next transaction; where that is much, it lies there already when the thread is done. The thread starts with the first thing
 * to do: a gateway that never accepted a job has none.
 */
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { ErrorCode } from '../../../client/errors.ts';
import { assert, GatewayError } from '../../errors.ts';
import type { JobStore } from '../jobs.ts';
import type { MessageStore } from '../messages.ts';
import type { ObjectStore } from '../objects.ts';
import { openRule } from '../rules.ts';
import type { ScheduleStore } from '../schedules.ts';
import { Packer, Unpacker } from './hand-over.ts';
import type {
  FromQueueThread,
  Operation,
  QueueMethods,
  ThreadError,
  ToQueueThread,
} from './queue-thread.ts';
import { threadFile } from './thread-file.ts';

/** Of one transaction: another waits no longer than this takes. */
export const transactionOperationsMax = 1000;

/** So many do not wait for the end of the turn: else callers that were answered together would wait together again. */
const startedOperationsMin = 8;

/** With the thread at once: one that it does, one that it does next. */
const batchesMax = 2;

/** What cannot be said of a file that is not there. */
const writing = new Set<keyof QueueMethods>([
  ...(['enqueue', 'settle', 'extend', 'fire', 'publish', 'observe'] as const),
]);

interface Waiting {
  operation: Operation;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

export interface QueueFile {
  readonly jobs: JobStore;
  readonly schedules: ScheduleStore;
  readonly messages: MessageStore;
  readonly objects: ObjectStore;
  /** Commits what has been asked for. Idempotent. */
  close(): Promise<void>;
}

export function openQueue(path: string): QueueFile {
  const queue = new ThreadedQueue(path);
  const method =
    <K extends keyof QueueMethods>(name: K, empty?: ReturnType<QueueMethods[K]>) =>
    (...args: Parameters<QueueMethods[K]>) =>
      queue.do(name, args, empty) as Promise<ReturnType<QueueMethods[K]>>;
  return {
    jobs: {
      enqueue: method('enqueue'),
      claim: method('claim', { jobs: [] }),
      extend: method('extend'),
      settle: method('settle'),
      cancel: method('cancel', 'missing'),
      setRoom: method('setRoom', undefined),
      recover: method('recover', 0),
      find: method('find', undefined),
      list: method('list', []),
      counts: method('counts', []),
      dead: method('dead', []),
      purge: method('purge', { removed: 0, blobs: [] }),
      drop: method('drop', 0),
      sweep: method('sweep', { removed: 0, blobs: [] }),
      blobs: method('blobs', new Set()),
    },
    messages: {
      publish: method('publish'),
      messages: method('messages', []),
      seek: method('seek', { dropped: 0, added: 0 }),
    },
    objects: {
      observe: method('observe'),
      objects: method('objects', []),
      watched: method('watched', []),
      unwatch: method('unwatch', 0),
    },
    schedules: {
      fire: method('fire'),
      slots: method('slots', []),
      positions: method('positions', []),
      forget: method('forget', undefined),
    },
    close: () => queue.close(),
  };
}

class ThreadedQueue {
  readonly #path: string;
  #worker: Worker | undefined;
  #waiting: Waiting[] = [];
  /** What the thread has: a message each. */
  #batches: Waiting[][] = [];
  #isScheduled = false;
  #closed: Promise<void> | undefined;
  #onClosed: (() => void) | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** `empty`: what a question comes to while there is no file. */
  do(method: keyof QueueMethods, args: unknown[], empty?: unknown): Promise<unknown> {
    assert(this.#closed === undefined, openRule);
    const needsFile = writing.has(method);
    // Nor is one about to be made.
    const isIdle = this.#worker === undefined && this.#waiting.length === 0;
    if (!needsFile && isIdle && !existsSync(this.#path)) return Promise.resolve(empty);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operation: { method, args }, resolve, reject });
      if (this.#mayStart) this.#send();
      else if (!this.#isScheduled && this.#batches.length === 0) {
        // Behind all that this turn of the loop brings.
        this.#isScheduled = true;
        setImmediate(this.#flush);
      }
    });
  }

  /** Where a turn brings much, the thread begins before its end, and has its next batch when it is done with one. */
  get #mayStart(): boolean {
    return this.#waiting.length >= startedOperationsMin && this.#batches.length < batchesMax;
  }

  readonly #flush = (): void => {
    this.#isScheduled = false;
    if (this.#waiting.length > 0 && this.#batches.length === 0) this.#send();
  };

  #send(): void {
    const batch = this.#waiting.splice(0, transactionOperationsMax);
    this.#batches.push(batch);
    this.#worker ??= this.#start();
    this.#worker.ref();
    const packer = new Packer();
    packer.cell(batch.length);
    for (const { operation } of batch) {
      packer.cell(operation.method);
      packer.arguments(operation.method, operation.args);
    }
    const parcel = packer.parcel();
    this.#post({ kind: 'do', parcel }, [parcel.bytes.buffer]);
  }

  #post(message: ToQueueThread, handedOver: ArrayBuffer[] = []): void {
    this.#worker!.postMessage(message, handedOver);
  }

  #start(): Worker {
    const worker = new Worker(threadFile('queue-thread'), {
      workerData: { path: this.#path },
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    worker.on('message', message => this.#receive(message as FromQueueThread));
    worker.on('error', error => this.#lost(worker, error as Error));
    worker.on('exit', () => this.#lost(worker, new Error('it ended')));
    return worker;
  }

  #receive(message: FromQueueThread): void {
    if (message.kind === 'closed') return this.#onClosed?.();
    const batch = this.#batches.shift()!;
    if (this.#mayStart) this.#send();
    else this.#flush();
    if (this.#batches.length === 0) this.#worker?.unref();
    const unpacker = new Unpacker(message.parcel, { copies: true });
    for (const { operation, resolve, reject } of batch) {
      const error = unpacker.cell() as ThreadError | undefined;
      if (error === undefined) resolve(unpacker.answer(operation.method));
      else reject(asError(error));
    }
  }

  /** What it was about to do may have been done: nobody is told that it was. */
  #lost(worker: Worker, cause: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    const detail = `the thread that writes the queue is gone: ${cause.message}`;
    const batches = this.#batches;
    this.#batches = [];
    for (const { reject } of batches.flat())
      reject(new GatewayError('DATA_DIRECTORY_UNUSABLE', detail, { cause }));
    this.#flush();
    this.#onClosed?.();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#waiting.length > 0) this.#send();
    const worker = this.#worker;
    if (worker === undefined) return;
    worker.ref();
    await new Promise<void>(resolve => {
      this.#onClosed = resolve;
      this.#post({ kind: 'close' });
    });
    this.#worker = undefined;
    await worker.terminate();
  }
}

function asError({ message, code, remedy }: ThreadError): Error {
  if (code === undefined) return new Error(message);
  return new GatewayError(code as ErrorCode, message, remedy === undefined ? {} : { remedy });
}
