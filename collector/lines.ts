import split2 from 'split2';

/** What happens with the lines of one connection. The handlers must not throw. */
export interface LineHandlers {
  readonly onLine: (line: string) => void;
  /** Called once for each line that is longer than the bound, and is skipped. */
  readonly onTooLong: () => void;
  /** Called after the end when bytes without a line ending are left over. */
  readonly onUnterminated: () => void;
}

/** Takes the bytes of one connection in chunks of any size. Calls its handlers at once, and holds one line at most. */
export interface LineSplitter {
  write(chunk: Buffer): void;
  end(): void;
}

const lineFeed = 0x0a;
/** A connection keeps a buffer of this size between lines; larger ones are given back. */
const heldBytesKept = 65_536;

/**
 * Splits bytes into lines at LF or CRLF. `lineBytesMax` bounds a line without its ending, in bytes. Empty lines are passed over.
 *
 * split2 looks through all that it holds at each chunk, so a line that comes in small pieces would cost the square of its length.
 * It is given whole lines only: the beginning of a line waits here, and each byte is looked at once.
 */
export function createLineSplitter(lineBytesMax: number, handlers: LineHandlers): LineSplitter {
  // The mapper takes the lines, so nothing goes through the stream's queue and no backpressure can arise.
  const splitter = split2('\n', takeLine);
  /** The beginning of a line, in the first `heldBytes` of a buffer that grows by doubling. */
  let held = Buffer.alloc(0);
  let heldBytes = 0;
  /** Whether the line that has begun is too long already. */
  let skipping = false;

  return {
    write(chunk) {
      const first = chunk.indexOf(lineFeed);
      if (first === -1) {
        hold(chunk);
        return;
      }
      let from = 0;
      if (skipping) {
        skipping = false;
        from = first + 1;
      } else if (heldBytes > 0) {
        const fits = hold(chunk.subarray(0, first + 1));
        if (fits) splitter.write(held.subarray(0, heldBytes)); // taken at once: the buffer can be used again
        skipping = false;
        from = first + 1;
      }
      heldBytes = 0;
      if (held.length > heldBytesKept) held = Buffer.alloc(0);
      const last = chunk.lastIndexOf(lineFeed);
      if (last >= from) splitter.write(chunk.subarray(from, last + 1));
      if (last + 1 < chunk.length) hold(chunk.subarray(last + 1));
    },
    end() {
      if (heldBytes > 0) handlers.onUnterminated();
      heldBytes = 0;
    },
  };

  /** Keeps the beginning of a line; `false` when it is too long to go on with. */
  function hold(bytes: Buffer): boolean {
    if (skipping) return false;
    const total = heldBytes + bytes.length;
    if (total > lineBytesMax + 2) { // with its ending
      skipping = true;
      heldBytes = 0;
      held = Buffer.alloc(0);
      handlers.onTooLong();
      return false;
    }
    if (total > held.length) {
      const larger = Buffer.allocUnsafe(Math.min(2 * total, lineBytesMax + 2));
      held.copy(larger, 0, 0, heldBytes);
      held = larger;
    }
    bytes.copy(held, heldBytes);
    heldBytes = total;
    return true;
  }

  function takeLine(raw: string): undefined {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (line.length > lineBytesMax || (line.length * 3 > lineBytesMax && Buffer.byteLength(line) > lineBytesMax)) {
      handlers.onTooLong();
    } else if (line !== '') {
      handlers.onLine(line);
    }
  }
}
