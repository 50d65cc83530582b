/** Reads parts of JSON text, such as numbers, from bytes. For the fast path. */

export const quote = 0x22;
export const point = 0x2e;
const zero = 0x30;
const nine = 0x39;
const backslash = 0x5c;
export const brace = 0x7d;
/** By byte: 1 if it is an ASCII character that a JSON string can contain unescaped. */
const isPlain = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number(byte >= 0x20 && byte < 0x80 && byte !== quote && byte !== backslash),
);

/**
 * Returns the end of the plain ASCII from `at` on, without quotes, escapes and control characters: usually the closing
 * quote. Returns -1 if `at` is -1.
 */
export function plainEnd(bytes: Buffer, at: number): number {
  if (at === -1) return -1;
  let end = at;
  while (isPlain[bytes[end]!] === 1) end += 1;
  return end;
}

/** Returns the end of the digits from `at` on. */
export function digitsEnd(bytes: Buffer, at: number): number {
  let end = at;
  while (bytes[end]! >= zero && bytes[end]! <= nine) end += 1;
  return end;
}

/** Returns the end of an integer of at most 15 digits; -1 if there is none, or if `at` is -1. */
export function integerEnd(bytes: Buffer, at: number): number {
  if (at === -1) return -1;
  const end = digitsEnd(bytes, at);
  return end === at || end > at + 15 || (bytes[at] === zero && end > at + 1) ? -1 : end;
}

/** Returns the end of a number with at most 20 decimals; -1 if there is none, or if `at` is -1. */
export function decimalEnd(bytes: Buffer, at: number): number {
  const wholeEnd = integerEnd(bytes, at);
  if (wholeEnd === -1 || bytes[wholeEnd] !== point) return wholeEnd;
  const end = digitsEnd(bytes, wholeEnd + 1);
  return end === wholeEnd + 1 || end > wholeEnd + 21 ? -1 : end;
}

/**
 * Returns the fraction of a time such as `1795461349.0951176` in nanoseconds. The time is between 2^30 and 2^31
 * seconds; its decimals, seven at most, are from `from` to `to`. Returns `undefined` if the double would print
 * differently.
 *
 * Such doubles are at most 2^-22 apart, so each number with six decimals prints as itself, without trailing zeros.
 * With seven, it prints as the nearest one, unless six suffice. The products below are exact: 10^7 × 2^22 < 2^53.
 */
export function nanosecondsIn(bytes: Buffer, from: number, to: number): number | undefined {
  const decimals = to - from;
  if (decimals === 0 || decimals > 7 || bytes[to - 1] === zero) return undefined;
  const fraction = integerIn(bytes, from, to);
  if (decimals === 7) {
    const double = Math.round((fraction * 2 ** 22) / 1e7) / 2 ** 22;
    const distance = Math.abs(double * 1e6 - Math.round(double * 1e6));
    if (Math.round(double * 1e7) !== fraction || distance * 2 ** 23 <= 1.000001e6) return undefined;
  }
  return fraction * powersOfTen[9 - decimals]!;
}

/** Parses a decimal number. Returns the same as `Number`. */
export function decimalIn(bytes: Buffer, from: number, to: number): number {
  if (to - from > 16) return Number(bytes.toString('latin1', from, to));
  const wholeEnd = digitsEnd(bytes, from);
  if (wholeEnd === to) return integerIn(bytes, from, to);
  // Both operands are exact, so their quotient is the nearest double (Clinger, "How to read floating point numbers
  // accurately", 1990).
  const decimals = to - wholeEnd - 1;
  return (
    (integerIn(bytes, from, wholeEnd) * powersOfTen[decimals]! + integerIn(bytes, wholeEnd + 1, to)) /
    powersOfTen[decimals]!
  );
}

/** Parses an integer of at most 15 digits. */
export function integerIn(bytes: Buffer, from: number, to: number): number {
  let integer = 0;
  for (let at = from; at < to; at += 1) integer = integer * 10 + bytes[at]! - zero;
  return integer;
}

const powersOfTen = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));
