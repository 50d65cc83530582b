/** Callbacks for the lines of one connection. They must not throw. */
export interface LineHandlers {
  /** Called for each line: `bytes` from `from` to `to`, without its ending, not empty, and valid during the call only. */
  readonly onLine: (bytes: Buffer, from: number, to: number) => void;
  /** Called once for each line that exceeds the maximum length and is skipped. */
  readonly onTooLong: () => void;
  /** Called at the end if the last line has no line ending. */
  readonly onUnterminated: () => void;
  /** Called once for each line that is skipped because the memory for partial lines is full. */
  readonly onMemoryFull?: () => void;
}

/** Memory for partial lines, shared by several splitters. */
export interface PartialLineMemory {
  bytes: number;
  readonly bytesMax: number;
}

/** The beginning of a line, for another process to continue. */
export interface PartialLine {
  readonly bytes: Buffer;
  /** The line was counted as rejected or dropped already; the rest of it is skipped. */
  readonly isSkipped: boolean;
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const emptyBuffer = Buffer.alloc(0);

/**
 * Splits bytes from `from` to `to` at LF or CRLF. The last line needs no ending. `lineBytesMax` is the maximum length
 * of a line without its ending, in bytes. Skips empty lines.
 *
 * split2 is not used here: it creates a string for each line, and the decoder reads most lines from their bytes.
 */
export function splitLines(
  bytes: Buffer,
  { from, to, lineBytesMax }: { readonly from: number; readonly to: number; readonly lineBytesMax: number },
  { onLine, onTooLong }: Pick<LineHandlers, 'onLine' | 'onTooLong'>,
): void {
  for (let start = from; start < to; ) {
    const found = bytes.indexOf(lineFeed, start);
    const next = found === -1 || found >= to ? to : found;
    const end = next > start && bytes[next - 1] === carriageReturn ? next - 1 : next;
    if (end - start > lineBytesMax) onTooLong();
    else if (end > start) onLine(bytes, start, end);
    start = next + 1;
  }
}

/** Splits the bytes of one connection, in chunks of any size, into lines. Buffers one partial line at most. */
export class LineSplitter {
  readonly #lineBytesMax: number;
  readonly #handlers: LineHandlers;
  readonly #memory: PartialLineMemory;
  /** Buffer of the partial line, which is its first `#partialBytes`. Grows by doubling. */
  #partial = emptyBuffer;
  #partialBytes = 0;
  /** Whether the current line is too long, or the memory was full. */
  #isSkipping = false;
  /** Number of chunks with a line end so far: the source of the ids. */
  #ended = 0;

  /** `lineBytesMax`: see `splitLines`. */
  constructor(
    lineBytesMax: number,
    handlers: LineHandlers,
    memory: PartialLineMemory = { bytes: 0, bytesMax: Infinity },
  ) {
    this.#lineBytesMax = lineBytesMax;
    this.#handlers = handlers;
    this.#memory = memory;
  }

  /** Id of the partial line in the buffer; 0 if there is none. */
  get unfinished(): number {
    return this.#partialBytes > 0 || this.#isSkipping ? this.#ended + 1 : 0;
  }

  write(chunk: Buffer): void {
    const first = chunk.indexOf(lineFeed);
    if (first === -1) {
      this.#append(chunk);
      return;
    }
    this.#ended += 1;
    let from = 0;
    if (this.#isSkipping || this.#partialBytes > 0) {
      from = first + 1;
      if (this.#append(chunk.subarray(0, from))) this.#split(this.#partial, 0, this.#partialBytes);
      this.#isSkipping = false;
      this.#release();
    }
    const last = chunk.lastIndexOf(lineFeed);
    this.#split(chunk, from, last + 1);
    if (last + 1 < chunk.length) this.#append(chunk.subarray(last + 1));
  }

  end(): void {
    if (this.#partialBytes > 0) this.#handlers.onUnterminated();
    this.#release();
  }

  /** Returns the partial line and empties the buffer. */
  detach(): PartialLine {
    const beginning = {
      bytes: Buffer.from(this.#partial.subarray(0, this.#partialBytes)),
      isSkipped: this.#isSkipping,
    };
    this.#isSkipping = false;
    this.#release();
    return beginning;
  }

  /** Continues a line that another splitter began. Call it before `write`. */
  resume({ bytes, isSkipped }: PartialLine): void {
    this.#isSkipping = isSkipped;
    if (bytes.length > 0) this.#append(bytes);
  }

  #split(bytes: Buffer, from: number, to: number): void {
    splitLines(bytes, { from, to, lineBytesMax: this.#lineBytesMax }, this.#handlers);
  }

  /** Appends to the partial line. Returns `false` if the line is skipped: it is too long, or the memory is full. */
  #append(bytes: Buffer): boolean {
    if (this.#isSkipping) return false;
    const total = this.#partialBytes + bytes.length;
    const lengthMax = this.#lineBytesMax + 2; // with its ending
    if (total > lengthMax) return this.#skip(this.#handlers.onTooLong);
    if (total > this.#partial.length) {
      const length = Math.min(2 * total, lengthMax);
      const added = length - this.#partial.length;
      if (this.#memory.bytes + added > this.#memory.bytesMax) return this.#skip(this.#handlers.onMemoryFull);
      const larger = Buffer.allocUnsafe(length);
      this.#memory.bytes += added;
      this.#partial.copy(larger, 0, 0, this.#partialBytes);
      this.#partial = larger;
    }
    bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes = total;
    return true;
  }

  #skip(onSkip: (() => void) | undefined): false {
    this.#isSkipping = true;
    this.#release();
    onSkip?.();
    return false;
  }

  #release(): void {
    this.#memory.bytes -= this.#partial.length;
    this.#partial = emptyBuffer;
    this.#partialBytes = 0;
  }
}
