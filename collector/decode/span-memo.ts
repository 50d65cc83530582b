/** Maximum length of a cached span, in bytes. */
const spanBytesMax = 2000;
/** Associativity: number of spans that share a set. */
const ways = 4;
/** Number of lookups per evaluation. If most of 512 lookups miss, bypass the cache for the next 4,096. */
const evaluationLookups = 512;

/** A buffer with a view for comparisons. */
export interface Bytes {
  readonly buffer: Buffer;
  readonly view: DataView;
  /** Length of the buffer, which is faster to read than that of a `DataView`. */
  readonly length: number;
}

/** Wraps a buffer without copying it. */
export function bytesOf(buffer: Buffer): Bytes {
  return { buffer, view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length), length: buffer.length };
}

/**
 * Caches the results of `read` for spans of bytes in a set-associative cache of `spansMax` entries (default 4,096; a
 * power of two). Looks spans up without creating strings: by their length and eight of their bytes, then by comparing
 * all bytes. Bypasses the cache if spans rarely repeat, since a miss costs more than `read` alone.
 */
export function createSpanMemo<Value>(
  read: (span: string) => Value,
  { spansMax = 4096 } = {},
): (bytes: Bytes, from: number, to: number) => Value {
  const spans = new Array<Span>(spansMax).fill({ length: 0, words: new Float64Array(0), lastWord: Number.NaN });
  const values = new Array<Value | undefined>(spansMax).fill(undefined);
  let nextWay = 0;
  let lookups = 0;
  let misses = 0;
  let bypassed = 0;
  return (bytes, from, to) => {
    const length = to - from;
    if (bypassed > 0 || length < wordBytes || length > spanBytesMax) {
      if (bypassed > 0) bypassed -= 1;
      return read(bytes.buffer.toString('utf8', from, to));
    }
    lookups += 1;
    if (lookups === evaluationLookups) {
      if (misses > lookups / 2) bypassed = 8 * evaluationLookups;
      lookups = 0;
      misses = 0;
    }
    const first = hashOf(bytes, from, to) & (spansMax - ways);
    for (let at = first; at < first + ways; at += 1) {
      const span = spans[at]!;
      if (span.length === length && isAt(span, bytes, from)) return values[at] as Value;
    }
    misses += 1;
    nextWay = (nextWay + 1) % ways;
    const value = read(bytes.buffer.toString('utf8', from, to));
    const span = spanOf(bytes, from, to);
    if (isComparable(span)) {
      spans[first + nextWay] = span;
      values[first + nextWay] = value;
    }
    return value;
  };
}

const wordBytes = 8;

/**
 * A copy of at least eight bytes for comparisons, in doubles of eight bytes: V8 would allocate an object for each
 * 64-bit integer. The last double may overlap with the one before.
 */
export interface Span {
  readonly length: number;
  readonly words: Float64Array;
  readonly lastWord: number;
}

/** Copies bytes for comparisons. Throws a `RangeError` for less than eight bytes. */
export function spanOf({ view }: Bytes, from: number, to: number): Span {
  const words = Float64Array.from({ length: Math.ceil((to - from) / wordBytes) - 1 }, (_, at) =>
    view.getFloat64(from + at * wordBytes, true),
  );
  return { length: to - from, words, lastWord: view.getFloat64(to - wordBytes, true) };
}

/**
 * Whether the bytes from `at` on equal those of a comparable span. Returns `false` if there are fewer bytes, or if
 * `at` is -1.
 */
export function isAt({ length, words, lastWord }: Span, bytes: Bytes, at: number): boolean {
  const { view } = bytes;
  if (at < 0 || at + length > bytes.length) return false;
  for (let word = 0; word < words.length; word += 1)
    if (view.getFloat64(at + word * wordBytes, true) !== words[word]) return false;
  return view.getFloat64(at + length - wordBytes, true) === lastWord;
}

/**
 * Whether comparing words as numbers compares their bytes: not for zero, which equals negative zero, and NaN. Text
 * without NUL and DEL has neither.
 */
function isComparable({ words, lastWord }: Span): boolean {
  return [...words, lastWord].every((word) => word !== 0 && !Number.isNaN(word));
}

/** Hash of a span's length and of about eight of its bytes at equal distances. */
function hashOf({ buffer }: Bytes, from: number, to: number): number {
  let hash = to - from;
  const step = hash >>> 3;
  for (let at = from + (step >>> 1); at < to; at += step) hash = (Math.imul(hash, 31) + buffer[at]!) | 0;
  return hash ^ (hash >>> 12);
}
