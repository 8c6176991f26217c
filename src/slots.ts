/**
 * Things that come and go by the thousand a second, under numbers that are not soon used again. A Map or a Set that
 * lives long and has an entry added and deleted per call leaves dead tables in V8's old space: after seconds of load,
 * collections take ten times as long (measured: p99 from 3 to 15 ms). An array with a free list leaves nothing.
 */
export class Slots<T> {
  readonly #items: Array<T | undefined> = [undefined];
  /** The number under which each slot is, or was last, in use. */
  readonly #ids: number[] = [0];
  readonly #free: number[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Ask before adding: a slot is 16 bits of a number. */
  get isFull(): boolean {
    return this.#size >= slotsMax;
  }

  /** The item's number: 32 bits, never 0; the lower 16 name the slot, the upper count its uses. */
  add(item: T): number {
    if (this.isFull) throw new Error(`invariant broken: at most ${slotsMax} at once`);
    this.#size++;
    const slot = this.#free.pop();
    if (slot === undefined) {
      const next = this.#items.push(item) - 1;
      this.#ids.push(next);
      return next;
    }
    this.#items[slot] = item;
    const id = (this.#ids[slot]! + 0x10000) >>> 0;
    this.#ids[slot] = id;
    return id;
  }

  /** Undefined for a number that is not in use, also when its slot is. */
  get(id: number): T | undefined {
    const slot = id & 0xffff;
    return this.#ids[slot] === id ? this.#items[slot] : undefined;
  }

  /** Idempotent. */
  remove(id: number): void {
    const slot = id & 0xffff;
    if (this.#ids[slot] !== id || this.#items[slot] === undefined) return;
    this.#items[slot] = undefined;
    this.#free.push(slot);
    this.#size--;
  }

  /** Items with their numbers, as they are now: what is added meanwhile is not among them. */
  entries(): Array<[id: number, item: T]> {
    const found: Array<[number, T]> = [];
    this.#items.forEach((item, slot) => {
      if (item !== undefined) found.push([this.#ids[slot]!, item]);
    });
    return found;
  }
}

export const slotsMax = 0xffff;
