import { envelopeKeys, isObject, parse } from './decode/split-encoding.js';
import type { PartialLineMemory } from './lines.js';

/** Result of adding a line that may be a part of a longer one. */
export type PartResult =
  /** Buffered until the rest arrives. Do not count it as a line yet. */
  | { readonly kind: 'incomplete' }
  /** The last part. `line` is the assembled line. */
  | { readonly kind: 'complete'; readonly line: string }
  /** The parts together are too long; or the memory is full, or there are too many streams. They are discarded. */
  | { readonly kind: 'too-long' | 'memory-full' }
  /** Not a part of a line. `discarded` is the number of buffered lines before it that were never completed. */
  | { readonly kind: 'not-a-part'; readonly discarded: number };

/** Maximum time between the first part of a line and its last, in milliseconds. As for a line of one connection. */
const waitMsMax = 60_000;
/**
 * Maximum number of streams per source with a partial line. Beyond it, the part that would begin a further one is
 * discarded. The buffered ones stay.
 */
const streamsMax = 16;

const notAPart: PartResult = { kind: 'not-a-part', discarded: 0 };
const incomplete: PartResult = { kind: 'incomplete' };

interface PartialText {
  readonly text: string;
  readonly scan: ObjectScan;
  readonly sinceMs: number;
}

/**
 * Assembles lines that arrive in parts. Docker's `json-file` and Kubernetes' CRI format split lines longer than 16 KB
 * into parts with separate envelopes. In a file, a JSON object may span several lines.
 */
export class PartialLines {
  readonly #lineLengthMax: number;
  readonly #memory: PartialLineMemory;
  /** By container stream. */
  readonly #streams = new Map<string, PartialText>();
  #object: { readonly indent: string; readonly lines: string[]; length: number } | undefined;

  /**
   * `lineLengthMax`: maximum length of an assembled line, in characters. `memory` is shared with other sources; a
   * character counts as two bytes.
   */
  constructor(lineLengthMax: number, memory: PartialLineMemory = { bytes: 0, bytesMax: Infinity }) {
    this.#lineLengthMax = lineLengthMax;
    this.#memory = memory;
  }

  /** Whether an object that spans several lines of a file is open. */
  get isInObject(): boolean {
    return this.#object !== undefined;
  }

  /** Adds a line that could not be decoded by itself. `nowMs`: current time in milliseconds. */
  add(line: string, nowMs: number): PartResult {
    const part = partIn(line);
    if (part === undefined) return notAPart;
    const { stream, text, isLast } = part;
    const before = this.#streams.get(stream);
    const scan = (before?.scan ?? new ObjectScan()).read(text);
    const isComplete = isLast || !scan.isOpen;
    if (before === undefined && isComplete) return notAPart;
    const joined = (before?.text ?? '') + text;
    this.#drop(stream);
    if (isComplete) return { kind: 'complete', line: joined.trimEnd() };
    if (joined.length > this.#lineLengthMax) return { kind: 'too-long' };
    if (this.#memory.bytes + 2 * joined.length > this.#memory.bytesMax || this.#streams.size >= streamsMax)
      return { kind: 'memory-full' };
    this.#memory.bytes += 2 * joined.length;
    this.#streams.set(stream, { text: joined, scan, sinceMs: before?.sinceMs ?? nowMs });
    return incomplete;
  }

  /** Adds a line of a file, which may start a JSON object that spans several lines, or belong to one. */
  addFileLine(line: string): PartResult {
    const object = this.#object;
    const content = line.trim();
    if (object === undefined) {
      if (content === '[' || content === ']') return incomplete; // around all objects of a file
      if (content !== '{') return notAPart;
      this.#object = { indent: indentOf(line), lines: [line], length: line.length };
      return incomplete;
    }
    const closes = indentOf(line) === object.indent && (content === '}' || content === '},' || content === '}]');
    if (!closes && indentOf(line).length <= object.indent.length) {
      this.#object = undefined;
      return { kind: 'not-a-part', discarded: object.lines.length };
    }
    object.lines.push(line);
    object.length += line.length + 1;
    if (!closes && object.length <= this.#lineLengthMax) return incomplete;
    this.#object = undefined;
    return closes ? { kind: 'complete', line: object.lines.join('\n').replace(/\}[,\]]$/, '}') } : { kind: 'too-long' };
  }

  /** Discards partial lines whose rest has not arrived in time. Returns their number. */
  expire(nowMs: number): number {
    const old = [...this.#streams].filter(([, { sinceMs }]) => nowMs - sinceMs > waitMsMax);
    for (const [stream] of old) this.#drop(stream);
    return old.length;
  }

  /** Discards all partial lines. Returns their number. */
  end(): number {
    const count = this.#streams.size + (this.#object === undefined ? 0 : 1);
    for (const stream of [...this.#streams.keys()]) this.#drop(stream);
    this.#object = undefined;
    return count;
  }

  #drop(stream: string): void {
    this.#memory.bytes -= 2 * (this.#streams.get(stream)?.text.length ?? 0);
    this.#streams.delete(stream);
  }
}

function indentOf(line: string): string {
  return /^[ \t]*/.exec(line)![0];
}

interface Part {
  readonly stream: string;
  readonly text: string;
  /** Whether the envelope marks it as the last part. */
  readonly isLast: boolean;
}

/**
 * `2026-11-23T20:04:57.6Z stderr P {"level"…`: time, stream, partial or full. A log shipper may have added a prefix.
 */
const criPart = /^(.{0,200}?)\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([PF])(?::\S*)? ([^]*)$/;

function partIn(line: string): Part | undefined {
  const cri = criPart.exec(line);
  if (cri !== null) return { stream: `${cri[1]}${cri[2]}`, text: cri[4]!, isLast: cri[3] === 'F' };
  if (!line.startsWith('{')) return undefined;
  const envelope = parse(line);
  if (!isObject(envelope)) return undefined;
  const key = envelopeKeys.find((name) => typeof envelope[name] === 'string');
  if (key === undefined) return undefined;
  const text = envelope[key] as string;
  const { stream = '', container_id: container = '', partial_id: id = '' } = envelope;
  const isLast = text.endsWith('\n') || String(envelope['partial_last']) === 'true';
  return { stream: JSON.stringify([key, stream, container, id]), text: text.replace(/\n$/, ''), isLast };
}

/** Detects whether a JSON object is still open at the end of the text read so far. */
class ObjectScan {
  #depth = 0;
  #isText = false;
  #isEscaped = false;

  get isOpen(): boolean {
    return this.#isText || this.#depth > 0;
  }

  read(text: string): this {
    const from = this.isOpen ? 0 : text.search(/\{\s*"/);
    if (from === -1) return this;
    for (let at = from; at < text.length; at += 1) this.#readCharacter(text[at]!);
    return this;
  }

  #readCharacter(character: string): void {
    if (this.#isEscaped) {
      this.#isEscaped = false;
    } else if (character === '"') {
      this.#isText = !this.#isText;
    } else if (this.#isText) {
      this.#isEscaped = character === '\\';
    } else if (character === '{') {
      this.#depth += 1;
    } else if (character === '}') {
      this.#depth -= 1;
    }
  }
}
