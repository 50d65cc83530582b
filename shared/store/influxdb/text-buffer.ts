/** A reusable buffer for building UTF-8 text. It grows by doubling. Reuse avoids garbage. */
export class TextBuffer {
  #bytes = nothing;
  #length = 0;

  /** Length of the text in bytes. */
  get length(): number {
    return this.#length;
  }

  /** The text. Valid until the buffer changes. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Appends a text. A lone surrogate becomes U+FFFD. */
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

  /** Appends a non-negative integer in decimal, padded with zeros to `digitsMin`. */
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

  /** Appends a non-negative number, formatted as by `String`. */
  addNumber(number: number): void {
    // Fast path for multiples of a millionth, such as nanoseconds in milliseconds. Decimals of up to 15 digits are
    // unique as doubles, so the digits are the shortest representation.
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

  /** Appends UTF-8 bytes. */
  addBytes(text: Uint8Array): void {
    this.#reserve(text.length).set(text, this.#length);
    this.#length += text.length;
  }

  /** Clears the text. */
  clear(): void {
    this.#length = 0;
    if (this.#bytes.length > reusedBytesMax) this.#bytes = nothing;
  }

  #addLong(text: string): void {
    const length = Buffer.byteLength(text);
    // Copying ASCII takes half the time of encoding it.
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
/** Maximum size of a buffer that is reused, in bytes. */
const reusedBytesMax = 4 * 2 ** 20;
/** Maximum length to copy by character: then a native call is faster. */
const shortMax = 200;
const asciiMax = 0x7f;
const zero = 0x30;
/** Maximum integer for 32-bit division. */
const smallMax = 999_999_999;
const smallDigits = 9;
/** 15 digits, six of them after the decimal point. */
const millionthsMax = 999_999_999_999_999;
const powersOfTen = Array.from({ length: smallDigits + 1 }, (_, digits) => 10 ** digits);
