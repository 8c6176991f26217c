/** How the calls of a function that pin no version are split among its versions. Pure. */
import { z } from 'zod';

export const trafficLimits = {
  /** Versions among which calls are split. */
  sharesMax: 10,
} as const;

export interface Traffic {
  /** Percent of the calls; they add up to 100. */
  shares: Array<{ version: number; percent: number }>;
  /** Calls with the same value of this header go to the same version. */
  stickyHeader?: string;
}

export const trafficSchema = z
  .strictObject({
    shares: z.record(
      z.string().regex(/^[1-9]\d{0,8}$/, 'a version is a number from 1 on'),
      z.int().min(0).max(100),
    ),
    stickyHeader: z
      .string()
      .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/, 'not a name of a header')
      .optional(),
  })
  .transform(
    ({ shares, stickyHeader }): Traffic => ({
      shares: Object.entries(shares)
        .map(([version, percent]) => ({ version: Number(version), percent }))
        .filter(({ percent }) => percent > 0)
        .sort((a, b) => a.version - b.version),
      ...(stickyHeader !== undefined && { stickyHeader: stickyHeader.toLowerCase() }),
    }),
  );

/** What is wrong with a split; undefined when nothing is. */
export function trafficProblem({ shares }: Traffic): string | undefined {
  if (shares.length > trafficLimits.sharesMax)
    return `calls are split among ${shares.length} versions; ${trafficLimits.sharesMax} are the most`;
  const sum = shares.reduce((total, { percent }) => total + percent, 0);
  return sum === 100 ? undefined : `the shares add up to ${sum}, not to 100`;
}

/** Of the golden ratio: its multiples, without their whole parts, lie evenly however many there are. */
const step = 0.618_033_988_749_894_9;

/**
 * Which share a call falls into: in proportion, without chance. One after another, any number of calls is split as evenly as
 * it can be; the same text is always in the same place, and moves no further than the shares do.
 */
export class Splitter {
  readonly #bounds: number[] = [];
  #at = 0;

  constructor(percents: readonly number[]) {
    let sum = 0;
    for (const percent of percents) {
      sum += percent;
      this.#bounds.push(sum / 100);
    }
  }

  /** The index of the share for the next call. */
  next(): number {
    this.#at = (this.#at + step) % 1;
    return this.#shareAt(this.#at);
  }

  /** The index of the share for calls that say `text`. */
  of(text: string): number {
    return this.#shareAt(hashOf(text) / 2 ** 32);
  }

  #shareAt(point: number): number {
    const index = this.#bounds.findIndex(bound => point < bound);
    return index === -1 ? this.#bounds.length - 1 : index;
  }
}

/** FNV-1a, its bits mixed once more: texts that differ in their last letter only would lie side by side. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
