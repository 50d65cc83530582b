/**
 * Makes the time of each request unique within its series: InfluxDB keeps one point per series and timestamp, and
 * Caddy's clock repeats under load. A time that is taken moves on to the next free nanosecond.
 *
 * Only the last `rememberedMin` to twice as many times are remembered, in two generations: a repetition comes within
 * moments of its twin, so older ones cost memory for nothing.
 */
export interface UniqueTimes {
  /** The time itself, or the first nanosecond after it that the series has not used. */
  take(series: string, time: Time): Time;
  /** Counts a time as used: by a request that is stored already. */
  occupy(series: string, time: Time): void;
  /** The times that are used from `fromMs` on, in milliseconds since 1970, of those that are remembered. */
  usedFrom(fromMs: number): UsedTimes;
}

/** Times that are used, in milliseconds since 1970 and nanoseconds on top, by series. */
export type UsedTimes = ReadonlyMap<string, readonly Time[]>;

interface Time {
  readonly timeMs: number;
  readonly timeNs: number;
}

/** How an era's length fits: 2^33 ms (99 days) are 8.6e15 ns, which a double counts exactly. */
const eraMs = 2 ** 33;
const nsPerMs = 1_000_000;

/** `rememberedMin`: how many of the last times are remembered at least; about 60 bytes each. */
export function createUniqueTimes({ rememberedMin = 200_000 } = {}): UniqueTimes {
  // By series and era: each used nanosecond of the era, with a nanosecond from which to go on looking for a free one.
  let current = new Map<string, Map<number, number>>();
  let previous = new Map<string, Map<number, number>>();
  let remembered = 0;

  return {
    take(series, time) {
      const { used, older, era, wanted } = find(series, time);
      let free = wanted;
      for (;;) {
        const next = used.get(free) ?? older?.get(free);
        if (next === undefined) break;
        free = next;
      }
      remembered += 1;
      used.set(free, free + 1);
      if (free === wanted) return time;
      used.set(wanted, free + 1); // so that many requests with one time do not look through each other
      return timeOf(era, free);
    },

    occupy(series, time) {
      const { used, older, wanted } = find(series, time);
      if (used.has(wanted) || older?.has(wanted) === true) return;
      remembered += 1;
      used.set(wanted, wanted + 1);
    },

    usedFrom(fromMs) {
      const found = new Map<string, Time[]>();
      for (const [key, used] of [...previous, ...current]) {
        const end = key.indexOf('\n');
        const era = Number(key.slice(0, end));
        const series = key.slice(end + 1);
        const times = [...used.keys()].map((ns) => timeOf(era, ns)).filter(({ timeMs }) => timeMs >= fromMs);
        if (times.length > 0) found.set(series, [...found.get(series) ?? [], ...times]);
      }
      return found;
    },
  };

  function timeOf(era: number, ns: number): Time {
    return { timeMs: era * eraMs + Math.floor(ns / nsPerMs), timeNs: ns % nsPerMs };
  }

  function find(series: string, time: Time): { used: Map<number, number>; older: Map<number, number> | undefined; era: number; wanted: number } {
    if (remembered >= rememberedMin) {
      previous = current;
      current = new Map();
      remembered = 0;
    }
    const era = Math.floor(time.timeMs / eraMs);
    const key = `${era}\n${series}`;
    let used = current.get(key);
    if (used === undefined) {
      used = new Map();
      current.set(key, used);
    }
    return { used, older: previous.get(key), era, wanted: (time.timeMs - era * eraMs) * nsPerMs + time.timeNs };
  }
}
