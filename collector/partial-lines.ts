import { envelopeKeys, isObject, parse } from './decode/split-encoding.js';
import type { HeldMemory } from './lines.js';

/** What became of a line that may be a part of another. */
export type Taken =
  /** It is kept until the rest comes. It counts as a line when that is there, and not before. */
  | { readonly kind: 'held' }
  /** The whole line that it completes. */
  | { readonly kind: 'whole'; readonly line: string }
  /** The parts that were kept are too long together, or find no room: the line is given up. */
  | { readonly kind: 'too-long' | 'no-room' }
  /** It is no part of what was kept, or of anything. `givenUp` lines before it were kept, and never became whole. */
  | { readonly kind: 'not-a-part'; readonly givenUp: number };

/** How long a line may wait for its rest, in milliseconds: as long as a line of one connection may take. */
const waitMsMax = 60_000;
/** Streams of one source that may have begun a line; beyond them the oldest line is given up. */
const streamsMax = 16;

const notAPart: Taken = { kind: 'not-a-part', givenUp: 0 };
const held: Taken = { kind: 'held' };

interface Held {
  readonly text: string;
  readonly scan: ObjectScan;
  readonly sinceMs: number;
}

/**
 * Puts lines together that came in parts. Docker's `json-file` and Kubernetes' CRI format split what is longer than 16
 * KB, each part in an envelope of its own. In a file one JSON object may stand over several lines.
 */
export class PartialLines {
  readonly #lineLengthMax: number;
  readonly #memory: HeldMemory;
  /** By the stream that a container wrote to. */
  readonly #streams = new Map<string, Held>();
  #object: { readonly indent: string; readonly lines: string[]; length: number } | undefined;

  /**
   * `lineLengthMax`: of a whole line, in characters. `memory` is shared with other sources; a character is counted as
   * two bytes.
   */
  constructor(lineLengthMax: number, memory: HeldMemory = { bytes: 0, bytesMax: Infinity }) {
    this.#lineLengthMax = lineLengthMax;
    this.#memory = memory;
  }

  /** Takes a line that could not be understood by itself. `nowMs` is a clock in milliseconds. */
  take(line: string, nowMs: number): Taken {
    const part = partIn(line);
    if (part === undefined) return notAPart;
    const { stream, text, isLast } = part;
    const before = this.#streams.get(stream);
    const scan = (before?.scan ?? new ObjectScan()).read(text);
    const isWhole = isLast || !scan.isOpen;
    if (before === undefined && isWhole) return notAPart;
    const whole = (before?.text ?? '') + text;
    this.#drop(stream);
    if (isWhole) return { kind: 'whole', line: whole.trimEnd() };
    if (whole.length > this.#lineLengthMax) return { kind: 'too-long' };
    if (this.#memory.bytes + 2 * whole.length > this.#memory.bytesMax || this.#streams.size >= streamsMax)
      return { kind: 'no-room' };
    this.#memory.bytes += 2 * whole.length;
    this.#streams.set(stream, { text: whole, scan, sinceMs: before?.sinceMs ?? nowMs });
    return held;
  }

  /**
   * Takes each line of a file, before anything else does: it may belong to an object that stands over several lines.
   */
  takeOfFile(line: string): Taken {
    const object = this.#object;
    const content = line.trim();
    if (object === undefined) {
      if (content === '[' || content === ']') return held; // around all objects of a file
      if (content !== '{') return notAPart;
      this.#object = { indent: indentOf(line), lines: [line], length: line.length };
      return held;
    }
    const closes = indentOf(line) === object.indent && (content === '}' || content === '},' || content === '}]');
    if (!closes && indentOf(line).length <= object.indent.length) {
      this.#object = undefined;
      return { kind: 'not-a-part', givenUp: object.lines.length };
    }
    object.lines.push(line);
    object.length += line.length + 1;
    if (!closes && object.length <= this.#lineLengthMax) return held;
    this.#object = undefined;
    return closes ? { kind: 'whole', line: object.lines.join('\n').replace(/\}[,\]]$/, '}') } : { kind: 'too-long' };
  }

  /** Gives up lines that have waited for too long; returns how many. */
  expire(nowMs: number): number {
    const old = [...this.#streams].filter(([, { sinceMs }]) => nowMs - sinceMs > waitMsMax);
    for (const [stream] of old) this.#drop(stream);
    return old.length;
  }

  /** Gives up all lines that are not whole; returns how many. */
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
  /** Whether the envelope says that nothing follows. */
  readonly isLast: boolean;
}

/**
 * `2026-11-23T20:04:57.6Z stderr P {"level"…`: time, stream, partial or full. The prefix of a collecting tool may stand
 * before it.
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

/** Whether an object has begun, and not ended, in the texts that were read so far. */
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
