/**
 * The most frequent values of a dimension (paths, user agents, …) in bounded memory: a space-saving summary after
 * Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
 *
 * An entry counts the requests of its value since it was added. Earlier ones may be missing, at most `missedMax`:
 * `count ≤ true count ≤ count + missedMax`. A value without an entry has at most `absentMax` requests, which is at
 * most 1 % of the total: more frequent values always have an entry.
 *
 * Unlike in the paper, entries grow to twice `entriesMax`; then the smaller half is dropped. Each dropped entry
 * counts at least `absentMax`, so the bound holds, and adding a request costs one lookup.
 *
 * Merging: an entry that only one summary has may be missing from the other, up to `absentMax` times. Entries store
 * `missedMax` relative to `absentMax`, so that a merge need not update all of them.
 *
 * Packed form: JSON, `[total, absentMax, [[value, missedMax, errors, count, durationSumMs, durationMaxMs, sizeSum,
 * histogram], …]]`.
 */
import { Histogram } from './histogram.js';
import { detachString } from '../memo.js';
import { isServerError } from '../status.js';

/** Maximum number of values in the packed form; twice as many in memory. */
export const entriesMax = 100;
/** Maximum length of a value in UTF-16 code units. Longer ones are truncated and end in `…`. */
export const valueLengthMax = 250;
/** Maximum size of the packed form in bytes: InfluxDB limits strings to 64 KiB. */
const packedBytesMax = 60_000;

/** The sums over some requests. */
interface Sums {
  count: number;
  /** Sum of the latencies in milliseconds, over the requests in the histogram. */
  durationSumMs: number;
  durationMaxMs: number;
  /** Sum of the response body sizes, in bytes. */
  sizeSum: number;
}

/** The counts of a value. */
export interface TopEntry extends Readonly<Sums> {
  readonly value: string;
  readonly histogram: Histogram;
  /** Maximum number of requests of the value that are not counted here. */
  readonly missedMax: number;
  /** Requests with a 5xx status. */
  readonly errors: number;
}

interface Entry extends Sums {
  errors: number;
  /** Buckets not yet in the histogram: most values are rare and need no histogram. */
  recent: number[];
  /** Packed histograms not yet merged: a page shows about ten of thousands of values. */
  packed: string[];
  histogram: Histogram | undefined;
  /** `missedMax` less `absentMax`: 0 or below. */
  slack: number;
}

/** Maximum number of buckets outside the histogram. */
const recentMax = 32;

type PackedEntry = [
  value: string,
  missedMax: number,
  errors: number,
  count: number,
  durationSumMs: number,
  durationMaxMs: number,
  sizeSum: number,
  histogram: string,
];

/** The fields of a request that a list counts. */
export interface CountedRequest {
  readonly status: number;
  readonly durationMs: number | null;
  readonly size: number;
}

/** A list of the most frequent values. Not shared between owners: merging changes the target. */
export class SpaceSaving {
  /** Number of added requests, of all values. */
  total = 0;
  /** Maximum number of requests of a value without an entry. */
  absentMax = 0;
  readonly #entries = new Map<string, Entry>();
  readonly #entriesMax: number;

  /** `entriesMax` defaults to 100. With `Infinity`, all values are stored and counts are exact. */
  constructor({ entriesMax: max = entriesMax } = {}) {
    this.#entriesMax = max;
  }

