/**
 * A body that arrives in chunks and is read once. The producer pushes, ends or fails it; `onRead` tells the
 * producer how much was consumed, which is all that back-pressure needs. Used for bodies from the link, from
 * HTTP requests and in tests.
 */
import type { Writable } from 'node:stream';

/** Bytes that arrive over time. Read it once, or cancel it; either way `onClose` callbacks run once. */
export interface BodyStream extends AsyncIterable<Uint8Array> {
  /** Stops the sender; a reader in progress fails with `reason`. Idempotent. */
  cancel(reason: Error): void;
  /** Runs `fn` when the stream has ended, failed or been cancelled (with the reason); at once when it has already. */
  onClose(fn: (error?: Error) => void): void;
}

export interface PushedBodyOptions {
  /** `bytes` have left the queue: the producer may send as many more. */
  onRead(bytes: number): void;
  /** The reader gave up. Not called after the end. */
  onCancel(reason: Error): void;
}

type State = 'open' | 'ended' | 'failed';

/**
 * Chunks that wait are merged up to this size: a window is counted in bytes, and a chunk of one byte costs a hundred
 * times that in memory.
 */
const mergedBytes = 8192;

export class PushedBody implements BodyStream {
  readonly #options: PushedBodyOptions;
  #chunks: Uint8Array[] = [];
  /** What the last chunk is a part of, when it was merged from several. */
  #merged: Buffer | undefined;
  #state: State = 'open';
  #error: Error | undefined;
  #wake: (() => void) | undefined;
  #closed = false;
  #onClose: Array<(error?: Error) => void> | undefined;

  constructor(options: PushedBodyOptions) {
    this.#options = options;
  }

  push(chunk: Uint8Array): void {
    if (this.#state !== 'open' || chunk.length === 0) return;
    if (!this.#mergedWith(chunk)) this.#chunks.push(chunk);
    this.#signalReader();
  }

  /** Puts a chunk behind the last one that waits, if both together are small. */
  #mergedWith(chunk: Uint8Array): boolean {
    const last = this.#chunks.at(-1);
    if (last === undefined || last.length + chunk.length > mergedBytes) return false;
    if (this.#merged === undefined || this.#merged.buffer !== last.buffer) {
      this.#merged = Buffer.allocUnsafeSlow(mergedBytes);
      this.#merged.set(last);
    }
    this.#merged.set(chunk, last.length);
    this.#chunks[this.#chunks.length - 1] = this.#merged.subarray(0, last.length + chunk.length);
    return true;
  }

  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ended';
    this.#signalReader();
    if (this.#chunks.length === 0) this.#close();
  }

  fail(error: Error): void {
    if (this.#state === 'failed' || this.#closed) return;
    this.#state = 'failed';
    this.#error = error;
    this.#chunks = [];
    this.#signalReader();
    this.#close();
  }

  cancel(reason: Error): void {
    if (this.#closed) return;
    const tellProducer = this.#state === 'open';
    this.fail(reason);
    if (tellProducer) this.#options.onCancel(reason);
  }

  onClose(fn: (error?: Error) => void): void {
    if (this.#closed) fn(this.#error);
    else if (this.#onClose === undefined) this.#onClose = [fn];
    else this.#onClose.push(fn);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      while (true) {
        const chunk = this.#chunks.shift();
        if (chunk !== undefined) {
          if (this.#chunks.length === 0 && this.#state === 'ended') this.#close();
          this.#options.onRead(chunk.length);
          yield chunk;
        } else if (this.#state === 'failed') {
          throw this.#error;
        } else if (this.#state === 'ended') {
          return;
        } else {
          await new Promise<void>(resolve => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.cancel(new Error('the reader left before the end'));
    }
  }

  #signalReader(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const callbacks = this.#onClose;
    this.#onClose = undefined;
    if (callbacks !== undefined) for (const fn of callbacks) fn(this.#error);
  }
}

/** All of a stream; undefined when it is longer, and then the rest is given up. */
export async function collect(body: BodyStream, bytesMax: number): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > bytesMax) {
      body.cancel(new Error(`the body is longer than ${bytesMax} bytes`));
      return undefined;
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, bytes);
}

/** Waits until a stream takes bytes again, or will never. Leaves no listener behind. */
export function drained(writable: Writable): Promise<void> {
  return new Drain(writable).wait();
}

/** What `drained` does, again and again for one stream. */
export class Drain {
  readonly #writable: Writable;
  #wake: (() => void) | undefined;
  #over = false;

  /** With a `body`: waits no longer than that lives, so that its end, or its error, is seen at once. */
  constructor(writable: Writable, body?: BodyStream) {
    this.#writable = writable;
    body?.onClose(() => {
      this.#over = true;
      this.#wake?.();
    });
  }

  wait(): Promise<void> {
    if (this.#over) return Promise.resolve();
    const writable = this.#writable;
    return new Promise(resolve => {
      const settle = () => {
        writable.off('drain', settle);
        writable.off('close', settle);
        this.#wake = undefined;
        resolve();
      };
      this.#wake = settle;
      writable.on('drain', settle);
      writable.on('close', settle);
    });
  }
}
