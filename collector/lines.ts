import split2 from 'split2';

/** What happens with the lines of one connection. The handlers must not throw. */
export interface LineHandlers {
  readonly onLine: (line: string) => void;
  /**
   * Is given each line first, as it stands in `bytes` from `from` to `to`, without its LF, and says whether it has
   * taken it. What it has not taken goes to `onLine`. The bytes may change afterwards.
   */
  readonly takeLine?: (bytes: Buffer, from: number, to: number) => boolean;
  /** Called once for each line that is longer than the bound, and is skipped. */
  readonly onTooLong: () => void;
  /** Called after the end when bytes without a line ending are left over. */
  readonly onUnterminated: () => void;
  /** Called once for each line that is skipped because other lines that have begun take all the memory. */
  readonly onNoRoom?: () => void;
}

/** Memory that several splitters share for lines that have begun. */
export interface HeldMemory {
  bytes: number;
  readonly bytesMax: number;
}

/** Takes the bytes of one connection in chunks of any size. Calls its handlers at once, and holds one line at most. */
export interface LineSplitter {
  write(chunk: Buffer): void;
  end(): void;
  /**
   * Whether a line has begun that has not ended, in a way that tells it from others: a number of its own; 0 for none.
   */
  readonly unfinished: number;
  /** Gives the line that has begun away, and holds nothing any more. */
  detach(): PartialLine;
  /** Goes on with a line that another splitter began. Call it first. */
  resume(beginning: PartialLine): void;
}

/** A line that has begun, for another process to go on with. */
export interface PartialLine {
  readonly bytes: Buffer;
  /** It was counted already, and its rest is passed over. */
  readonly isSkipped: boolean;
}

const lineFeed = 0x0a;
const nothing = Buffer.alloc(0);

/**
 * Splits bytes into lines at LF or CRLF. `lineBytesMax` bounds a line without its ending, in bytes. Empty lines are
 * passed over.
 *
 * split2 looks through all that it holds at each chunk, so a line that comes in small pieces would cost the square of
 * its length. It is given whole lines only: the beginning of a line waits here, and each byte is looked at once.
 */
export function createLineSplitter(
  lineBytesMax: number,
  handlers: LineHandlers,
  memory: HeldMemory = { bytes: 0, bytesMax: Infinity },
): LineSplitter {
  // The mapper takes the lines, so nothing goes through the stream's queue and no backpressure can arise.
  const splitter = split2('\n', onText);
  /** The beginning of a line, in the first `heldBytes` of a buffer that grows by doubling. */
  let held = nothing;
  let heldBytes = 0;
  /** Whether the line that has begun is too long already, or found no room. */
  let skipping = false;
  /** Lines that have ended so far, in chunks: what `unfinished` tells lines apart by. */
  let ended = 0;

  return {
    get unfinished() {
      return heldBytes > 0 || skipping ? ended + 1 : 0;
    },
    write(chunk) {
      const first = chunk.indexOf(lineFeed);
      if (first === -1) {
        hold(chunk);
        return;
      }
      ended += 1;
      let from = 0;
      if (skipping) {
        skipping = false;
        from = first + 1;
      } else if (heldBytes > 0) {
        const fits = hold(chunk.subarray(0, first + 1));
        if (fits) takeLines(held, 0, heldBytes); // taken at once: the buffer can be used again
        skipping = false;
        from = first + 1;
      }
      release();
      const last = chunk.lastIndexOf(lineFeed);
      if (last >= from) takeLines(chunk, from, last + 1);
      if (last + 1 < chunk.length) hold(chunk.subarray(last + 1));
    },
    end() {
      if (heldBytes > 0) handlers.onUnterminated();
      release();
    },
    detach() {
      const beginning = { bytes: Buffer.from(held.subarray(0, heldBytes)), isSkipped: skipping };
      skipping = false;
      release();
      return beginning;
    },
    resume({ bytes, isSkipped }) {
      skipping = isSkipped;
      if (bytes.length > 0) hold(bytes);
    },
  };

  /** Takes whole lines, with their endings. */
  function takeLines(bytes: Buffer, from: number, to: number): void {
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
    memory.bytes -= held.length;
    held = nothing;
    heldBytes = 0;
  }

  function skip(why: (() => void) | undefined): false {
    skipping = true;
    release();
    why?.();
    return false;
  }

  /** Keeps the beginning of a line; `false` when it is too long to go on with. */
  function hold(bytes: Buffer): boolean {
    if (skipping) return false;
    const total = heldBytes + bytes.length;
    if (total > lineBytesMax + 2) {
      // with its ending
      return skip(handlers.onTooLong);
    }
    if (total > held.length) {
      const length = Math.min(2 * total, lineBytesMax + 2);
      if (memory.bytes + length - held.length > memory.bytesMax) return skip(handlers.onNoRoom);
      const larger = Buffer.allocUnsafe(length);
      memory.bytes += length - held.length;
      held.copy(larger, 0, 0, heldBytes);
      held = larger;
    }
    bytes.copy(held, heldBytes);
    heldBytes = total;
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
