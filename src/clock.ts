/**
 * Time as a port: the only place that reads the machine's clocks or sets timers.
 * `src/testing/fake-clock.ts` is its other implementation; a test moves it by hand.
 */
import { performance } from 'node:perf_hooks';

export interface Clock {
  /** Wall clock, milliseconds since the epoch. For records and people; may jump. */
  now(): number;
  /** Milliseconds since an arbitrary start; never goes back. For durations and deadlines. */
  monotonicMs(): number;
  /** Calls `fn` once after `delayMs`, unless cancelled. An unreferenced timer keeps no process alive. */
  after(delayMs: number, fn: () => void, options?: { unref?: boolean }): Timer;
}

export interface Timer {
  /** Idempotent; a timer that has fired is unaffected. */
  cancel(): void;
}

// Imported, not the global: that is looked up, and checked, at every call.
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fn, options) {
    // Node fires at once what is longer than 2^31 ms.
    const timer = setTimeout(fn, Math.max(0, Math.min(delayMs, 2 ** 31 - 1)));
    if (options?.unref) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Resolves after `delayMs`; rejects with the signal's reason when it is aborted first. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    function onAbort() {
      timer.cancel();
      reject(signal?.reason);
    }
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
