/**
 * A latency histogram with logarithmic buckets, after DDSketch (Masson, Rim and Lee, "DDSketch: a fast and
 * fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019).
 *
 * Bucket `i` holds the values in (γ^(i-1), γ^i] milliseconds, with γ = (1 + α) / (1 - α); its middle, 2γ^i / (γ + 1),
 * is within α of every value in it. Values of zero have a bucket of their own. Merging adds counts, so it is exact and
 * the order does not matter.
 *
 * Packed form, base64 of: varint zero count, then for each filled bucket in ascending order a zigzag varint (the
 * bucket's distance from the one before, from 0 for the first) and a varint (its count). A `-` before it all says that
 * the counts are to be taken away: a correction of what others hold.
 */

/** The relative error of a percentile, at most: 2 %, well inside the promised 5 %. */
const relativeErrorMax = 0.02;

const gamma = (1 + relativeErrorMax) / (1 - relativeErrorMax);
const bucketsPerLog = 1 / Math.log(gamma);
/** One nanosecond and 31.7 years: durations outside are put into the outermost buckets. */
const valueMinMs = 1e-6;
const valueMaxMs = 1e12;
const bucketMin = bucketOf(valueMinMs);
const bucketMax = bucketOf(valueMaxMs);
/** Stands for the bucket of the values of zero. */
const zeroBucket = bucketMin - 1;

/** Counts by bucket. Not shared between owners: merging changes the target. */
export class Histogram {
  /** How many values are in it. */
  total = 0;
  #zeros = 0;
  #first = 0;
  /**
   * Counts of the buckets from `#first` on. In an array, which is made in less time than a typed one of a hundred:
   * thousands are made and thrown away each second.
   */
  #counts: number[] = [];

  /** Adds one duration in milliseconds. What is not a positive number counts as 0. */
  add(durationMs: number): void {
    this.addBucket(bucketOfDuration(durationMs));
  }

  /** Adds one duration by its bucket, or several: see `bucketOfDuration`. */
  addBucket(bucket: number, count = 1): void {
    this.total += count;
    if (bucket === zeroBucket) this.#zeros += count;
    else this.#addTo(bucket, count);
  }

