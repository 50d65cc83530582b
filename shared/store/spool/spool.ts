/**
 * A spool: a queue of records on disk, in order, until they are delivered.
 *
 * A folder has segments `1.segment`, `2.segment`, …, each a sequence of records (`record.ts`), and the file
 * `position`: up to where records are delivered.
 *
 * - `append` resolves when the operating system has the record, so it survives SIGKILL. `fdatasync` follows within
 *   500 ms, and on close, so a power failure loses at most half a second.
 * - Records are read in the order of appending. Delivered segments are deleted. The position is written at most every
 *   500 ms.
 * - Opening fails only if files cannot be created. A torn record at the end of a segment, damaged bytes, a missing
 *   segment, or a stale, damaged or missing position lose only the damaged records.
 * - Opening reads the position, the segment sizes, and the newest segment with a record: its duration does not depend
 *   on the amount of queued data.
 * - Removed files, or a removed folder, are noticed before the next append and within 500 ms. The folder is created
 *   again and open segments are copied back. Lost segments are logged, and counted as dead-lettered when the reader
 *   reaches the gap.
 * - When the size limit is reached or the disk is full, `append` rejects the new record. The oldest are preserved: they
 *   show how an outage began, and later rollup rows, which are cumulative, rely on them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileAdvice, messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { RequestCounts, type SpoolCounts } from './counts.js';
import { SpoolFolder } from './folder.js';
import { PositionFile, readPosition, type Position } from './position.js';
import { headerBytes } from './record.js';
import { SegmentReader, type SpoolRecord } from './segment-reader.js';
import { SegmentWriter } from './segment-writer.js';
import { Segments, segmentSizes } from './segments.js';

export type { SpoolCounts } from './counts.js';
export type { SpoolRecord } from './segment-reader.js';

/** Location and limits of a spool. */
export interface SpoolOptions {
  /** Created if missing. */
  readonly dir: string;
  /** Maximum size of all segments, in bytes. */
  readonly bytesMax: number;
  /** Maximum size of a segment, in bytes. Default: a sixteenth of `bytesMax`, at most 8 MiB. */
  readonly segmentBytesMax?: number;
  readonly log: Log;
}

/** The spool has reached its size limit. */
export class SpoolFullError extends Error {
  override readonly name = 'SpoolFullError';
}

/** Maximum time before data is synced (`fdatasync`) and the position is written, in milliseconds. */
const syncMs = 500;

/**
 * Opens a spool. Throws a `StoreError` ('stop') if another process uses it, and the system's error if its folder
 * cannot be created or read.
 */
export async function openSpool(options: SpoolOptions): Promise<Spool> {
  const { dir, log } = options;
  const folder = await SpoolFolder.open(dir);
  const position = await PositionFile.open(dir, log);
  const segments = await Segments.find(dir, log);
  const saved = position.position;
  // Segments before the position are delivered: the process crashed after writing the position, before deleting them.
  if (saved !== undefined) await segments.deleteBefore(saved.segment);
  const requestsAtStart = Math.max(await segments.requestsAtEnd(), saved?.requests ?? 0);
  const lastSegment = Math.max(segments.newest ?? 0, saved?.segment ?? 0);
  const requestsRead = saved?.requests ?? (await segments.requestsAtBeginning()) ?? requestsAtStart;
  const start =
    saved !== undefined && segments.has(saved.segment)
      ? saved
      : { segment: segments.oldest ?? lastSegment + 1, offset: 0, requests: requestsRead };
  position.beginAt(start);
  return new Spool(options, { folder, position, segments, start, lastSegment, requestsAtStart });
}

/** What was found in the folder. */
interface SpoolParts {
  readonly folder: SpoolFolder;
  readonly position: PositionFile;
  readonly segments: Segments;
  readonly start: Position;
  /** Number of the last segment of an earlier process. */
  readonly lastSegment: number;
  readonly requestsAtStart: number;
}

