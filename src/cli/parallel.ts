/** Work on many things, a few at a time. */

/** What a machine of two cores builds at once without slowing each one down. */
const parallelMax = 4;

/**
 * Results in the order of the items. The first failure is thrown once the work that was started is
 * done.
 */
export async function limited<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const failures: unknown[] = [];
  const queue = items.entries();
  async function takeNext(): Promise<void> {
    for (const [index, item] of queue) {
      if (failures.length > 0) return;
      try {
        results[index] = await work(item);
      } catch (error) {
        failures.push(error);
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(parallelMax, items.length) }, takeNext));
  if (failures.length > 0) throw failures[0];
  return results;
}