  /** Adds all that `other` holds. */
  merge(other: Histogram): void {
    this.total += other.total;
    this.#zeros += other.#zeros;
    if (other.#counts.length === 0) return;
    this.#cover(other.#first, other.#first + other.#counts.length - 1);
    const shift = other.#first - this.#first;
    for (let at = 0; at < other.#counts.length; at += 1) {
      this.#counts[at + shift]! += other.#counts[at]!;
    }
  }

  /** A histogram of its own with the same values. */
  clone(): Histogram {
    const copy = new Histogram();
    copy.merge(this);
    return copy;
  }

  /**
   * The value in milliseconds that the share `quantile` (0 to 1) of the values does not exceed, by the nearest rank;
   * `null` when no bucket has a value. A bucket with a count below zero, which a correction leaves, counts as empty.
   */
  quantile(quantile: number): number | null {
    const zeros = Math.max(0, this.#zeros);
    let values = zeros;
    for (const count of this.#counts) if (count > 0) values += count;
    if (values === 0) return null;
    const rank = Math.min(values, Math.max(1, Math.ceil(quantile * values)));
    let seen = zeros;
    if (rank <= seen) return 0;
    let at = 0;
    while ((seen += Math.max(0, this.#counts[at]!)) < rank) at += 1;
    return (2 * gamma ** (this.#first + at)) / (gamma + 1);
  }

  /** What takes all of this away where it is merged. */
  negated(): Histogram {
    const copy = this.clone();
    copy.total = -this.total;
    copy.#zeros = -this.#zeros;
    for (let at = 0; at < copy.#counts.length; at += 1) copy.#counts[at]! *= -1;
    return copy;
  }

  /** The packed form: see the head of this file. */
  pack(): string {
    if (this.total < 0) return `-${this.negated().pack()}`;
    const bytes: number[] = [];
    pushVarint(bytes, this.#zeros);
    let previous = 0;
    for (let at = 0; at < this.#counts.length; at += 1) {
      const count = this.#counts[at]!;
      if (count === 0) continue;
      const distance = this.#first + at - previous;
      pushVarint(bytes, distance < 0 ? -2 * distance - 1 : 2 * distance);
      pushVarint(bytes, count);
      previous = this.#first + at;
    }
    return Buffer.from(bytes).toString('base64');
  }

  /** Reads the packed form. Throws a `RangeError` that says what is wrong with it. */
  static unpack(packed: string): Histogram {
    if (packed.startsWith('-')) return Histogram.unpack(packed.slice(1)).negated();
    const histogram = new Histogram();
    histogram.mergePacked(packed);
    return histogram;
  }

  /**
   * Adds all that a packed form holds, without making a histogram of it. Throws a `RangeError`, and adds nothing, when
   * it is none.
   */
  mergePacked(packed: string): void {
    if (packed.startsWith('-')) {
      this.merge(Histogram.unpack(packed));
      return;
    }
    const bytes = Buffer.from(packed, 'base64');
    let offset = 0;
    const next = (): number => {
      let value = 0;
      let scale = 1;
      for (;;) {
        const byte = bytes[offset];
        if (byte === undefined) throw new RangeError(`The packed histogram ${JSON.stringify(packed)} ends too early.`);
        offset += 1;
        value += (byte & 0x7f) * scale;
        if (byte < 0x80) return value;
        scale *= 0x80;
      }
    };
    const zeros = next();
    let total = zeros;
    let bucket = 0;
    let lowest = Infinity;
    let highest = -Infinity;
    // First all of it, then room for it once: room bucket by bucket took nine tenths of the time of a page.
    const buckets: number[] = [];
    const counts: number[] = [];
    while (offset < bytes.length) {
      const zigzag = next();
      bucket += zigzag % 2 === 1 ? -(zigzag + 1) / 2 : zigzag / 2;
      const count = next();
      if (bucket < bucketMin || bucket > bucketMax) {
        throw new RangeError(
          `The packed histogram ${JSON.stringify(packed)} names bucket ${bucket}, outside ${bucketMin} to ${bucketMax}.`,
        );
      }
      buckets.push(bucket);
      counts.push(count);
      lowest = Math.min(lowest, bucket);
      highest = Math.max(highest, bucket);
      total += count;
    }
    this.#zeros += zeros;
    this.total += total;
    if (buckets.length === 0) return;
    this.#cover(lowest, highest);
    for (let at = 0; at < buckets.length; at += 1) this.#counts[buckets[at]! - this.#first]! += counts[at]!;
  }

  #addTo(bucket: number, count: number): void {
    const at = bucket - this.#first;
    if (at < 0 || at >= this.#counts.length) this.#cover(bucket, bucket);
    this.#counts[bucket - this.#first]! += count;
  }

  /** Makes room for the buckets `from` to `to`, with some to spare on either side, since latencies cluster. */
  #cover(from: number, to: number): void {
    const empty = this.#counts.length === 0;
    const last = this.#first + this.#counts.length - 1;
    if (!empty && from >= this.#first && to <= last) return;
    const first = empty ? from - 4 : from < this.#first ? from - 8 : this.#first;
    const end = empty ? to + 4 : to > last ? to + 8 : last;
    const counts = new Array<number>(end - first + 1).fill(0);
    for (let at = 0; at < this.#counts.length; at += 1) counts[this.#first - first + at] = this.#counts[at]!;
    this.#first = first;
    this.#counts = counts;
  }
}

/**
 * The bucket of a duration in milliseconds, for a request that several histograms count: the logarithm is what takes
 * the time.
 */
export function bucketOfDuration(durationMs: number): number {
  return durationMs > 0 ? bucketOf(Math.min(Math.max(durationMs, valueMinMs), valueMaxMs)) : zeroBucket;
}

/** `bucketOfDuration` as an SQL expression, of a column of doubles that may be NULL. */
export function bucketOfDurationSql(column: string): string {
  // A number as a text becomes the very same double; written plainly it would be a decimal first.
  const double = (value: number): string => `'${value}'::DOUBLE`;
  return `CASE WHEN ${column} > 0 THEN ceil(ln(least(greatest(${column}, ${double(valueMinMs)}), ${double(valueMaxMs)})) * ${double(bucketsPerLog)})::INTEGER WHEN ${column} IS NOT NULL THEN ${zeroBucket} END`;
}

function bucketOf(valueMs: number): number {
  return Math.ceil(Math.log(valueMs) * bucketsPerLog);
}

function pushVarint(bytes: number[], value: number): void {
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
}
