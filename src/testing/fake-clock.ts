/**
 * A clock that a test moves by hand. Timers run in order of their time, each at its own time, and what they set
 * off settles before the next one runs. Nothing sleeps.
 */
import type { Clock, Timer } from '../clock.ts';

interface Entry {
  readonly dueMs: number;
  readonly fn: () => void;
}

export class FakeClock implements Clock {
  readonly #epochMs: number;
  #elapsedMs = 0;
  /** By time; of the same time, the earlier set first. */
  #entries: Entry[] = [];

  /** Starts at `epochMs` of the wall clock and at 0 of the monotonic one. */
  constructor(epochMs = Date.UTC(2030, 0, 1)) {
    this.#epochMs = epochMs;
  }

  /** Timers that wait. A test that ends with some has left something behind. */
  get pending(): number {
    return this.#entries.length;
  }

  now(): number {
    return this.#epochMs + Math.floor(this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  after(delayMs: number, fn: () => void): Timer {
    const entry: Entry = { dueMs: this.#elapsedMs + Math.max(0, delayMs), fn };
    const at = this.#entries.findIndex(other => other.dueMs > entry.dueMs);
    this.#entries.splice(at === -1 ? this.#entries.length : at, 0, entry);
    return {
      cancel: () => {
        this.#entries = this.#entries.filter(other => other !== entry);
      },
    };
  }

  /** Lets `ms` pass: runs every timer that falls due, those included that are set meanwhile. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#elapsedMs + ms;
    await settle();
    for (let next = this.#entries[0]; next !== undefined && next.dueMs <= endMs; ) {
      this.#entries.shift();
      this.#elapsedMs = next.dueMs;
      next.fn();
      await settle();
      next = this.#entries[0];
    }
    this.#elapsedMs = endMs;
  }

  /** Time passes without a timer running, as when the event loop is blocked. */
  skip(ms: number): void {
    this.#elapsedMs += ms;
  }
}

/** Lets promises settle, and what they set off by `setImmediate`. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise<void>(resolve => setImmediate(resolve));
}
