/** Random numbers that come again in the same order for the same seed. */
export interface Random {
  /** From 0 to 1, 1 not included. */
  next(): number;
  /** One of several, each as likely as its weight says. */
  pick<Value>(weighted: readonly Weighted<Value>[]): Value;
  /** A whole number from 0 to `end`, `end` not included; small ones come more often, as with popular pages. */
  popular(end: number): number;
  /** Log-normal: half of the numbers are below `median`, and the greater `spread`, the longer the tail. */
  around(median: number, spread: number): number;
  /**
   * How many events fall into a span that has `mean` of them on average (Poisson, by Knuth's method: for small means).
   */
  arrivals(mean: number): number;
}

/** A value and how often it comes, in relation to the others. */
export type Weighted<Value> = readonly [weight: number, value: Value];

/**
 * `seed` is any whole number. The generator is mulberry32 (Ettinger, 2017, public domain): 32 bits of state are enough
 * to draw a picture.
 */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    pick(weighted) {
      let left = next() * weighted.reduce((sum, [weight]) => sum + weight, 0);
      for (const [weight, value] of weighted) {
        left -= weight;
        if (left < 0) return value;
      }
      return weighted.at(-1)![1];
    },
    popular: (end) => Math.floor(end * next() ** 3),
    around: (median, spread) =>
      median * Math.exp(spread * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())),
    arrivals(mean) {
      const limit = Math.exp(-mean);
      let count = 0;
      for (let product = next(); product > limit; product *= next()) count += 1;
      return count;
    },
  };
}
