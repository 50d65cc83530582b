/**
 * Estimates the number of distinct texts in bounded memory: a HyperLogLog sketch (Flajolet, Fusy, Gandouet and
 * Meunier, 2007) with the estimator of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
 * algorithm 6. With 8,192 registers the standard error is 1.04 / √8192 = 1.15 %. Small counts are almost exact.
 *
 * A register stores the maximum rank of the texts hashed to it: the leading zeros of 32 bits of their hash, plus one.
 * Merging takes the maximum of each register: it is exact and commutative.
 *
 * Packed form: `s` and base64 of, per filled register in ascending order, a varint (distance from the previous one)
 * and a byte (rank); or, if that is longer, `d` and one base64 digit per register, its rank.
 */
import { hashOf } from './hash.js';

const registerBits = 13;
const registerCount = 2 ** registerBits;
const rankBits = 32;
/** Maximum number of filled registers in the sparse form. */
const sparseMax = 1000;
/** Low bits of a sparse entry, for the rank. The register is above them. */
const entryRankBits = 6;
const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const noRank = 0xff;
/** Estimated size of a sketch without its registers, in bytes. */
const objectBytes = 200;
/** Ranks by the character code of a digit. */
const rankOfDigit = Uint8Array.from({ length: 0x80 }, (_, code) =>
  digits.includes(String.fromCharCode(code)) ? digits.indexOf(String.fromCharCode(code)) : noRank,
);

/** Counts distinct texts. Not shared between owners: merging changes the target. */
export class HyperLogLog {
  /**
   * Filled registers with their ranks, ascending: the first `#filledCount` entries. Most sketches are of hosts with
   * few clients.
   */
  #sparse = new Uint32Array(2);
  #filledCount = 0;
  #dense: Uint8Array | undefined;
  /** The last text, which is often added again. */
  #last: string | undefined;

