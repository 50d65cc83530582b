/** A seeded generator of random numbers. */
export interface Random {
  /** A number from 0 to 1, excluding 1. */
  next(): number;
  /** A value, chosen by weight. */
  pick<Value>(weighted: readonly Weighted<Value>[]): Value;
  /** An integer from 0 to `end`, excluding `end`. Small ones are more frequent, like popular pages. */
  popular(end: number): number;
  /** A log-normal number. The larger `spread`, the longer the tail. */
  around(median: number, spread: number): number;
  /** A Poisson number of events with this mean, by Knuth's method. For small means. */
  arrivals(mean: number): number;
}

/** A value with its relative frequency. */
export type Weighted<Value> = readonly [weight: number, value: Value];

/** Creates a generator from any integer: mulberry32 (Ettinger, 2017, public domain), with 32 bits of state. */
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
