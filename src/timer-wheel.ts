/**
 * Many deadlines for the price of one timer: a call adds and removes its deadline in constant time, and one
 * timer ticks while there are any. A deadline fires up to one tick late, never early.
 */
import type { Clock, Timer } from './clock.ts';

export interface Deadline {
  /** When it is due, on the clock's monotonic time. */
  dueMs: number;
  onDue: () => void;
  slot: number;
  /** Where in its slot; -1 once it has fired or been removed. */
  index: number;
}

const tickMs = 10;
const slots = 1024;

export class TimerWheel {
  readonly #clock: Clock;
  // Arrays, not sets: see slots.ts.
  readonly #wheel: Deadline[][] = Array.from({ length: slots }, () => []);
  #count = 0;
  #tick: number;
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#tick = this.#tickOf(clock.monotonicMs());
  }

  add(dueMs: number, onDue: () => void): Deadline {
    if (this.#count === 0) this.#tick = this.#tickOf(this.#clock.monotonicMs());
    // Due within the tick that has been looked at already: the next one takes it.
    const slot = Math.max(Math.ceil(dueMs / tickMs), this.#tick + 1) % slots;
    const list = this.#wheel[slot]!;
    const deadline = { dueMs, onDue, slot, index: list.length };
    list.push(deadline);
    this.#count++;
    this.#arm();
    return deadline;
  }

  /** Idempotent; a deadline that has fired is unaffected. */
  remove(deadline: Deadline): void {
    if (deadline.index === -1) return;
    const list = this.#wheel[deadline.slot]!;
    const last = list.pop()!;
    if (last !== deadline) {
      list[deadline.index] = last;
      last.index = deadline.index;
    }
    deadline.index = -1;
    this.#count--;
  }

  readonly #onTick = (): void => {
    this.#timer = undefined;
    const nowMs = this.#clock.monotonicMs();
    const current = this.#tickOf(nowMs);
    const last = Math.min(current, this.#tick + slots);
    while (this.#tick < last) {
      // Advanced first: what a callback adds belongs to a tick that is still to come.
      this.#tick++;
      this.#fire(this.#tick % slots, nowMs);
    }
    this.#tick = current;
    if (this.#count > 0) this.#arm();
  };

  /** To the next boundary, so that nothing is more than a tick late. */
  #arm(): void {
    if (this.#timer !== undefined) return;
    const delayMs =
      (this.#tickOf(this.#clock.monotonicMs()) + 1) * tickMs - this.#clock.monotonicMs();
    this.#timer = this.#clock.after(delayMs, this.#onTick, { unref: true });
  }

  #fire(slot: number, nowMs: number): void {
    const list = this.#wheel[slot]!;
    // Those of later turns of the wheel stay. What fires may remove others: collected first.
    const due = list.filter(deadline => deadline.dueMs <= nowMs);
    for (const deadline of due) {
      if (deadline.index === -1) continue;
      this.remove(deadline);
      deadline.onDue();
    }
  }

  #tickOf(ms: number): number {
    return Math.floor(ms / tickMs);
  }
}
