/** Tests that run once a seed: which, and the randomness that follows from it. */

/** FNWAY_TEST_SEED=7 runs that one alone; FNWAY_TEST_SEEDS=5000 runs more. */
export const seeds =
  process.env.FNWAY_TEST_SEED === undefined
    ? Array.from({ length: Number(process.env.FNWAY_TEST_SEEDS ?? 200) }, (_, i) => i + 1)
    : [Number(process.env.FNWAY_TEST_SEED)];

/** Numbers from 0 up to 1 that follow from the seed alone (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