/** Records queued for delivery. One reader, one writer. Open it with `openSpool`. */
export class Spool {
  readonly #bytesMax: number;
  readonly #log: Log;
  readonly #folder: SpoolFolder;
  readonly #position: PositionFile;
  readonly #segments: Segments;
  readonly #lastEarlierSegment: number;
  readonly #writer: SegmentWriter;
  readonly #reader: SegmentReader;
  readonly #counts: RequestCounts;
  readonly #timer: NodeJS.Timeout;
  /** The last of the operations that `#serialize` has started. */
  #appending: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  /** Last error of `#repair`, which is logged only once. */
  #folderProblem: string | undefined;

  constructor(
    { dir, bytesMax, segmentBytesMax = Math.min(8 * 2 ** 20, Math.ceil(bytesMax / 16)), log }: SpoolOptions,
    { folder, position, segments, start, lastSegment, requestsAtStart }: SpoolParts,
  ) {
    this.#bytesMax = bytesMax;
    this.#log = log;
    this.#folder = folder;
    this.#position = position;
    this.#segments = segments;
    this.#lastEarlierSegment = lastSegment;
    this.#writer = new SegmentWriter({ folder, segments, segmentBytesMax, lastSegment, requestsAtStart, log });
    this.#reader = new SegmentReader({
      dir,
      segments,
      start,
      requestsAppended: () => this.#writer.requests,
      onGap: (from, to) => {
        this.#counts.lose(from, to);
      },
      endSegment: (segment) => this.#serialize(() => this.#writer.endSegment(segment)),
      log,
    });
    this.#counts = new RequestCounts({ requestsRead: start.requests, requestsAtStart });
    this.#timer = setInterval(() => {
      // Already logged; the next append meets it again.
      this.#serialize(() => this.#maintain()).catch(() => undefined);
    }, syncMs);
  }

  /** Whether all appended records are committed. */
  get isEmpty(): boolean {
    return this.#reader.isAtEnd;
  }

  /** Size of the segments in bytes. */
  get bytes(): number {
    return this.#segments.bytes;
  }

  /** Requests appended since the spool was opened. */
  get own(): SpoolCounts {
    return this.#counts.own(this.#writer.requests);
  }

  /** Requests left by an earlier process. */
  get earlier(): SpoolCounts {
    return this.#counts.earlier;
  }

  /** Number of damaged ranges found since the spool was opened. */
  get damages(): number {
    return this.#reader.damages;
  }

  /**
   * Appends a record. Throws a `SpoolFullError` beyond the size limit, else the system's error; then the record is
   * not stored.
   */
  async append(payload: Buffer, requests: number): Promise<void> {
    await this.#serialize(async () => {
      if (!(await this.#isInPlace())) await this.#repair();
      if (this.#segments.bytes + headerBytes + payload.length > this.#bytesMax)
        throw new SpoolFullError(`the limit of ${this.#bytesMax} bytes (SPOOL_BYTES_MAX) is reached`);
      await this.#writer.append(payload, requests);
      this.#reader.wake();
    });
  }

  /**
   * Reads the next records: at least one, and more if they are in the same segment and total at most `bytesMax`
   * bytes. Waits for a record; resolves to none when the spool is closed. Records not committed are read again after
   * a restart.
   */
  async read(bytesMax: number): Promise<SpoolRecord[]> {
    return await this.#reader.read(bytesMax);
  }

  /** Commits the next of the records returned by the last `read`, of whose requests `deadLettered` were rejected. */
  async commit(records: readonly SpoolRecord[], deadLettered: number): Promise<void> {
    const last = records.at(-1);
    if (last === undefined) return;
    this.#reader.committed(last);
    this.#counts.commit({
      isOwn: last.segment > this.#lastEarlierSegment, // one process has written all records of a read
      requests: records.reduce((sum, { requests }) => sum + requests, 0),
      deadLettered,
    });
    this.#position.moveTo({ segment: last.segment, offset: last.endOffset, requests: last.requestsUpTo });
    await this.#segments.deleteBefore(last.segment);
  }

  /** Ends a pending `read`, then syncs and closes the files. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#timer);
    await this.#reader.stop();
    await this.#serialize(async () => {
      await this.#sync();
      await this.#writer.close();
    });
    await this.#reader.close();
    await this.#position.close();
    await this.#folder.release();
  }

  /** Serializes all operations on the folder and the newest segment. */
  #serialize<Result>(run: () => Promise<Result>): Promise<Result> {
    const result = this.#appending.then(run);
    this.#appending = result.catch(() => undefined);
    return result;
  }

  async #maintain(): Promise<void> {
    if (!(await this.#isInPlace()) || !(await this.#folder.isLocked()) || !(await this.#position.isInPlace()))
      await this.#repair();
    await this.#sync();
  }

  async #sync(): Promise<void> {
    await this.#writer.sync();
    await this.#position.write();
  }

  /**
   * Whether the folder and the newest segment are still in place: data written to a removed file would be gone at the
   * next start.
   */
  async #isInPlace(): Promise<boolean> {
    return (await this.#folder.isInPlace()) && (await this.#writer.isInPlace());
  }

  /** Creates removed files again. Throws the system's error, or a `StoreError` if another process uses the folder now. */
  async #repair(): Promise<void> {
    const what = `Files of the spool in ${this.#folder.dir} were removed or replaced while it was in use`;
    try {
      await this.#folder.restore();
      await this.#position.restore();
      const { lost, newest } = await this.#segments.restore(
        (segment) => this.#writer.openFileOf(segment) ?? this.#reader.openFileOf(segment),
      );
      await this.#writer.endSegment();
      this.#writer.skipTo(newest); // a folder that replaced this one may have other segments
      await this.#folder.sync();
      this.#log.error(`${what}. ${this.#describeLoss(lost)}`);
      for (const segment of lost) this.#segments.forget(segment);
      this.#folderProblem = undefined;
      this.#reader.wake();
    } catch (error) {
      const problem = messageOf(error);
      if (problem !== this.#folderProblem)
        this.#log.error(
          `${what}, and they cannot be created again: ${problem}${error instanceof StoreError ? '' : `. ${fileAdvice(error)}`}`,
        );
      this.#folderProblem = problem;
      throw error;
    }
  }

  /** Describes the loss of segments: the number of requests in them that were not delivered yet. */
  #describeLoss(lost: readonly number[]): string {
    let own = 0;
    let earlierFiles = 0;
    for (const segment of lost) {
      const requests = this.#segments.requestsIn(segment, this.#reader.requests, this.#writer.requests);
      if (requests !== undefined) own += requests;
      else if (segment >= this.#reader.segment) earlierFiles += 1;
    }
    if (own + earlierFiles === 0) return 'Nothing is lost: the queued requests were written again.';
    return `${own} requests are lost${earlierFiles === 0 ? '' : `, and those in ${earlierFiles} files of an earlier start`}: they are counted as dead-lettered. Import the log files of that time to add them again.`;
  }
}

/**
 * Waits until the current records of a spool are delivered by the process that uses it; resolves to `false` after
 * `waitMsMax`. A missing folder counts as delivered.
 */
export async function spoolPassed(dir: string, waitMsMax: number): Promise<boolean> {
  const [segment, size] = [...(await segmentSizes(dir).catch(() => new Map<number, number>()))].at(-1) ?? [0, 0];
  for (const endMs = performance.now() + waitMsMax; ; ) {
    const position = await readPosition(dir);
    if (
      size === 0 ||
      (position !== undefined &&
        (position.segment > segment || (position.segment === segment && position.offset >= size)))
    )
      return true;
    if (performance.now() > endMs) return false;
    await sleep(syncMs / 2);
  }
}
