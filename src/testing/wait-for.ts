/** Waits for a state, never for a time: asks again and again until the answer is there. */
import { sleep, systemClock } from '../clock.ts';

export interface WaitOptions {
  /** What is waited for; it is in the message when it does not come. */
  what?: string;
  timeoutMs?: number;
  everyMs?: number;
}

/** Resolves with the first value that is neither false, undefined nor null; `fn` may throw until then. */
export async function waitFor<T>(
  fn: () => T | Promise<T>,
  options: WaitOptions = {},
): Promise<Exclude<T, false | null | undefined>> {
  const { what = 'the state', timeoutMs = 10_000, everyMs = 10 } = options;
  const endMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    let last: unknown;
    try {
      const value = await fn();
      if (value !== false && value !== undefined && value !== null)
        return value as Exclude<T, false | null | undefined>;
      last = value;
    } catch (error) {
      last = error;
    }
    if (systemClock.monotonicMs() > endMs)
      throw new Error(`${what} did not come within ${timeoutMs} ms`, { cause: last });
    await sleep(systemClock, everyMs);
  }
}
