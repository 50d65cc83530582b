/**
 * A latency histogram with logarithmic buckets, after DDSketch (Masson, Rim and Lee, "DDSketch: a fast and
 * fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019).
 *
 * Bucket `i` counts values in (γ^(i-1), γ^i] milliseconds, with γ = (1 + α) / (1 - α). Its estimate, 2γ^i / (γ + 1),
 * is within α of each of them. Zeros have a separate bucket. Merging adds counts: it is exact and commutative.
 *
 * Packed form: base64 of a varint (number of zeros) and, per filled bucket in ascending order, a zigzag varint
 * (distance from the previous bucket, initially from 0) and a varint (count). A leading `-` negates all counts, as a
 * correction of other histograms.
 */

/** Maximum relative error of a percentile: 2 %, well within the promised 5 %. */
const relativeErrorMax = 0.02;

const gamma = (1 + relativeErrorMax) / (1 - relativeErrorMax);
const bucketsPerLog = 1 / Math.log(gamma);
/** One nanosecond and 31.7 years: other durations are clamped. */
const valueMinMs = 1e-6;
const valueMaxMs = 1e12;
const bucketMin = bucketOf(valueMinMs);
const bucketMax = bucketOf(valueMaxMs);
/** Stands for the bucket of zeros. */
const zeroBucket = bucketMin - 1;

/** Counts by bucket. Not shared between owners: merging changes the target. */
export class Histogram {
  /** Number of values. */
  total = 0;
  #zeros = 0;
  #first = 0;
  /** Counts of the buckets from `#first` on. An array, since a small one is cheaper to allocate than a typed array. */
  #counts: number[] = [];

  /** Adds a duration in milliseconds. Anything but a positive number counts as 0. */
  add(durationMs: number): void {
    this.addBucket(bucketOfDuration(durationMs));
  }

  /** Adds `count` durations by their bucket: see `bucketOfDuration`. */
  addBucket(bucket: number, count = 1): void {
    this.total += count;
    if (bucket === zeroBucket) this.#zeros += count;
    else this.#addTo(bucket, count);
  }

  /** Adds the values of `other`. */
  merge(other: Histogram): void {
    this.total += other.total;
    this.#zeros += other.#zeros;
    if (other.#counts.length === 0) return;
    this.#extendTo(other.#first, other.#first + other.#counts.length - 1);
    const shift = other.#first - this.#first;
    for (let at = 0; at < other.#counts.length; at += 1) {
      this.#counts[at + shift]! += other.#counts[at]!;
    }
  }

  /** Returns a copy. */
  clone(): Histogram {
    const copy = new Histogram();
    copy.merge(this);
    return copy;
  }

  /**
   * Returns a quantile (0 to 1) in milliseconds by nearest rank; `null` if there are no values. Buckets with a
   * negative count, left by a correction, count as empty.
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

  /** Returns a histogram that cancels this one when merged. */
  negated(): Histogram {
    const copy = this.clone();
    copy.total = -this.total;
    copy.#zeros = -this.#zeros;
    for (let at = 0; at < copy.#counts.length; at += 1) copy.#counts[at]! *= -1;
    return copy;
  }

  /** Returns the packed form: see the top of this file. */
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

  /** Parses the packed form. Throws a `RangeError` if it is invalid. */
  static unpack(packed: string): Histogram {
    if (packed.startsWith('-')) return Histogram.unpack(packed.slice(1)).negated();
    const histogram = new Histogram();
    histogram.mergePacked(packed);
    return histogram;
  }

  /** Merges a packed form without unpacking it first. Throws a `RangeError`, and adds nothing, if it is invalid. */
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
    // Parse first, then grow once: growing bucket by bucket is slow.
    const buckets: number[] = [];
    const counts: number[] = [];
    while (offset < bytes.length) {
      const zigzag = next();
      bucket += zigzag % 2 === 1 ? -(zigzag + 1) / 2 : zigzag / 2;
      const count = next();
      if (bucket < bucketMin || bucket > bucketMax) {
        throw new RangeError(
          `The packed histogram ${JSON.stringify(packed)} has bucket ${bucket}, outside ${bucketMin} to ${bucketMax}.`,
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
    this.#extendTo(lowest, highest);
    for (let at = 0; at < buckets.length; at += 1) this.#counts[buckets[at]! - this.#first]! += counts[at]!;
  }

  #addTo(bucket: number, count: number): void {
    const at = bucket - this.#first;
    if (at < 0 || at >= this.#counts.length) this.#extendTo(bucket, bucket);
    this.#counts[bucket - this.#first]! += count;
  }

  /** Extends the counts to the buckets `from` to `to`, with a margin, since latencies cluster. */
  #extendTo(from: number, to: number): void {
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
 * Returns the bucket of a duration in milliseconds. Compute it once if several histograms count a request: the
 * logarithm is expensive.
 */
export function bucketOfDuration(durationMs: number): number {
  return durationMs > 0 ? bucketOf(Math.min(Math.max(durationMs, valueMinMs), valueMaxMs)) : zeroBucket;
}

/** `bucketOfDuration` as an SQL expression on a nullable column of doubles. */
export function bucketOfDurationSql(column: string): string {
  // Numbers are quoted: an unquoted literal would be parsed as a decimal first and lose precision.
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
