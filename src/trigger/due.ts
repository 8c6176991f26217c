/** What is due when: the earliest first. A binary heap; what is not wanted any more is left in it and passed over. */
export interface Due<T> {
  readonly ms: number;
  readonly what: T;
}

export class DueList<T> {
  readonly #heap: Array<Due<T>> = [];

  get first(): Due<T> | undefined {
    return this.#heap[0];
  }

  add(ms: number, what: T): void {
    const heap = this.#heap;
    const due = { ms, what };
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (heap[above]!.ms <= ms) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = due;
  }

  take(): Due<T> | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]!.ms < heap[below]!.ms) below++;
      if (heap[below]!.ms >= last.ms) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}
