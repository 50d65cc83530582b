import { open, type FileHandle } from 'node:fs/promises';
import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { isAt, writeFully, type SpoolFolder } from './folder.js';
import { encodeRecord, headerBytes } from './record.js';
import type { Segments } from './segments.js';

/** Dependencies and limits of a `SegmentWriter`. */
export interface SegmentWriterParts {
  readonly folder: SpoolFolder;
  readonly segments: Segments;
  /** Maximum size of a segment, in bytes. */
  readonly segmentBytesMax: number;
  /** The newest segment of earlier processes, or a later number. */
  readonly lastSegment: number;
  /** Requests in all records of earlier processes. */
  readonly requestsAtStart: number;
  readonly log: Log;
}

/**
 * Appends records to the newest segment. A new one begins when it is full, after a failed write, and at each start:
 * segments of an earlier process are never changed. One call at a time, except for the getters.
 */
export class SegmentWriter {
  readonly #folder: SpoolFolder;
  readonly #segments: Segments;
  readonly #segmentBytesMax: number;
  readonly #log: Log;
  #segment: number;
  #offset = 0;
  #requests: number;
  /** File of the segment; `undefined` before the next one begins. */
  #file: FileHandle | undefined;
  #isDirty = false;

  constructor({ folder, segments, segmentBytesMax, lastSegment, requestsAtStart, log }: SegmentWriterParts) {
    this.#folder = folder;
    this.#segments = segments;
    this.#segmentBytesMax = segmentBytesMax;
    this.#segment = lastSegment;
    this.#requests = requestsAtStart;
    this.#log = log;
  }

  /** Number of requests in all records so far. */
  get requests(): number {
    return this.#requests;
  }

  /** Appends a record. Resolves when the operating system has it. Throws the system's error; then it is not stored. */
  async append(payload: Buffer, requests: number): Promise<void> {
    const parts = encodeRecord(payload, requests, this.#requests);
    const length = headerBytes + payload.length;
    if (this.#offset > 0 && this.#offset + length > this.#segmentBytesMax) await this.endSegment();
    const file = this.#file ?? (await this.#beginSegment());
    try {
      await writeFully(file, parts, this.#offset);
    } catch (error) {
      // A partial record must not precede others: truncate it, or end the segment.
      await file.truncate(this.#offset).catch(() => this.endSegment());
      throw error;
    }
    this.#offset += length;
    this.#requests += requests;
    this.#isDirty = true;
    this.#segments.grow(this.#segment, this.#offset);
  }

  /**
   * Syncs and closes the newest segment, if it is `segment`, so that the next record begins another one. Logs the
   * system's error.
   */
  async endSegment(segment = this.#segment): Promise<void> {
    if (segment !== this.#segment) return;
    const file = this.#file;
    this.#file = undefined;
    await file?.datasync().catch((error: unknown) => {
      this.#log.error(`Cannot sync the spool in ${this.#folder.dir}: ${messageOf(error)}`);
    });
    await file?.close().catch(() => undefined);
  }

  /** Syncs records written since the last call. Logs the system's error, and then ends the segment. */
  async sync(): Promise<void> {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    try {
      await this.#file?.datasync();
    } catch (error) {
      // The kernel discards data that it could not write; later records must not follow the gap.
      this.#log.error(
        `Cannot sync the spool in ${this.#folder.dir}: ${messageOf(error)}. A power failure may lose queued requests.`,
      );
      await this.endSegment();
    }
  }

  /** Closes the segment without a sync. Throws the system's error. */
  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Whether the path of the newest segment still names the open file. */
  async isInPlace(): Promise<boolean> {
    return this.#file === undefined || (await isAt(this.#file, this.#segments.pathOf(this.#segment)));
  }

  /** The file of a segment, if that is the one being written. */
  openFileOf(segment: number): FileHandle | undefined {
    return segment === this.#segment ? this.#file : undefined;
  }

  /** Leaves the numbers up to `segment` to other files. */
  skipTo(segment: number): void {
    this.#segment = Math.max(this.#segment, segment);
  }

  async #beginSegment(): Promise<FileHandle> {
    const segment = this.#segment + 1;
    const file = await open(this.#segments.pathOf(segment), 'wx+', 0o600);
    this.#file = file;
    this.#segment = segment;
    this.#offset = 0;
    this.#segments.add(segment, this.#requests);
    await this.#folder.sync();
    return file;
  }
}
