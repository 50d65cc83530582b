/**
 * Where a text is put together as UTF-8. It grows by doubling and is used again and again, so that the garbage
 * collector has nothing to do with it.
 */
export class TextBuffer {
  #bytes = nothing;
  #length = 0;

  /** How long the text is, in bytes. */
  get length(): number {
    return this.#length;
  }

  /** The text. It changes when the buffer does. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Adds a text. Half of a surrogate pair becomes U+FFFD. */
  add(text: string): void {
    if (text.length > shortMax) {
      this.#addLong(text);
      return;
    }
    const bytes = this.#reserve(text.length);
    let to = this.#length;
    for (let at = 0; at < text.length; at += 1) {
      const unit = text.charCodeAt(at);
      if (unit > asciiMax) {
        this.#addLong(text);
        return;
      }
      bytes[to] = unit;
      to += 1;
    }
    this.#length = to;
  }

  /** Adds an integer from 0 on in decimal digits, with zeros in front where it has fewer than `digitsMin`. */
  addInteger(integer: number, digitsMin = 1): void {
    if (integer > smallMax) {
      this.add(String(integer).padStart(digitsMin, '0'));
      return;
    }
    let digits = digitsMin;
    while (digits < smallDigits && integer >= powersOfTen[digits]!) digits += 1;
    const bytes = this.#reserve(digits);
    let rest = integer;
    for (let to = this.#length + digits - 1; to >= this.#length; to -= 1) {
      const tenth = (rest / 10) | 0;
      bytes[to] = zero + rest - 10 * tenth;
      rest = tenth;
    }
    this.#length += digits;
  }

  /** Adds a number from 0 on as `String` writes it. */
  addNumber(number: number): void {
    // In millionths, as a duration in nanoseconds is one of milliseconds. The quotient of two integers that doubles
    // hold is the double that is nearest to it, and no two decimals of up to 15 digits have the same: so this is the
    // shortest that has it.
    const millionths = Math.round(number * 1e6);
    if (millionths > millionthsMax || millionths / 1e6 !== number) {
      this.add(String(number));
      return;
    }
    const integer = Math.floor(millionths / 1e6);
    this.addInteger(integer);
    let fraction = millionths - integer * 1e6;
    if (fraction === 0) return;
    let digits = 6;
    for (; fraction % 10 === 0; fraction /= 10) digits -= 1;
    this.add('.');
    this.addInteger(fraction, digits);
  }

  /** Adds a text that is UTF-8 already. */
  addBytes(text: Uint8Array): void {
    this.#reserve(text.length).set(text, this.#length);
    this.#length += text.length;
  }

  /** Begins anew. */
  clear(): void {
    this.#length = 0;
    if (this.#bytes.length > bytesKept) this.#bytes = nothing;
  }

  #addLong(text: string): void {
    const length = Buffer.byteLength(text);
    // To copy ASCII takes half the time that it takes to encode it.
    this.#reserve(length).write(text, this.#length, length === text.length ? 'latin1' : 'utf8');
    this.#length += length;
  }

  #reserve(length: number): Buffer {
    if (this.#length + length <= this.#bytes.length) return this.#bytes;
    const larger = Buffer.allocUnsafeSlow(2 * (this.#length + length));
    larger.set(this.bytes);
    return (this.#bytes = larger);
  }
}

const nothing = Buffer.alloc(0);
/** A larger buffer is let go of, in bytes. */
const bytesKept = 4 * 2 ** 20;
/** To call Node takes as long as so many characters one by one. */
const shortMax = 200;
const asciiMax = 0x7f;
const zero = 0x30;
/** Up to here, an integer is divided as one of 32 bits. */
const smallMax = 999_999_999;
const smallDigits = 9;
/** 15 digits, of which six are behind the point. */
const millionthsMax = 999_999_999_999_999;
const powersOfTen = Array.from({ length: smallDigits + 1 }, (_, digits) => 10 ** digits);
