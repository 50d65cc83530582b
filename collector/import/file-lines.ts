import type { RequestEvent } from '../../shared/request-event.js';
import { readDeadLetter } from '../../shared/store/open.js';
import { isPlausibleTime } from '../../shared/store/retention.js';
import { CorrelatingDecoder } from '../correlating-decoder.js';
import type { Decoded, Decoder, DecoderOptions } from '../decode/decode.js';
import type { RejectionReason } from '../ledger.js';
import { LineSplitter } from '../lines.js';
import { PartialLines } from '../partial-lines.js';
import type { ImportCounts, ImportRejection } from './counts.js';

/** Dependencies and options of `FileLines`. */
export interface FileLinesParts {
  readonly decoder: DecoderOptions;
  readonly lineBytesMax: number;
  /** See `ImportParts`. */
  readonly rollupRetentionMs: number | undefined;
  /** Updated for each line that is not a request. */
  readonly counts: Pick<ImportCounts, 'runtime' | 'rejected'>;
  readonly onRequest: (request: RequestEvent) => void;
}

const openingBrace = 0x7b;

/** Reads the decompressed lines of one file: decodes requests, and counts all other lines. */
export class FileLines {
  readonly #decoder: Decoder;
  readonly #lines: LineSplitter;
  readonly #partial: PartialLines;
  readonly #rollupRetentionMs: number | undefined;
  readonly #counts: FileLinesParts['counts'];
  readonly #onRequest: FileLinesParts['onRequest'];
  #chunkMs = 0;

  constructor({ decoder, lineBytesMax, rollupRetentionMs, counts, onRequest }: FileLinesParts) {
    this.#decoder = new CorrelatingDecoder(decoder);
    this.#partial = new PartialLines(lineBytesMax);
    this.#rollupRetentionMs = rollupRetentionMs;
    this.#counts = counts;
    this.#onRequest = onRequest;
    this.#lines = new LineSplitter(lineBytesMax, {
      onLine: (bytes, from, to) => {
        this.#readLine(bytes, from, to);
      },
      onTooLong: () => {
        this.#reject('too-long');
      },
      onUnterminated: () => {
        this.#reject('unterminated');
      },
    });
  }

  /** Reads a chunk. `nowMs`: current time in milliseconds since 1970. */
  write(chunk: Buffer, nowMs: number): void {
    this.#chunkMs = nowMs;
    this.#lines.write(chunk);
  }

  /** Ends the last line: that of a whole file needs no ending. */
  endLine(): void {
    if (this.#lines.unfinished !== 0) this.#lines.write(Buffer.from('\n'));
  }

  /** Ends the file. Counts what is incomplete. */
  end(): void {
    this.#lines.end();
    this.#reject('unterminated', this.#partial.end());
  }

  #readLine(bytes: Buffer, from: number, to: number): void {
    // Any other line may be a dead letter, or belong to an object that spans several lines. Both can contain text that
    // the decoder would take for a whole line.
    if (bytes[from] !== openingBrace || this.#partial.isInObject) {
      this.#readText(bytes.toString('utf8', from, to));
      return;
    }
    const decoded = this.#decoder.decodeLine(bytes, from, to, undefined);
    if (decoded.kind !== 'rejected') {
      this.#count(decoded);
      return;
    }
    const line = bytes.toString('utf8', from, to);
    if (this.#partial.addFileLine(line).kind === 'not-a-part') this.#readRejected(line, decoded.reason);
  }

  /** Reads a line that may belong to an object that spans several lines. */
  #readText(line: string): void {
    const part = this.#partial.addFileLine(line);
    if (part.kind === 'complete') {
      this.#readWholeText(part.line);
    } else if (part.kind === 'too-long') {
      this.#reject('too-long');
    } else if (part.kind === 'not-a-part' && part.discarded === 0) {
      this.#readWholeText(line);
    } else if (part.kind === 'not-a-part') {
      this.#reject('not-json', part.discarded);
      this.#readText(line); // it may start another object
    }
  }

  #readWholeText(line: string): void {
    const deadLetter = readDeadLetter(line);
    if (deadLetter === 'other') {
      this.#counts.runtime += 1;
    } else if (deadLetter !== undefined) {
      this.#readRequest(deadLetter);
    } else {
      const decoded = this.#decoder.decode(line, undefined);
      if (decoded.kind === 'rejected') this.#readRejected(line, decoded.reason);
      else this.#count(decoded);
    }
  }

  /** Rejects a line, unless it is a part of a line that was split into several envelopes. */
  #readRejected(line: string, reason: RejectionReason): void {
    const part = this.#partial.add(line, this.#chunkMs);
    if (part.kind === 'not-a-part') this.#reject(reason);
    else if (part.kind === 'complete') this.#count(this.#decoder.decode(part.line, undefined));
    else if (part.kind !== 'incomplete') this.#reject(part.kind);
  }

  #count(decoded: Decoded): void {
    if (decoded.kind === 'request') this.#readRequest(decoded.event);
    else if (decoded.kind === 'runtime') this.#counts.runtime += 1;
    else this.#reject(decoded.reason);
  }

  #readRequest(request: RequestEvent): void {
    const { timeMs } = request;
    if (isPlausibleTime(timeMs, { nowMs: this.#chunkMs, rollupRetentionMs: this.#rollupRetentionMs }))
      this.#onRequest(request);
    else this.#reject('bad-time');
  }

  #reject(reason: ImportRejection, count = 1): void {
    const { rejected } = this.#counts;
    if (count > 0) rejected[reason] = (rejected[reason] ?? 0) + count;
  }
}
