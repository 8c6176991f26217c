/**
 * When the log of the queue's file is folded into the file. SQLite would do it within a commit, and who waits for that one
 * would wait a tenth of a second; here a thread of its own does, and the committing connection only what is left at the end:
 * then the log begins anew. Where that thread is gone or cannot write, SQLite folds within a commit, later.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { FromCheckpointThread } from './checkpoint-thread.ts';
import { threadFile } from './thread-file.ts';

/** About as many bytes of rows are written between two. */
export const bytesBetween = 32 * 1024 ** 2;
/** Of a row beside what it carries, with its places in the indexes. */
const rowBytes = 1024;
/** Of the log: then SQLite folds it within a commit. */
export const walPagesMax = 60_000;

export class Checkpoints {
  readonly #path: string;
  readonly #foldRest: () => void;
  #thread: Worker | undefined;
  #isFolding = false;
  #bytes = 0;

  /** `foldRest`: with the committing connection. */
  constructor({ path, foldRest }: { path: string; foldRest: () => void }) {
    this.#path = path;
    this.#foldRest = foldRest;
  }

  /** After a transaction. */
  wrote({ bytes, rows }: { bytes: number; rows: number }): void {
    this.#bytes += bytes + rows * rowBytes;
    if (this.#isFolding || this.#bytes < bytesBetween) return;
    this.#bytes = 0;
    this.#isFolding = true;
    this.#thread ??= this.#start();
    this.#thread.postMessage('fold');
  }

  #start(): Worker {
    const thread = new Worker(threadFile('checkpoint-thread'), {
      workerData: { path: this.#path },
      resourceLimits: { maxYoungGenerationSizeMb: 1 },
    });
    thread.unref();
    thread.on('message', (answer: FromCheckpointThread) => {
      this.#isFolding = false;
      if (answer.kind === 'folded') this.#foldRestSafely();
    });
    // Whatever ended it: the next is another one.
    thread.on('error', () => {});
    thread.once('exit', () => {
      this.#isFolding = false;
      if (this.#thread === thread) this.#thread = undefined;
    });
    return thread;
  }

  #foldRestSafely(): void {
    try {
      this.#foldRest();
    } catch {
      // As on a full disk, of which commits tell: there will be another one.
    }
  }

  /** Its connection is closed before the other one, which removes the log. */
  async close(): Promise<void> {
    const thread = this.#thread;
    if (thread === undefined) return;
    thread.ref();
    const gone = once(thread, 'exit');
    thread.postMessage('close');
    await gone;
  }
}
