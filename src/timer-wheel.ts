/**
 * Many deadlines for the price of one timer: a call adds and removes its deadline in constant time, and one timer waits
 * for the first slot that has any (or had: it may wake for nothing, at most once a slot and turn). It does not tick in
 * between: a processor that goes to sleep with a timer of a few milliseconds pays for setting and clearing it (measured:
 * a tenth of the time of one call alone). A deadline fires up to one tick late, never early.
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
  /** The tick that the timer is set to. */
  #armed = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#tick = this.#tickOf(clock.monotonicMs());
  }

  /** Deadlines that wait. */
  get size(): number {
    return this.#count;
  }

  /** `onDue` runs once, `delayMs` from now, unless the deadline is removed. */
  after(delayMs: number, onDue: () => void): Deadline {
    const nowMs = this.#clock.monotonicMs();
    const dueMs = nowMs + delayMs;
    const current = this.#tickOf(nowMs);
    if (this.#count === 0) this.#tick = current;
    const tick = Math.ceil(dueMs / tickMs);
    // Due within the tick that has been looked at already: the next one takes it.
    const slot = Math.max(tick, this.#tick + 1) % slots;
    const list = this.#wheel[slot]!;
    const deadline = { dueMs, onDue, slot, index: list.length };
    list.push(deadline);
    this.#count++;
    this.#arm(Math.min(Math.max(tick, current + 1), current + slots));
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
    if (this.#count > 0) this.#arm(this.#firstAfter(current));
  };

  /** The next tick with anything in its slot, were it for a later turn. */
  #firstAfter(current: number): number {
    let tick = current + 1;
    while (this.#wheel[tick % slots]!.length === 0) tick++;
    return tick;
  }

  /** One timer that is set too early, as its deadline was removed, costs less than setting another. */
  #arm(tick: number): void {
    if (this.#timer !== undefined) {
      if (this.#armed <= tick) return;
      this.#timer.cancel();
    }
    this.#armed = tick;
    const delayMs = tick * tickMs - this.#clock.monotonicMs();
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
