/**
 * The most frequent values of one kind (paths, user agents, …) in bounded memory: a space-saving summary after
 * Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
 *
 * An entry counts the requests of its value since it was made; what came before may have been missed, `missedMax` at
 * most. So `count ≤ true count ≤ count + missedMax`. A value without an entry has at most `absentMax` requests, and
 * `absentMax` is at most the hundredth part of all of them: a value that has more is always there.
 *
 * Where the paper replaces the smallest entry each time, entries are let grow to twice `entriesMax`, and the smaller
 * half is then dropped at once: each entry that is dropped counts for at least `absentMax`, so that the bound stays,
 * and a request costs one look-up.
 *
 * Two summaries add up: an entry that only one of them has may have been missed by the other, `absentMax` times at
 * most. To add that to every such entry would be slow, so an entry keeps how far its `missedMax` is below `absentMax`.
 *
 * Packed form: JSON, `[total, absentMax, [[value, missedMax, errors, count, durationSumMs, durationMaxMs, sizeSum,
 * histogram], …]]`.
 */
import { Histogram } from './histogram.js';
import { detachString } from '../memo.js';
import { latencyBucketOf, type Measured, type Aggregate } from '../rollup/rollup.js';
import { isServerError } from '../status.js';

/** So many values are kept in the packed form; up to twice as many in memory. */
export const entriesMax = 100;
/** The longest value, in UTF-16 code units; a longer one is cut, and ends in `…`. */
export const valueLengthMax = 250;
/** The longest packed form, in bytes: InfluxDB takes texts of 64 KiB. */
const packedBytesMax = 60_000;

/** What is known of one value. */
export interface TopEntry extends Omit<Aggregate, 'sampledOut'> {
  readonly value: string;
  /** How many more requests of the value there may have been, which are in no other number here. */
  readonly missedMax: number;
  /** Requests with a status of 5xx. */
  readonly errors: number;
}

interface Entry extends Omit<Aggregate, 'histogram' | 'sampledOut'> {
  errors: number;
  /**
   * Buckets of durations that are not in the histogram yet: most values of a busy site come once or twice, and need
   * none.
   */
  recent: number[];
  /**
   * Packed histograms that are not in the histogram yet: of the thousands of values of a page's lists, some ten are
   * shown.
   */
  packed: string[];
  histogram: Histogram | undefined;
  /** `missedMax` less `absentMax`: 0 or below. */
  slack: number;
}

/** So many durations wait for the histogram at most. */
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

/** A list of the most frequent values. Not shared between owners: merging changes the target. */
export class SpaceSaving {
  /** Requests that were added, whatever their value. */
  total = 0;
  /** How many requests a value without an entry has, at most. */
  absentMax = 0;
  readonly #entries = new Map<string, Entry>();
  readonly #entriesMax: number;

  /** `entriesMax` is 100; with `Infinity` all values are kept, and all counts are exact. */
  constructor({ entriesMax: max = entriesMax } = {}) {
    this.#entriesMax = max;
  }

  /**
   * Counts one request; `bucket` as in `addEvent`. The value is kept as it is: when it is a slice, so is the text that
   * it is a slice of, until it is merged into another list.
   */
  add(value: string, request: Measured, bucket = latencyBucketOf(request)): void {
    const { status, durationMs, size } = request;
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

  /** Adds all that `other` holds. */
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
   * The packed form: see the head of this file. It holds as many values as fit, and so says less than the summary
   * itself where there are more.
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
        absentMax = this.#upTo(entry);
        break;
      }
      packed.push(text);
    }
    return `[${this.total},${absentMax},[${packed.join(',')}]]`;
  }

  /**
   * Reads the packed form, to be merged: all its values are kept. Throws a `SyntaxError` or a `RangeError` when it is
   * none; a histogram that is none throws when it is used.
   */
  static unpack(text: string): SpaceSaving {
    const packed: unknown = JSON.parse(text);
    if (!Array.isArray(packed) || !Array.isArray(packed[2]))
      throw new RangeError(
        `The packed list ${JSON.stringify(text.slice(0, 100))} is no array of total, bound and values.`,
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

  /** How many requests an entry's value has, at most. */
  #upTo({ count, slack }: Entry): number {
    return count + this.absentMax + slack;
  }

  /** The entries, those with the greatest bounds first. */
  #ranked(): [string, Entry][] {
    return [...this.#entries].sort(([, a], [, b]) => this.#upTo(b) - this.#upTo(a));
  }

  /** Drops the smaller entries. */
  #shrink(): void {
    const [greatest, ...others] = this.#ranked().slice(this.#entriesMax);
    const raisedBy = this.#upTo(greatest![1]) - this.absentMax;
    for (const [value] of [greatest!, ...others]) this.#entries.delete(value);
    this.absentMax += raisedBy;
    for (const entry of this.#entries.values()) entry.slack -= raisedBy;
  }
}

/** Whether a value of a list may be a part of what it was. */
export function isCut(value: string): boolean {
  return value.length >= valueLengthMax - 1 && value.endsWith('…');
}

/** A value as a list has it: a long one is cut. */
export function shortValue(value: string): string {
  return value.length > valueLengthMax ? `${value.slice(0, valueLengthMax - 1).toWellFormed()}…` : value;
}

/** The order of a list: most requests first. */
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
