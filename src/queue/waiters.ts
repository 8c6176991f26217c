/** Those who wait for the end of a job, each for so long. */
import type { Clock } from '../clock.ts';

interface Waiter {
  readonly promise: Promise<void>;
  cancel(): void;
}

export class Waiters {
  readonly #waiting = new Map<string, Set<() => void>>();
  #isClosed = false;

  /** Resolves with the next end of this job, when the time is over, or when nobody can wait any longer. */
  next(id: string, clock: Clock, ms: number): Waiter {
    if (this.#isClosed || ms <= 0) return { promise: Promise.resolve(), cancel() {} };
    let finish!: () => void;
    const promise = new Promise<void>(resolve => {
      finish = resolve;
    });
    const set = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, set);
    const end = () => {
      timer.cancel();
      set.delete(end);
      if (set.size === 0) this.#waiting.delete(id);
      finish();
    };
    const timer = clock.after(ms, end, { unref: true });
    set.add(end);
    return { promise, cancel: end };
  }

  done(id: string): void {
    for (const end of [...(this.#waiting.get(id) ?? [])]) end();
  }

  /** Nobody is told more than that it is over. */
  close(): void {
    this.#isClosed = true;
    for (const id of [...this.#waiting.keys()]) this.done(id);
  }
}
