/** Longer spans are read each time. */
const spanBytesMax = 2000;
/** So many spans can have the same place. */
const ways = 4;
/** After so many look-ups, most of which found nothing, eight times as many spans are read and not looked up. */
const evaluatedEvery = 512;

/** Bytes to look into. */
export interface Bytes {
  readonly buffer: Buffer;
  readonly view: DataView;
  /** Of the buffer: a `DataView` takes longer to tell it. */
  readonly length: number;
}

/** The bytes of a buffer, not a copy of them. */
export function bytesOf(buffer: Buffer): Bytes {
  return { buffer, view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length), length: buffer.length };
}

/**
 * Remembers what `read` made of spans of bytes, `spansMax` of them (4,096, a power of two): a new one takes the place
 * of an older one. A span is looked up by its length and eight of its bytes and then compared as a whole: no text is
 * made of it. Where spans are seldom the same twice, to remember them costs more than to read them, and most are only
 * read.
 */
export function createSpanMemo<Value>(
  read: (span: string) => Value,
  { spansMax = 4096 } = {},
): (bytes: Bytes, from: number, to: number) => Value {
  const spans = new Array<Span>(spansMax).fill({ length: 0, words: new Float64Array(0), lastWord: Number.NaN });
  const values = new Array<Value | undefined>(spansMax).fill(undefined);
  let turn = 0;
  let asked = 0;
  let missed = 0;
  let passing = 0;
  return (bytes, from, to) => {
    const length = to - from;
    if (passing > 0 || length < wordBytes || length > spanBytesMax) {
      if (passing > 0) passing -= 1;
      return read(bytes.buffer.toString('utf8', from, to));
    }
    asked += 1;
    if (asked === evaluatedEvery) {
      if (missed > asked / 2) passing = 8 * evaluatedEvery;
      asked = 0;
      missed = 0;
    }
    const first = placeOf(bytes, from, to) & (spansMax - ways);
    for (let at = first; at < first + ways; at += 1) {
      const span = spans[at]!;
      if (span.length === length && isAt(span, bytes, from)) return values[at] as Value;
    }
    missed += 1;
    turn = (turn + 1) % ways;
    const value = read(bytes.buffer.toString('utf8', from, to));
    const span = spanOf(bytes, from, to);
    if (isComparable(span)) {
      spans[first + turn] = span;
      values[first + turn] = value;
    }
    return value;
  };
}

const wordBytes = 8;

/**
 * At least eight bytes to compare others with, eight at once as a double: V8 would make an object of each integer of
 * that size. The last eight may overlap with those before.
 */
export interface Span {
  readonly length: number;
  readonly words: Float64Array;
  readonly lastWord: number;
}

/** Copies bytes for comparisons. Throws a `RangeError` when there are less than eight. */
export function spanOf({ view }: Bytes, from: number, to: number): Span {
  const words = Float64Array.from({ length: Math.ceil((to - from) / wordBytes) - 1 }, (_, at) =>
    view.getFloat64(from + at * wordBytes, true),
  );
  return { length: to - from, words, lastWord: view.getFloat64(to - wordBytes, true) };
}

/**
 * Whether the bytes from `at` on are those of a span that is told from all others. `false` where there are not so many,
 * and when `at` is -1.
 */
export function isAt({ length, words, lastWord }: Span, bytes: Bytes, at: number): boolean {
  const { view } = bytes;
  if (at < 0 || at + length > bytes.length) return false;
  for (let word = 0; word < words.length; word += 1)
    if (view.getFloat64(at + word * wordBytes, true) !== words[word]) return false;
  return view.getFloat64(at + length - wordBytes, true) === lastWord;
}

/**
 * Whether comparing a span's words as numbers identifies it. Zero equals negative zero, and NaN equals nothing, but
 * text without NUL and DEL has neither.
 */
function isComparable({ words, lastWord }: Span): boolean {
  return [...words, lastWord].every((word) => word !== 0 && !Number.isNaN(word));
}

/** The same for spans of one length that have the same eight bytes in the same places, and hardly ever for others. */
function placeOf({ buffer }: Bytes, from: number, to: number): number {
  let place = to - from;
  const step = place >>> 3;
  for (let at = from + (step >>> 1); at < to; at += step) place = (Math.imul(place, 31) + buffer[at]!) | 0;
  return place ^ (place >>> 12);
}
