/** Medians and quantiles of small samples. Pure. */

/** By nearest rank: a value that was measured, never one in between. */
export function quantile(samples: readonly number[], share: number): number {
  if (samples.length === 0) throw new Error('there is no quantile of nothing');
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1];
  if (upper === undefined) throw new Error('there is no median of nothing');
  return sorted.length % 2 === 1 ? upper : (sorted[(sorted.length >> 1) - 1]! + upper) / 2;
}

/** Run by run, so that a slow minute of the machine slows both sides of a ratio. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.map((value, i) => value / theirs[i]!);
}
