import split2 from 'split2';

/** Callbacks for the lines of one connection. They must not throw. */
export interface LineHandlers {
  readonly onLine: (line: string) => void;
  /**
   * Fast path, called first for each line: `bytes` from `from` to `to`, without the LF, valid during the call only.
   * Returns whether it has handled the line; if not, `onLine` gets it.
   */
  readonly takeLine?: (bytes: Buffer, from: number, to: number) => boolean;
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

/** Splits the bytes of one connection, in chunks of any size, into lines. Buffers one partial line at most. */
export interface LineSplitter {
  write(chunk: Buffer): void;
  end(): void;
  /** Id of the partial line in the buffer; 0 if there is none. */
  readonly unfinished: number;
  /** Returns the partial line and empties the buffer. */
  detach(): PartialLine;
  /** Continues a line that another splitter began. Call it before `write`. */
  resume(beginning: PartialLine): void;
}

/** The beginning of a line, for another process to continue. */
export interface PartialLine {
  readonly bytes: Buffer;
  /** The line was counted as rejected or dropped already; the rest of it is skipped. */
  readonly isSkipped: boolean;
}

const lineFeed = 0x0a;
const emptyBuffer = Buffer.alloc(0);

/**
 * Creates a splitter at LF or CRLF. `lineBytesMax` is the maximum length of a line without its ending, in bytes. Skips
 * empty lines. split2 gets complete lines only, since it scans its whole buffer again at each chunk.
 */
export function createLineSplitter(
  lineBytesMax: number,
  handlers: LineHandlers,
  memory: PartialLineMemory = { bytes: 0, bytesMax: Infinity },
): LineSplitter {
  // The mapper consumes the lines, so the stream's queue stays empty and there is no backpressure.
  const splitter = split2('\n', onText);
  /** Buffer of the partial line, which is its first `partialBytes`. Grows by doubling. */
  let partial = emptyBuffer;
  let partialBytes = 0;
  /** Whether the current line is too long, or the memory was full. */
  let skipping = false;
  /** Number of chunks with a line end so far: the source of the ids. */
  let ended = 0;

  return {
    get unfinished() {
      return partialBytes > 0 || skipping ? ended + 1 : 0;
    },
    write(chunk) {
      const first = chunk.indexOf(lineFeed);
      if (first === -1) {
        append(chunk);
        return;
      }
      ended += 1;
      let from = 0;
      if (skipping) {
        skipping = false;
        from = first + 1;
      } else if (partialBytes > 0) {
        const fits = append(chunk.subarray(0, first + 1));
        if (fits) emitLines(partial, 0, partialBytes);
        skipping = false;
        from = first + 1;
      }
      release();
      const last = chunk.lastIndexOf(lineFeed);
      if (last >= from) emitLines(chunk, from, last + 1);
      if (last + 1 < chunk.length) append(chunk.subarray(last + 1));
    },
    end() {
      if (partialBytes > 0) handlers.onUnterminated();
      release();
    },
    detach() {
      const beginning = { bytes: Buffer.from(partial.subarray(0, partialBytes)), isSkipped: skipping };
      skipping = false;
      release();
      return beginning;
    },
    resume({ bytes, isSkipped }) {
      skipping = isSkipped;
      if (bytes.length > 0) append(bytes);
    },
  };

  /** Passes complete lines, with their endings, to the handlers. */
  function emitLines(bytes: Buffer, from: number, to: number): void {
    const { takeLine } = handlers;
    if (takeLine === undefined) {
      splitter.write(bytes.subarray(from, to));
      return;
    }
    while (from < to) {
      const end = bytes.indexOf(lineFeed, from);
      if (end - from > lineBytesMax || !takeLine(bytes, from, end)) splitter.write(bytes.subarray(from, end + 1));
      from = end + 1;
    }
  }

  function release(): void {
    memory.bytes -= partial.length;
    partial = emptyBuffer;
    partialBytes = 0;
  }

  function skip(onSkip: (() => void) | undefined): false {
    skipping = true;
    release();
    onSkip?.();
    return false;
  }

  /** Appends to the partial line. Returns `false` if the line is skipped: it is too long, or the memory is full. */
  function append(bytes: Buffer): boolean {
    if (skipping) return false;
    const total = partialBytes + bytes.length;
    // Plus 2 for the line ending.
    if (total > lineBytesMax + 2) return skip(handlers.onTooLong);
    if (total > partial.length) {
      const length = Math.min(2 * total, lineBytesMax + 2);
      if (memory.bytes + length - partial.length > memory.bytesMax) return skip(handlers.onMemoryFull);
      const larger = Buffer.allocUnsafe(length);
      memory.bytes += length - partial.length;
      partial.copy(larger, 0, 0, partialBytes);
      partial = larger;
    }
    bytes.copy(partial, partialBytes);
    partialBytes = total;
    return true;
  }

  function onText(raw: string): undefined {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (line.length > lineBytesMax || (line.length * 3 > lineBytesMax && Buffer.byteLength(line) > lineBytesMax)) {
      handlers.onTooLong();
    } else if (line !== '') {
      handlers.onLine(line);
    }
  }
}
