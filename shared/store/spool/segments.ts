import { open, readdir, readFile, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { fileAdvice, messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { writeFully } from './folder.js';
import { findHeader, headerBytes, readHeader, type RecordHeader } from './record.js';

interface Segment {
  bytes: number;
  /** Requests in all records before it. Known only for segments of this process. */
  readonly requestsBefore: number | undefined;
}

/**
 * The segments of a spool: files `1.segment`, `2.segment`, …, each a sequence of records. It knows the size up to which
 * each is written, and which are still needed. `SegmentWriter` writes them, `SegmentReader` reads them.
 */
export class Segments {
  readonly #dir: string;
  readonly #log: Log;
  /** By number, oldest first. */
  readonly #segments: Map<number, Segment>;

  private constructor(dir: string, log: Log, segments: Map<number, Segment>) {
    this.#dir = dir;
    this.#log = log;
    this.#segments = segments;
  }

  /** Finds the segments in a folder. Throws the system's error. */
  static async find(dir: string, log: Log): Promise<Segments> {
    const sizes = [...(await segmentSizes(dir))];
    return new Segments(
      dir,
      log,
      new Map(sizes.map(([segment, bytes]) => [segment, { bytes, requestsBefore: undefined }])),
    );
  }

  /** The oldest segment; `undefined` if there is none. */
  get oldest(): number | undefined {
    return this.#segments.keys().next().value;
  }

  /** The newest segment; `undefined` if there is none. */
  get newest(): number | undefined {
    return [...this.#segments.keys()].at(-1);
  }

  /** Size of all segments in bytes. */
  get bytes(): number {
    let sum = 0;
    for (const { bytes } of this.#segments.values()) sum += bytes;
    return sum;
  }

  has(segment: number): boolean {
    return this.#segments.has(segment);
  }

  /** The segment after another one; `undefined` if that is the newest. */
  after(segment: number): number | undefined {
    for (const each of this.#segments.keys()) if (each > segment) return each;
    return undefined;
  }

  pathOf(segment: number): string {
    return pathOf(this.#dir, segment);
  }

  /** Size of a segment in bytes, without a record that is being written; 0 if it does not exist. */
  sizeOf(segment: number): number {
    return this.#segments.get(segment)?.bytes ?? 0;
  }

  /**
   * Requests in a segment, without the first `requestsRead` of all; `undefined` if an earlier process wrote it. The
   * newest segment ends at `requestsAppended`.
   */
  requestsIn(segment: number, requestsRead: number, requestsAppended: number): number | undefined {
    const from = this.#segments.get(segment)?.requestsBefore;
    if (from === undefined) return undefined;
    const next = this.after(segment);
    const to = next === undefined ? undefined : this.#segments.get(next)?.requestsBefore;
    return Math.max(0, (to ?? requestsAppended) - Math.max(from, requestsRead));
  }

  /** Adds a new segment, the newest. */
  add(segment: number, requestsBefore: number): void {
    this.#segments.set(segment, { bytes: 0, requestsBefore });
  }

  /** Sets the size of a segment after a record was written. */
  grow(segment: number, bytes: number): void {
    const grown = this.#segments.get(segment);
    if (grown !== undefined) grown.bytes = bytes;
  }

  /** Forgets a segment whose file is gone. */
  forget(segment: number): void {
    this.#segments.delete(segment);
  }

  /** Deletes the segments before another one. Logs the system's error if that fails. */
  async deleteBefore(segment: number): Promise<void> {
    for (const each of [...this.#segments.keys()]) {
      if (each >= segment) continue;
      this.#segments.delete(each);
      await unlink(this.pathOf(each)).catch((error: unknown) => {
        this.#log.warn(`The spool in ${this.#dir} could not delete ${each}.segment: ${messageOf(error)}`);
      });
    }
  }

  /** Requests up to the end of the last valid record; 0 if there is none. */
  async requestsAtEnd(): Promise<number> {
    for (const segment of [...this.#segments.keys()].reverse()) {
      const bytes = await this.#readAll(segment);
      let last: RecordHeader | undefined;
      for (let at = findHeader(bytes, 0); at !== -1; at = findHeader(bytes, at + headerBytes + last.payloadBytes))
        last = readHeader(bytes, at)!;
      if (last !== undefined) return last.requestsBefore + last.requests;
    }
    return 0;
  }

  /** Requests before the first valid record; `undefined` if there is none. */
  async requestsAtBeginning(): Promise<number | undefined> {
    for (const segment of this.#segments.keys()) {
      const bytes = await this.#readAll(segment);
      const at = findHeader(bytes, 0);
      if (at !== -1) return readHeader(bytes, at)!.requestsBefore;
    }
    return undefined;
  }

  /**
   * Writes removed segments again from the files that are still open. Resolves to the segments that are lost, and to
   * the newest one in the folder, which may be foreign. Throws the system's error if the folder cannot be read.
   */
  async restore(openFileOf: (segment: number) => FileHandle | undefined): Promise<{ lost: number[]; newest: number }> {
    const present = await segmentSizes(this.#dir);
    const lost: number[] = [];
    for (const [segment, { bytes }] of this.#segments)
      if ((present.get(segment) ?? -1) < bytes && !(await this.#copyBack(segment, bytes, openFileOf(segment))))
        lost.push(segment);
    return { lost, newest: Math.max(0, ...present.keys()) };
  }

  /** Writes a removed segment again from its open file, if there is one. */
  async #copyBack(segment: number, size: number, source: FileHandle | undefined): Promise<boolean> {
    if (source === undefined) return false;
    try {
      const bytes = Buffer.alloc(size);
      const { bytesRead } = await source.read(bytes, 0, size, 0);
      if (bytesRead < size) return false;
      const target = await open(this.pathOf(segment), 'w', 0o600);
      await writeFully(target, [bytes], 0)
        .then(() => target.datasync())
        .finally(() => target.close());
      return true;
    } catch (error) {
      this.#log.error(
        `Cannot write ${segment}.segment of the spool in ${this.#dir} again: ${messageOf(error)}. ${fileAdvice(error)}`,
      );
      return false;
    }
  }

  async #readAll(segment: number): Promise<Buffer> {
    return await readFile(this.pathOf(segment)).catch(() => Buffer.alloc(0));
  }
}

/** Size of each segment in a folder in bytes, oldest first. Throws the underlying I/O error. */
export async function segmentSizes(dir: string): Promise<Map<number, number>> {
  const numbers = (await readdir(dir))
    .flatMap((name) => /^([1-9]\d{0,14})\.segment$/.exec(name)?.[1] ?? [])
    .map(Number);
  const sizes = new Map<number, number>();
  for (const segment of numbers.sort((one, other) => one - other))
    sizes.set(segment, (await stat(pathOf(dir, segment))).size);
  return sizes;
}

function pathOf(dir: string, segment: number): string {
  return join(dir, `${segment}.segment`);
}
