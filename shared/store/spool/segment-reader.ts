import { mkdir, open, rename, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Position } from './position.js';
import { checksumOf, findHeader, headerBytes, readHeader, type RecordHeader } from './record.js';
import type { Segments } from './segments.js';

/** A record read from the spool. */
export interface SpoolRecord {
  readonly payload: Buffer;
  readonly requests: number;
  /** Segment and offset of its end. */
  readonly segment: number;
  readonly endOffset: number;
  /** Requests in all records up to its end. */
  readonly requestsUpTo: number;
}

/** Dependencies of a `SegmentReader`. */
export interface SegmentReaderParts {
  readonly dir: string;
  readonly segments: Segments;
  /** Where reading begins. */
  readonly start: Position;
  /** Returns the requests in all records that have been appended. */
  readonly requestsAppended: () => number;
  /** Called with a gap between two records: the requests before and after it. */
  readonly onGap: (from: number, to: number) => void;
  /** Ends a segment if it is still being written. */
  readonly endSegment: (segment: number) => Promise<void>;
  readonly log: Log;
}

/** Maximum size of copied damaged bytes: enough for an analysis, without filling the disk. */
const damagedBytesMax = 16 * 2 ** 20;

/**
 * Reads the records of all segments in the order of appending, and waits for new ones. Skips damaged bytes, and copies
 * them to the folder `damaged`. Each record has the number of requests before it, so gaps are counted in requests.
 */
export class SegmentReader {
  readonly #parts: SegmentReaderParts;
  readonly #segments: Segments;
  #segment: number;
  #offset: number;
  #requests: number;
  #file: FileHandle | undefined;
  #fileSegment = 0;
  /** Whether the last records read are not committed yet. */
  #hasUncommitted = false;
  #damages = 0;
  #damagedBytes = 0;
  #reading: Promise<unknown> = Promise.resolve();
  #isStopped = false;
  #wake: (() => void) | undefined;

  constructor(parts: SegmentReaderParts) {
    this.#parts = parts;
    this.#segments = parts.segments;
    ({ segment: this.#segment, offset: this.#offset, requests: this.#requests } = parts.start);
  }

  /** The segment that is being read. */
  get segment(): number {
    return this.#segment;
  }

  /** Requests in all records before the next one. */
  get requests(): number {
    return this.#requests;
  }

  /** Number of damaged ranges found. */
  get damages(): number {
    return this.#damages;
  }

  /** Whether all records are read and committed. */
  get isAtEnd(): boolean {
    return !this.#hasUncommitted && this.#offset >= this.#limit && this.#segments.after(this.#segment) === undefined;
  }

  /** See `Spool.read`. One call at a time. */
  async read(bytesMax: number): Promise<SpoolRecord[]> {
    const result = this.#read(bytesMax);
    this.#reading = result.catch(() => undefined);
    return await result;
  }

  /** Records up to where the records of the last read are committed. */
  committed(last: SpoolRecord): void {
    this.#hasUncommitted = last.segment !== this.#segment || last.endOffset !== this.#offset;
  }

  /** Ends the wait for a record. Call it when there is one. */
  wake(): void {
    this.#wake?.();
  }

  /** The file of a segment, if that is the one being read. */
  openFileOf(segment: number): FileHandle | undefined {
    return segment === this.#fileSegment ? this.#file : undefined;
  }

  /** Ends a pending `read`. Resolves when it has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.wake();
    await this.#reading;
  }

  /** Closes the file. Call it after `stop`. */
  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async #read(bytesMax: number): Promise<SpoolRecord[]> {
    const records: SpoolRecord[] = [];
    let bytes = 0;
    while (!this.#isStopped) {
      const isFirst = records.length === 0;
      const limit = this.#limit;
      if (this.#offset >= limit) {
        if (!isFirst) break;
        await this.#nextSegment();
        continue;
      }
      try {
        const header = await this.#readHeader(limit);
        if (header !== undefined && !isFirst && bytes + header.payloadBytes > bytesMax) break;
        const payload = header === undefined ? undefined : await this.#readPayload(header);
        if (header !== undefined && payload !== undefined) {
          records.push(this.#take(header, payload));
          bytes += payload.length;
          continue;
        }
        if (!isFirst) break; // the next read handles it
        await this.#skipDamage(header, limit);
      } catch (error) {
        if (!isFirst) break;
        await this.#skipSegment(error);
      }
    }
    this.#hasUncommitted = records.length > 0;
    return records;
  }

  /** Moves to the next segment, or waits if this is the newest. */
  async #nextSegment(): Promise<void> {
    // No `await` between the caller's check and the wait: it would miss an append in between.
    const next = this.#segments.after(this.#segment);
    if (next !== undefined) {
      this.#segment = next;
      this.#offset = 0;
      return;
    }
    this.#moveTo(this.#parts.requestsAppended()); // damage at the end
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Reads the header of the next record; `undefined` if it is damaged or the record is torn. */
  async #readHeader(limit: number): Promise<RecordHeader | undefined> {
    const header = readHeader(await this.#readBytes(this.#offset, Math.min(headerBytes, limit - this.#offset)));
    return header !== undefined && this.#endOf(header) <= limit ? header : undefined;
  }

  /** Reads the payload of the next record; `undefined` if it is damaged. */
  async #readPayload({ payloadBytes, payloadChecksum }: RecordHeader): Promise<Buffer | undefined> {
    const payload = await this.#readBytes(this.#offset + headerBytes, payloadBytes);
    return checksumOf(payload) === payloadChecksum ? payload : undefined;
  }

  /** Moves past a valid record and returns it. */
  #take(header: RecordHeader, payload: Buffer): SpoolRecord {
    this.#moveTo(header.requestsBefore);
    this.#offset = this.#endOf(header);
    this.#requests += header.requests;
    return {
      payload,
      requests: header.requests,
      segment: this.#segment,
      endOffset: this.#offset,
      requestsUpTo: this.#requests,
    };
  }

