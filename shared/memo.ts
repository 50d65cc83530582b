/** V8 creates slices from 13 characters on (`SlicedString::kMinLength`), and copies shorter ones. */
const sliceLengthMin = 13;

/**
 * Returns a copy of a text, since a slice retains its parent string. V8 flattens the concatenation before it slices
 * it. Copying via a `Buffer` would take four times as long and give ASCII text two bytes per character.
 */
export function detachString(text: string): string {
  return text.length < sliceLengthMin ? text : ` ${text}`.slice(1);
}

/** Maximum length of cached texts in UTF-16 code units. Longer ones rarely repeat, and would occupy much memory. */
const textLengthMax = 500;

/**
 * Caches the results of `read` for the last `entriesMax` to twice as many texts, in two generations. Hosts, addresses
 * and user agents repeat from request to request. Texts of over 500 characters are not cached.
 *
 * `read` gets a detached copy of the text, so that neither the cache nor the result retains the log line.
 */
export function createMemo<Value>(read: (text: string) => Value, { entriesMax = 1000 } = {}): (text: string) => Value {
  let current = new Map<string, Value>();
  let previous = new Map<string, Value>();
  // A lookup hashes the text. Comparing it with the previous one is cheaper and often sufficient.
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
    const detached = detachString(text);
    const value = previous.get(text) ?? read(detached);
    if (current.size >= entriesMax) {
      previous = current;
      current = new Map();
    }
    current.set(detached, value);
    return value;
  }
}
