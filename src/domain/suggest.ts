/** "Did you mean …?": the candidate that a mistyped word most probably stands for. Pure. */

/**
 * Longer words are compared by nothing: they are not typing mistakes, and the work is quadratic.
 */
const wordCharsMax = 64;

/**
 * The nearest candidate, or undefined when none is near. At most one edit for each three letters.
 */
export function suggest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > wordCharsMax) return undefined;
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    if (candidate.length > wordCharsMax) continue;
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    const distanceMax = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3));
    // All letters wrong is no likeness: of one- and two-letter words everything would be near.
    if (distance > distanceMax || distance >= Math.max(word.length, candidate.length)) continue;
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/**
 * Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
 */
export function editDistance(from: string, to: string): number {
  let twoBack: number[] = [];
  let back = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const cost = from[row - 1] === to[column - 1] ? 0 : 1;
      let least = Math.min(back[column]! + 1, current[column - 1]! + 1, back[column - 1]! + cost);
      const swapped =
        row > 1 &&
        column > 1 &&
        from[row - 1] === to[column - 2] &&
        from[row - 2] === to[column - 1];
      if (swapped) least = Math.min(least, twoBack[column - 2]! + 1);
      current.push(least);
    }
    twoBack = back;
    back = current;
  }
  return back[to.length]!;
}