  #moveTo(requests: number): void {
    this.#parts.onGap(this.#requests, requests);
    this.#requests = requests;
  }

  /** Skips a record with a valid header and a damaged payload, or everything up to the next valid header. */
  async #skipDamage(header: RecordHeader | undefined, limit: number): Promise<void> {
    const { dir, log } = this.#parts;
    const endOffset = header === undefined ? await this.#findRecord(limit) : this.#endOf(header);
    this.#damages += 1;
    const bytes = await this.#readBytes(this.#offset, endOffset - this.#offset);
    const name = join(dir, 'damaged', `${this.#segment}-${this.#offset}`);
    log.error(
      `The spool in ${dir} is damaged: ${bytes.length} bytes at offset ${this.#offset} of ${this.#segment}.segment are unreadable. They are copied to ${name}.`,
    );
    this.#offset = endOffset;
    if (this.#damagedBytes + bytes.length > damagedBytesMax) return;
    this.#damagedBytes += bytes.length;
    try {
      await mkdir(join(dir, 'damaged'), { recursive: true, mode: 0o700 });
      const file = await open(name, 'w', 0o600);
      await file.writeFile(bytes).finally(() => file.close());
    } catch (error) {
      log.warn(`Cannot copy the damaged bytes to ${name}: ${messageOf(error)}`);
    }
  }

  /** Offset of the next valid header after damage, or the end of the segment. */
  async #findRecord(limit: number): Promise<number> {
    const next = findHeader(await this.#readBytes(this.#offset, limit - this.#offset), 1);
    return next === -1 ? limit : this.#offset + next;
  }

  /** Skips a segment that was removed or cannot be read. */
  async #skipSegment(error: unknown): Promise<void> {
    const { dir, log, endSegment } = this.#parts;
    const segment = this.#segment;
    this.#damages += 1;
    log.error(
      `Cannot read ${segment}.segment of the spool in ${dir} from offset ${this.#offset}: ${messageOf(error)}. The rest of it is skipped.`,
    );
    await endSegment(segment);
    await mkdir(join(dir, 'damaged'), { recursive: true, mode: 0o700 }).catch(() => undefined);
    await rename(this.#segments.pathOf(segment), join(dir, 'damaged', `${segment}.segment`)).catch(() => undefined);
    this.#segments.forget(segment);
    this.#offset = 0;
  }

  get #limit(): number {
    return this.#segments.sizeOf(this.#segment);
  }

  #endOf(header: RecordHeader): number {
    return this.#offset + headerBytes + header.payloadBytes;
  }

  async #readBytes(offset: number, length: number): Promise<Buffer> {
    if (this.#fileSegment !== this.#segment || this.#file === undefined) {
      await this.#file?.close();
      this.#file = await open(this.#segments.pathOf(this.#segment), 'r');
      this.#fileSegment = this.#segment;
    }
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await this.#file.read(bytes, 0, length, offset);
    return bytes.subarray(0, bytesRead);
  }
}
