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
  /** Resolves when the last handler has been called. */
  end(): Promise<void>;
}

/**
 * Splits bytes into lines at LF or CRLF. `lineBytesMax` bounds a line without its ending, in bytes of UTF-8. Empty lines
 * are passed over.
 */
export function createLineSplitter(lineBytesMax: number, handlers: LineHandlers): LineSplitter {
  let skipping = false;
  let ended = false;
  // The mapper takes the lines, so nothing goes through the stream's queue and no backpressure can arise. `skipOverflow`
  // bounds what is held; a long line inside one chunk passes through, so each is measured as well.
  const options = { maxLength: lineBytesMax, skipOverflow: true };
  const splitter = split2('\n', takeLine, options) as ReturnType<typeof split2> & { readonly overflow: boolean };
  return {
    write(chunk) {
      splitter.write(chunk);
      if (splitter.overflow && !skipping) handlers.onTooLong();
      skipping = splitter.overflow;
    },
    end() {
      ended = true;
      return new Promise((resolve) => { splitter.end(resolve); });
    },
  };

  function takeLine(raw: string): undefined {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (ended) { // what is left over at the end has no line ending
      if (!skipping) handlers.onUnterminated();
    } else if (line.length > lineBytesMax || (line.length * 3 > lineBytesMax && Buffer.byteLength(line) > lineBytesMax)) {
      handlers.onTooLong();
    } else if (line !== '') {
      handlers.onLine(line);
    }
  }
}
