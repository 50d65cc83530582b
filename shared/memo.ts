/** V8 makes slices from 13 characters on (`SlicedString::kMinLength`), and copies what is shorter. */
const sliceLengthMin = 13;

/**
 * The same text by itself: a slice of a longer one would keep all of that in memory. To cut something off a
 * concatenation, V8 makes one flat text of it first. By way of a `Buffer` it takes four times as long, and a text of
 * ASCII then has two bytes for each character, as has all that it becomes a part of.
 */
export function detachString(text: string): string {
  return text.length < sliceLengthMin ? text : ` ${text}`.slice(1);
}

/** Longer texts are seldom the same twice, and would make the memory of a memo large. In UTF-16 code units. */
const textLengthMax = 500;

/**
 * Remembers what `read` made of the last texts: `entriesMax` to twice as many, in two generations. Hosts, addresses and
 * user agents repeat from request to request, and a look-up takes a tenth of what reading them does. Texts of over 500
 * characters are read each time.
 *
 * `read` is given a text of its own, so neither what is remembered nor what is made of it holds on to the line that the
 * text was cut from.
 */
export function createMemo<Value>(read: (text: string) => Value, { entriesMax = 1000 } = {}): (text: string) => Value {
  let current = new Map<string, Value>();
  let previous = new Map<string, Value>();
  // A new text has to be hashed for a look-up; to compare it with the last one takes less, and that is often enough.
  let lastText = '';
  let lastValue = read('');
  return (text) => {
    if (text === lastText) return lastValue;
    if (text.length > textLengthMax) return read(detachString(text));
    lastText = text;
    lastValue = current.get(text) ?? remember(text);
    return lastValue;
  };

  function remember(text: string): Value {
    const own = detachString(text);
    const value = previous.get(text) ?? read(own);
    if (current.size >= entriesMax) {
      previous = current;
      current = new Map();
    }
    current.set(own, value);
    return value;
  }
}
