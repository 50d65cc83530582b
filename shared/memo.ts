/** V8 makes slices from 13 characters on (`SlicedString::kMinLength`), and copies what is shorter. */
const sliceLengthMin = 13;

/**
 * The same text by itself: a slice of a longer one would keep all of that in memory. To cut something off a concatenation, V8 makes one flat text
 * of it first. By way of a `Buffer` it takes four times as long, and a text of ASCII then has two bytes for each character, as has all that it
 * becomes a part of.
 */
export function ownText(text: string): string {
  return text.length < sliceLengthMin ? text : ` ${text}`.slice(1);
}

/** Longer texts are seldom the same twice, and would make the memory of a memo large. In UTF-16 code units. */
const textLengthMax = 500;

/**
 * Remembers what `read` made of the last texts: `entriesMax` to twice as many, in two generations. Hosts, addresses and user agents repeat
 * from request to request, and a look-up takes a tenth of what reading them does. Texts of over 500 characters are read each time.
 *
 * `read` is given a text of its own, so neither what is remembered nor what is made of it holds on to the line that the text was cut from.
 */
export function createMemo<Value>(read: (text: string) => Value, { entriesMax = 1000 } = {}): (text: string) => Value {
  let current = new Map<string, Value>();
  let previous = new Map<string, Value>();
  // A new text has to be hashed for a look-up; to compare it with the last one takes less, and that is often enough.
  let lastText = '';
  let lastValue = read('');
  return (text) => {
    if (text === lastText) return lastValue;
    if (text.length > textLengthMax) return read(ownText(text));
    lastText = text;
    lastValue = current.get(text) ?? remember(text);
    return lastValue;
  };

  function remember(text: string): Value {
    const own = ownText(text);
    const value = previous.get(text) ?? read(own);
    if (current.size >= entriesMax) {
      previous = current;
      current = new Map();
    }
    current.set(own, value);
    return value;
  }
}

/** Longer spans are read each time. In UTF-16 code units. */
const spanLengthMax = 2000;
/** So many spans can have the same place. */
const ways = 4;
/** After so many look-ups, most of which found nothing, eight times as many spans are read and not looked up. */
const judgedEvery = 512;

/**
 * Remembers what `read` made of spans of texts, `spansMax` of them (4,096, a power of two): a new one takes the place of an older one. A
 * span is looked up by its length and eight of its characters and then compared as a whole, which takes a fifth of the time that hashing it takes.
 * Where spans are seldom the same twice, to remember them costs more than to read them, and most are only read.
 *
 * What `read` makes must not hold on to the span, which is a slice of the text: see `ownText`.
 */
export function createSpanMemo<Value>(read: (span: string) => Value, { spansMax = 4096 } = {}): (text: string, from: number, to: number) => Value {
  const spans = new Array<string>(spansMax).fill('');
  const values = new Array<Value>(spansMax).fill(read(''));
  let turn = 0;
  let asked = 0;
  let missed = 0;
  let passing = 0;
  return (text, from, to) => {
    const span = text.slice(from, to);
    if (span.length > spanLengthMax) return read(span);
    if (passing > 0) {
      passing -= 1;
      return read(span);
    }
    asked += 1;
    if (asked === judgedEvery) {
      if (missed > asked / 2) passing = 8 * judgedEvery;
      asked = 0;
      missed = 0;
    }
    const first = placeOf(span) & (spansMax - ways);
    for (let at = first; at < first + ways; at += 1) if (spans[at] === span) return values[at]!;
    missed += 1;
    turn = (turn + 1) % ways;
    const value = read(span);
    spans[first + turn] = ownText(span);
    values[first + turn] = value;
    return value;
  };
}

/** The same for spans of one length that have the same eight characters in the same places, and hardly ever for others. */
function placeOf(span: string): number {
  let place = span.length;
  const step = Math.max(1, span.length >>> 3);
  for (let at = step >>> 1; at < span.length; at += step) place = Math.imul(place, 31) + span.charCodeAt(at) | 0;
  return place ^ place >>> 12;
}