  /** Estimated memory, in bytes. */
  get bytes(): number {
    return objectBytes + (this.#dense ?? this.#sparse).byteLength;
  }

  /** Adds a text. */
  add(text: string): void {
    if (text === this.#last) return;
    this.#last = text;
    const [first, second] = hashOf(text);
    this.#raise(first >>> (32 - registerBits), Math.clz32(second) + 1);
  }

  /** Adds the texts of `other`. */
  merge(other: HyperLogLog): void {
    if (other.#dense === undefined) {
      for (const [register, rank] of other.#filled()) this.#raise(register, rank);
      return;
    }
    const ranks = this.#dense ?? this.#densify();
    // No generator here: a page merges a hundred dense sketches.
    for (let register = 0; register < registerCount; register += 1)
      if (other.#dense[register]! > ranks[register]!) ranks[register] = other.#dense[register]!;
  }

  /** Estimated number of distinct texts, rounded. */
  count(): number {
    const registersOfRank = new Array<number>(rankBits + 2).fill(0);
    let empty = registerCount;
    for (const [, rank] of this.#filled()) {
      registersOfRank[rank]! += 1;
      empty -= 1;
    }
    let sum = registerCount * tau(1 - registersOfRank[rankBits + 1]! / registerCount);
    for (let rank = rankBits; rank >= 1; rank -= 1) sum = (sum + registersOfRank[rank]!) / 2;
    sum += registerCount * sigma(empty / registerCount);
    return Math.round(registerCount ** 2 / (2 * Math.LN2 * sum));
  }

  /** Returns the packed form: see the top of this file. */
  pack(): string {
    const filled = [...this.#filled()];
    const bytes: number[] = [];
    let previous = 0;
    for (const [register, rank] of filled) {
      const distance = register - previous;
      if (distance >= 0x80) bytes.push((distance & 0x7f) | 0x80, distance >> 7);
      else bytes.push(distance);
      bytes.push(rank);
      previous = register;
    }
    const sparse = `s${Buffer.from(bytes).toString('base64')}`;
    if (sparse.length <= registerCount) return sparse;
    const ranks = new Uint8Array(registerCount);
    for (const [register, rank] of filled) ranks[register] = rank;
    return `d${Array.from(ranks, (rank) => digits[rank]).join('')}`;
  }

  /** Parses the packed form. Throws a `RangeError` if it is invalid. */
  static unpack(packed: string): HyperLogLog {
    const sketch = new HyperLogLog();
    const invalid = (): RangeError =>
      new RangeError(`${JSON.stringify(packed.slice(0, 100))} is not a packed sketch of ${registerCount} registers.`);
    if (packed.startsWith('d') && packed.length === registerCount + 1) {
      const ranks = new Uint8Array(registerCount);
      for (let register = 0; register < registerCount; register += 1) {
        const rank = rankOfDigit[packed.charCodeAt(register + 1)] ?? noRank;
        if (rank > rankBits + 1) throw invalid();
        ranks[register] = rank;
      }
      sketch.#dense = ranks;
      return sketch;
    }
    if (!packed.startsWith('s')) throw invalid();
    const bytes = Buffer.from(packed.slice(1), 'base64');
    let register = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      let distance = bytes[at]!;
      if (distance >= 0x80) distance = (distance & 0x7f) | ((bytes[(at += 1)] ?? 0) << 7);
      const rank = bytes[(at += 1)];
      register += distance;
      if (rank === undefined || rank === 0 || rank > rankBits + 1 || register >= registerCount) throw invalid();
      sketch.#raise(register, rank);
    }
    return sketch;
  }

  *#filled(): Iterable<readonly [register: number, rank: number]> {
    if (this.#dense === undefined) {
      for (const entry of this.#sparse.subarray(0, this.#filledCount))
        yield [entry >>> entryRankBits, entry & ((1 << entryRankBits) - 1)];
      return;
    }
    for (let register = 0; register < registerCount; register += 1)
      if (this.#dense[register]! > 0) yield [register, this.#dense[register]!];
  }

  #raise(register: number, rank: number): void {
    if (this.#dense !== undefined) {
      if (rank > this.#dense[register]!) this.#dense[register] = rank;
      return;
    }
    const entry = (register << entryRankBits) | rank;
    const at = this.#indexOf(register);
    const found = at < this.#filledCount ? this.#sparse[at]! : undefined;
    if (found !== undefined && found >>> entryRankBits === register) {
      if (entry > found) this.#sparse[at] = entry;
      return;
    }
    if (this.#filledCount === sparseMax) {
      this.#densify()[register] = rank;
      return;
    }
    if (this.#filledCount === this.#sparse.length) {
      const sparse = new Uint32Array(Math.min(2 * this.#sparse.length, sparseMax));
      sparse.set(this.#sparse);
      this.#sparse = sparse;
    }
    this.#sparse.copyWithin(at + 1, at, this.#filledCount);
    this.#sparse[at] = entry;
    this.#filledCount += 1;
  }

  /** Index of a register in the entries, or where to insert it. */
  #indexOf(register: number): number {
    let [from, to] = [0, this.#filledCount];
    if (to > 0 && this.#sparse[to - 1]! >>> entryRankBits < register) return to; // packed registers are in order
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (this.#sparse[middle]! >>> entryRankBits < register) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  #densify(): Uint8Array {
    const ranks = new Uint8Array(registerCount);
    for (const [register, rank] of this.#filled()) ranks[register] = rank;
    this.#dense = ranks;
    this.#sparse = new Uint32Array(0);
    this.#filledCount = 0;
    return ranks;
  }
}

/** x + Σ x^(2^k) 2^(k-1) */
function sigma(x: number): number {
  if (x === 1) return Infinity;
  let sum = x;
  let power = x;
  for (let weight = 1, before = -1; sum !== before; weight *= 2) {
    power *= power;
    before = sum;
    sum += power * weight;
  }
  return sum;
}

/** (1 - x - Σ (1 - x^(2^-k))² 2^-k) / 3 */
function tau(x: number): number {
  if (x === 0 || x === 1) return 0;
  let sum = 1 - x;
  let root = x;
  for (let weight = 0.5, before = -1; sum !== before; weight /= 2) {
    root = Math.sqrt(root);
    before = sum;
    sum -= (1 - root) ** 2 * weight;
  }
  return sum / 3;
}