  /**
   * Counts a request. `bucket` is the histogram bucket of its latency; `undefined` if it has none. The value is not
   * copied: if it is a slice, it retains its parent string until it is merged into another summary.
   */
  add(value: string, { status, durationMs, size }: CountedRequest, bucket: number | undefined): void {
    const short = shortValue(value);
    let entry = this.#entries.get(short);
    if (entry === undefined) this.#entries.set(short, (entry = emptyEntry()));
    this.total += 1;
    entry.count += 1;
    entry.sizeSum += size;
    if (isServerError(status)) entry.errors += 1;
    if (bucket !== undefined && durationMs !== null) {
      entry.durationSumMs += durationMs;
      if (durationMs > entry.durationMaxMs) entry.durationMaxMs = durationMs;
      if (entry.histogram !== undefined) {
        entry.histogram.addBucket(bucket);
      } else {
        entry.recent.push(bucket);
        if (entry.recent.length >= recentMax) histogramOf(entry);
      }
    }
    if (this.#entries.size > 2 * this.#entriesMax) this.#shrink();
  }

  /** Adds the requests of `other`. */
  merge(other: SpaceSaving): void {
    for (const [value, part] of other.#entries) {
      let entry = this.#entries.get(value);
      if (entry === undefined) this.#entries.set(detachString(value), (entry = emptyEntry()));
      entry.count += part.count;
      entry.sizeSum += part.sizeSum;
      entry.errors += part.errors;
      entry.durationSumMs += part.durationSumMs;
      entry.durationMaxMs = Math.max(entry.durationMaxMs, part.durationMaxMs);
      entry.slack += part.slack;
      if (part.histogram !== undefined) histogramOf(entry).merge(part.histogram);
      for (const packed of part.packed) entry.packed.push(packed);
      for (const bucket of part.recent) entry.recent.push(bucket);
      if (entry.recent.length >= recentMax) histogramOf(entry);
    }
    this.total += other.total;
    this.absentMax += other.absentMax;
    if (this.#entries.size > 2 * this.#entriesMax) this.#shrink();
  }

  /** The values, most requests first. */
  entries(): TopEntry[] {
    return [...this.#entries]
      .map(([value, entry]) => {
        const { count, durationSumMs, durationMaxMs, sizeSum, errors, slack } = entry;
        return {
          value,
          count,
          durationSumMs,
          durationMaxMs,
          sizeSum,
          get histogram() {
            return histogramOf(entry);
          },
          errors,
          missedMax: this.absentMax + slack,
        };
      })
      .sort(byCount);
  }

  /**
   * Returns the packed form: see the top of this file. It has as many values as fit, so it may be less precise than
   * the summary.
   */
  pack(): string {
    const ranked = this.#ranked();
    let absentMax = this.absentMax;
    let bytes = 100;
    const packed: string[] = [];
    for (const [value, entry] of ranked) {
      const { count, durationSumMs, durationMaxMs, sizeSum, errors, slack } = entry;
      const fields: PackedEntry = [
        value,
        this.absentMax + slack,
        errors,
        count,
        durationSumMs,
        durationMaxMs,
        sizeSum,
        histogramOf(entry).pack(),
      ];
      const text = JSON.stringify(fields);
      bytes += Buffer.byteLength(text) + 1;
      if (packed.length >= this.#entriesMax || bytes > packedBytesMax) {
        absentMax = this.#countMax(entry);
        break;
      }
      packed.push(text);
    }
    return `[${this.total},${absentMax},[${packed.join(',')}]]`;
  }

  /**
   * Parses the packed form for merging, with all its values. Throws a `SyntaxError` or a `RangeError` if it is
   * invalid; an invalid histogram throws when it is used.
   */
  static unpack(text: string): SpaceSaving {
    const packed: unknown = JSON.parse(text);
    if (!Array.isArray(packed) || !Array.isArray(packed[2]))
      throw new RangeError(
        `The packed list ${JSON.stringify(text.slice(0, 100))} is not an array of total, bound and values.`,
      );
    const [total, absentMax, entries] = packed as [number, number, PackedEntry[]];
    const summary = new SpaceSaving({ entriesMax: Infinity });
    summary.total = total;
    summary.absentMax = absentMax;
    for (const [value, missedMax, errors, count, durationSumMs, durationMaxMs, sizeSum, histogram] of entries) {
      summary.#entries.set(value, {
        count,
        durationSumMs,
        durationMaxMs,
        sizeSum,
        histogram: undefined,
        packed: [histogram],
        recent: [],
        errors,
        slack: missedMax - absentMax,
      });
    }
    return summary;
  }

  /** Maximum number of requests of an entry's value. */
  #countMax({ count, slack }: Entry): number {
    return count + this.absentMax + slack;
  }

  /** The entries by descending upper bound. */
  #ranked(): [string, Entry][] {
    return [...this.#entries].sort(([, a], [, b]) => this.#countMax(b) - this.#countMax(a));
  }

  /** Drops the smaller entries. */
  #shrink(): void {
    const [greatest, ...others] = this.#ranked().slice(this.#entriesMax);
    const raisedBy = this.#countMax(greatest![1]) - this.absentMax;
    for (const [value] of [greatest!, ...others]) this.#entries.delete(value);
    this.absentMax += raisedBy;
    for (const entry of this.#entries.values()) entry.slack -= raisedBy;
  }
}

/** Whether a value may be truncated. */
export function isCut(value: string): boolean {
  return value.length >= valueLengthMax - 1 && value.endsWith('…');
}

/** Truncates a long value. */
export function shortValue(value: string): string {
  return value.length > valueLengthMax ? `${value.slice(0, valueLengthMax - 1).toWellFormed()}…` : value;
}

/** Compares by count, most requests first. */
export function byCount(a: TopEntry, b: TopEntry): number {
  return b.count - a.count || (a.value < b.value ? -1 : 1);
}

function emptyEntry(): Entry {
  return {
    count: 0,
    durationSumMs: 0,
    durationMaxMs: 0,
    sizeSum: 0,
    errors: 0,
    recent: [],
    packed: [],
    histogram: undefined,
    slack: 0,
  };
}

/** The histogram of an entry, with all its durations. */
function histogramOf(entry: Entry): Histogram {
  entry.histogram ??= new Histogram();
  for (const bucket of entry.recent) entry.histogram.addBucket(bucket);
  for (const packed of entry.packed) entry.histogram.mergePacked(packed);
  entry.recent.length = 0;
  if (entry.packed.length > 0) entry.packed = [];
  return entry.histogram;
}
