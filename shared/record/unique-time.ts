/**
 * Makes the time of each request unique within its series: InfluxDB stores one point per series and timestamp, and
 * Caddy's clock repeats under load. A duplicate moves to the next free nanosecond.
 *
 * Remembers the last `rememberedMin` times to twice that number, in two generations. Repeated times follow each other
 * closely, so older ones are not needed.
 */
export interface UniqueTimes {
  /** Reserves and returns the time itself or, if it is used, the next free nanosecond of the series. */
  take(series: string, time: Time): Time;
  /** Marks a time as used by a stored request. */
  reserve(series: string, time: Time): void;
  /** Remembered times from `fromMs` on, in milliseconds since 1970. */
  usedFrom(fromMs: number): UsedTimes;
}

/** Used times by series. */
export type UsedTimes = ReadonlyMap<string, readonly Time[]>;

interface Time {
  readonly timeMs: number;
  readonly timeNs: number;
}

/** Length of an era: 2^33 ms (99 days) are 8.6e15 ns, which a double represents exactly. */
const eraMs = 2 ** 33;
const nsPerMs = 1_000_000;

/** Used nanoseconds of a series in one era. */
interface Used {
  readonly series: string;
  readonly era: number;
  readonly nanoseconds: IntegerSet;
  /**
   * Where to continue the search for a free nanosecond, by the requested one. Avoids a linear search for times that
   * repeat often.
   */
  searchFrom: Map<number, number> | undefined;
  /** The same series in the previous generation, if it is there. */
  older: Used | undefined;
}

/** Memory overhead of a series, in units of one time. The first `fewSeries` series are not counted. */
const seriesTimes = 10;
const fewSeries = 1000;

/**
 * `rememberedMin` is the minimum number of times remembered, at about 20 bytes each; fewer if there are many series,
 * see `seriesTimes`. Default: 200,000.
 */
export function createUniqueTimes({ rememberedMin = 200_000 } = {}): UniqueTimes {
  let current = new Map<string, Used>();
  let previous = new Map<string, Used>();
  let remembered = 0;
  /** Era of the first time, which almost all others share. It is left out of the key. */
  let usualEra: number | undefined;

  return {
    take(series, time) {
      const used = usedBy(series, time);
      const { nanoseconds, older } = used;
      const requested = nsOf(time, used.era);
      remembered += 1;
      if (older?.nanoseconds.has(requested) !== true && nanoseconds.add(requested)) return time;
      let free = requested;
      for (;;) {
        const next =
          used.searchFrom?.get(free) ??
          older?.searchFrom?.get(free) ??
          (nanoseconds.has(free) || older?.nanoseconds.has(free) === true ? free + 1 : undefined);
        if (next === undefined) break;
        free = next;
      }
      nanoseconds.add(free);
      (used.searchFrom ??= new Map<number, number>()).set(requested, free + 1);
      return timeOf(used.era, free);
    },

    reserve(series, time) {
      const { nanoseconds, older, era } = usedBy(series, time);
      const ns = nsOf(time, era);
      if (older?.nanoseconds.has(ns) !== true && nanoseconds.add(ns)) remembered += 1;
    },

    usedFrom(fromMs) {
      const found = new Map<string, Time[]>();
      for (const { series, era, nanoseconds } of [...previous.values(), ...current.values()]) {
        const times = nanoseconds
          .values()
          .map((ns) => timeOf(era, ns))
          .filter(({ timeMs }) => timeMs >= fromMs);
        if (times.length > 0) found.set(series, [...(found.get(series) ?? []), ...times]);
      }
      return found;
    },
  };

  function timeOf(era: number, ns: number): Time {
    return { timeMs: era * eraMs + Math.floor(ns / nsPerMs), timeNs: ns % nsPerMs };
  }

  function nsOf({ timeMs, timeNs }: Time, era: number): number {
    return (timeMs - era * eraMs) * nsPerMs + timeNs;
  }

  function usedBy(series: string, { timeMs }: Time): Used {
    if (remembered >= rememberedMin) {
      previous = current;
      for (const used of previous.values()) used.older = undefined;
      current = new Map();
      remembered = 0;
    }
    const era = Math.floor(timeMs / eraMs);
    usualEra ??= era;
    const key = era === usualEra ? series : `${era}\n${series}`;
    let used = current.get(key);
    if (used !== undefined) return used;
    if (current.size >= fewSeries) remembered += seriesTimes;
    current.set(
      key,
      (used = { series, era, nanoseconds: new IntegerSet(), searchFrom: undefined, older: previous.get(key) }),
    );
    return used;
  }
}

/**
 * A set of integers from 0 to 2^53 - 2: a hash table with open addressing and linear probing. A `Set` allocates an
 * object for each such integer.
 */
class IntegerSet {
  /** The only integer plus 1; 0 if there is none. Most sets have one integer. */
  #only = 0;
  /** Hash table of two or more integers, each plus 1; 0 is an empty slot. At most half full. */
  #slots: Float64Array | undefined;
  #size = 0;

  has(integer: number): boolean {
    return this.#slots === undefined ? this.#only === integer + 1 : this.#slots[slotOf(this.#slots, integer + 1)] !== 0;
  }

  /** Adds an integer; returns `false` if it is there already. */
  add(integer: number): boolean {
    if (this.#slots === undefined) {
      if (this.#only === integer + 1) return false;
      if (this.#only === 0) {
        this.#only = integer + 1;
        return true;
      }
      this.#slots = new Float64Array(8);
      this.#slots[slotOf(this.#slots, this.#only)] = this.#only;
      this.#size = 1;
    }
    const slot = slotOf(this.#slots, integer + 1);
    if (this.#slots[slot] !== 0) return false;
    this.#slots[slot] = integer + 1;
    this.#size += 1;
    if (2 * this.#size > this.#slots.length) {
      const filled = this.#slots.filter((each) => each !== 0);
      this.#slots = new Float64Array(2 * this.#slots.length);
      for (const each of filled) this.#slots[slotOf(this.#slots, each)] = each;
    }
    return true;
  }

  values(): number[] {
    const slots = this.#slots ?? [this.#only];
    return [...slots].filter((slot) => slot !== 0).map((slot) => slot - 1);
  }
}

/** Index of the slot that has the value, or of the empty slot for it. */
function slotOf(slots: Float64Array, value: number): number {
  const mask = slots.length - 1;
  // Multipliers of MurmurHash3's finalizer: the low bits of timestamps are not random.
  let hash = Math.imul((value >>> 0) ^ Math.imul((value / 2 ** 32) >>> 0, 0x85ebca6b), 0xc2b2ae35);
  hash ^= hash >>> 15;
  let slot = hash & mask;
  while (slots[slot] !== 0 && slots[slot] !== value) slot = (slot + 1) & mask;
  return slot;
}
