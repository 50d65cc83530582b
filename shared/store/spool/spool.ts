/**
 * A spool: a queue of records on disk, in order, until they are delivered.
 *
 * A folder has segments `1.segment`, `2.segment`, …, each a sequence of records (`record.ts`), and the file
 * `position`: up to where records are delivered.
 *
 * - Records are appended to the newest segment. A new one begins when it is full, after a failed write, and at each
 *   start: segments of an earlier process are never changed.
 * - `append` resolves when the operating system has the record, so it survives SIGKILL. `fdatasync` follows within
 *   500 ms, and on close, so a power failure loses at most half a second.
 * - Records are read in the order of appending. Delivered segments are deleted.
 * - The position is written after delivery, at most every 500 ms: after a crash, some records are delivered again.
 * - Opening fails only if files cannot be created. A torn record at the end of a segment, damaged bytes, a missing
 *   segment, or a stale, damaged or missing position lose only the damaged records. Damaged bytes are copied to the
 *   folder `damaged` and counted. Each record has the number of requests before it, so gaps are counted in requests.
 * - Opening reads the position, the segment sizes, and the newest segment with a record: its duration does not depend
 *   on the amount of queued data.
 * - Removed files, or a removed folder, are noticed before the next append and within 500 ms. The folder is created
 *   again and open segments are copied back. Lost segments are logged, and counted as dead-lettered when the reader
 *   reaches the gap.
 * - When the size limit is reached or the disk is full, `append` rejects the new record. The oldest are preserved: they
 *   show how an outage began, and later rollup rows, which are cumulative, rely on them.
 */
import { constants } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileAdvice, messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { makeFolder } from '../../make-folder.js';
import { lockFolder } from './lock.js';
import { checksumOf, encodeRecord, findHeader, headerBytes, readHeader } from './record.js';

/** Records queued for delivery. One reader, one writer. */
export interface Spool {
  /**
   * Appends a record. Throws a `SpoolFullError` beyond the size limit, else the system's error; then the record is
   * not stored.
   */
  append(payload: Buffer, requests: number): Promise<void>;
  /**
   * Reads the next records: at least one, and more if they are in the same segment and total at most `bytesMax`
   * bytes. Waits for a record; resolves to none when the spool is closed. Records not committed are read again after
   * a restart.
   */
  read(bytesMax: number): Promise<SpoolRecord[]>;
  /** Commits the next of the records returned by the last `read`, of whose requests `deadLettered` were rejected. */
  commit(records: readonly SpoolRecord[], deadLettered: number): Promise<void>;
  /** Whether all appended records are committed. */
  readonly isEmpty: boolean;
  /** Size of the segments in bytes. */
  readonly bytes: number;
  /** Requests appended since the spool was opened. */
  readonly own: SpoolCounts;
  /** Requests left by an earlier process. */
  readonly earlier: SpoolCounts;
  /** Number of damaged ranges found since the spool was opened. */
  readonly damages: number;
  /** Ends a pending `read`, then syncs and closes the files. */
  close(): Promise<void>;
}

/** Number of requests by state. Those of damaged records count as dead-lettered. */
export interface SpoolCounts {
  readonly spooled: number;
  readonly stored: number;
  readonly deadLettered: number;
}

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
/** Maximum size of copied damaged bytes: enough for an analysis, without filling the disk. */
const damagedBytesMax = 16 * 2 ** 20;

/**
 * Opens a spool. Throws a `StoreError` ('stop') if another process uses it, and the system's error if its folder
 * cannot be created or read.
 */
export async function openSpool(options: SpoolOptions): Promise<Spool> {
  const { dir, bytesMax, log } = options;
  const segmentBytesMax = options.segmentBytesMax ?? Math.min(8 * 2 ** 20, Math.ceil(bytesMax / 16));
  await makeFolder(dir);
  let lock = await lockFolder(dir);
  const pathOf = (segment: number): string => join(dir, `${segment}.segment`);
  const positionPath = join(dir, 'position');
  const openPosition = (): Promise<FileHandle> => open(positionPath, constants.O_RDWR | constants.O_CREAT, 0o600);
  let positionFile = await openPosition();
  let folder = await stat(dir, { bigint: true });

  const sizes = await segmentSizes(dir);
  const position = parsePosition(await positionFile.readFile('latin1'));
  // Segments before the position are delivered: the process crashed after writing the position, before deleting them.
  for (const segment of sizes.keys()) if (position !== undefined && segment < position.segment) await remove(segment);

  const newest = [...sizes.keys()].at(-1) ?? 0;
  const requestsAtStart = Math.max(await lastRequests(), position?.requests ?? 0);
  const writer = {
    segment: Math.max(newest, position?.segment ?? 0),
    offset: 0,
    requests: requestsAtStart,
    handle: undefined as FileHandle | undefined,
    dirty: false,
  };
  const firstOwnSegment = writer.segment + 1;
  const reader = {
    segment: sizes.has(position?.segment ?? -1) ? position!.segment : ([...sizes.keys()][0] ?? firstOwnSegment),
    offset: sizes.has(position?.segment ?? -1) ? position!.offset : 0,
    requests: position?.requests ?? (await firstRequests()),
    handle: undefined as FileHandle | undefined,
    handleSegment: 0,
  };
  let committed = { segment: reader.segment, offset: reader.offset, requests: reader.requests };
  let positionDirty = false;
  const found = requestsAtStart - reader.requests;
  const earlier = { stored: 0, deadLettered: 0 };
  const own = { stored: 0, deadLettered: 0 };
  let damages = 0;
  let setAsideBytes = 0;
  /** Whether the last records read are not committed yet. */
  let outstanding = false;
  let reading: Promise<unknown> = Promise.resolve();
  let closed = false;
  let wake: (() => void) | undefined;
  let appending: Promise<unknown> = Promise.resolve();
  /** Requests before each segment of this process. */
  const requestsBefore = new Map<number, number>();
  /** Last error of `repairFolder`, which is logged only once. */
  let folderProblem: string | undefined;
  const timer = setInterval(() => {
    void serialize(async () => {
      if (!(await isInPlace()) || !(await lock.isHeld()) || !(await isAt(positionFile, positionPath)))
        await repairFolder();
      await sync();
    }).catch(() => undefined); // already logged; the next append meets it again
  }, syncMs);

  return {
    append: (payload, requests) => serialize(() => append(payload, requests)),
    async read(bytesAtOnceMax) {
      const result = read(bytesAtOnceMax);
      reading = result.catch(() => undefined);
      return await result;
    },
    commit,
    get isEmpty() {
      return !outstanding && reader.offset >= limitOf(reader.segment) && segmentAfter(reader.segment) === undefined;
    },
    get bytes() {
      return totalBytes();
    },
    get own() {
      return { ...own, spooled: writer.requests - requestsAtStart - own.stored - own.deadLettered };
    },
    get earlier() {
      return { ...earlier, spooled: found - earlier.stored - earlier.deadLettered };
    },
    get damages() {
      return damages;
    },
    async close() {
      if (closed) return;
      closed = true;
      clearInterval(timer);
      wake?.();
      await reading;
      await serialize(async () => {
        await sync();
        await writer.handle?.close();
        writer.handle = undefined;
      });
      await reader.handle?.close();
      reader.handle = undefined;
      await positionFile.close();
      await lock.release();
    },
  };

  /** Serializes all operations on the newest segment. */
  function serialize<Result>(run: () => Promise<Result>): Promise<Result> {
    const result = appending.then(run);
    appending = result.catch(() => undefined);
    return result;
  }

  async function append(payload: Buffer, requests: number): Promise<void> {
    const parts = encodeRecord(payload, requests, writer.requests);
    const length = headerBytes + payload.length;
    if (!(await isInPlace())) await repairFolder();
    if (totalBytes() + length > bytesMax)
      throw new SpoolFullError(`the limit of ${bytesMax} bytes (SPOOL_BYTES_MAX) is reached`);
    if (writer.handle !== undefined && writer.offset > 0 && writer.offset + length > segmentBytesMax)
      await endSegment();
    if (writer.handle === undefined) await beginSegment();
    const handle = writer.handle!;
    try {
      await writeFully(handle, parts, writer.offset);
    } catch (error) {
      // A partial record must not precede others: truncate it, or end the segment.
      await handle.truncate(writer.offset).catch(endSegment);
      throw error;
    }
    writer.offset += length;
    writer.requests += requests;
    writer.dirty = true;
    sizes.set(writer.segment, writer.offset);
    wake?.();
  }

  async function beginSegment(): Promise<void> {
    const segment = writer.segment + 1;
    writer.handle = await open(pathOf(segment), 'wx+', 0o600);
    writer.segment = segment;
    writer.offset = 0;
    sizes.set(segment, 0);
    requestsBefore.set(segment, writer.requests);
    await syncFolder();
  }

  async function syncFolder(): Promise<void> {
    const handle = await open(dir);
    await handle.sync().finally(() => handle.close());
  }

  /**
   * Whether the folder and the newest segment are still in place: data written to a removed file would be gone at the
   * next start.
   */
  async function isInPlace(): Promise<boolean> {
    const current = await stat(dir, { bigint: true }).catch(() => undefined);
    return (
      current?.ino === folder.ino &&
      current.dev === folder.dev &&
      (writer.handle === undefined || (await isAt(writer.handle, pathOf(writer.segment))))
    );
  }

  /**
   * Recreates removed files. Call it serialized. Throws the system's error, or a `StoreError` if another process uses
   * the folder now.
   */
  async function repairFolder(): Promise<void> {
    try {
      await makeFolder(dir);
      if (!(await lock.isHeld())) {
        await lock.release();
        lock = await lockFolder(dir);
      }
      folder = await stat(dir, { bigint: true });
      if (!(await isAt(positionFile, positionPath))) {
        const made = await openPosition();
        await positionFile.close();
        positionFile = made;
        positionDirty = true;
      }
      const present = await segmentSizes(dir);
      const lost: number[] = [];
      for (const [segment, size] of sizes)
        if ((present.get(segment) ?? -1) < size && !(await copyBack(segment, size))) lost.push(segment);
      await endSegment();
      // A folder that replaced this one may have other segments.
      writer.segment = Math.max(writer.segment, ...present.keys());
      await syncFolder();
      log.error(`Files of the spool in ${dir} were removed or replaced while it was in use. ${lostText(lost)}`);
      for (const segment of lost) sizes.delete(segment);
      folderProblem = undefined;
      wake?.();
    } catch (error) {
      const problem = messageOf(error);
      if (problem !== folderProblem)
        log.error(
          `Files of the spool in ${dir} were removed or replaced while it was in use, and they cannot be created again: ${problem}${error instanceof StoreError ? '' : `. ${fileAdvice(error)}`}`,
        );
      folderProblem = problem;
      throw error;
    }
  }

  /** Writes a removed segment again from its open file, if there is one. */
  async function copyBack(segment: number, size: number): Promise<boolean> {
    const source =
      segment === writer.segment && writer.handle !== undefined
        ? writer.handle
        : segment === reader.handleSegment
          ? reader.handle
          : undefined;
    if (source === undefined) return false;
    try {
      const bytes = Buffer.alloc(size);
      const { bytesRead } = await source.read(bytes, 0, size, 0);
      if (bytesRead < size) return false;
      const target = await open(pathOf(segment), 'w', 0o600);
      await writeFully(target, [bytes], 0)
        .then(() => target.datasync())
        .finally(() => target.close());
      return true;
    } catch (error) {
      log.error(
        `Cannot write ${segment}.segment of the spool in ${dir} again: ${messageOf(error)}. ${fileAdvice(error)}`,
      );
      return false;
    }
  }

  function lostText(segments: readonly number[]): string {
    let own = 0;
    for (const segment of segments) {
      const from = requestsBefore.get(segment);
      if (from === undefined) continue;
      const next = segmentAfter(segment);
      own += Math.max(
        0,
        (next === undefined ? writer.requests : (requestsBefore.get(next) ?? writer.requests)) -
          Math.max(from, reader.requests),
      );
    }
    const ofEarlier = segments.filter((segment) => segment < firstOwnSegment && segment >= reader.segment).length;
    if (own + ofEarlier === 0) return 'Nothing is lost: the queued requests were written again.';
    return `${own} requests are lost${ofEarlier === 0 ? '' : `, and those in ${ofEarlier} files of an earlier start`}: they are counted as dead-lettered. Import the log files of that time to add them again.`;
  }

  async function endSegment(): Promise<void> {
    const { handle } = writer;
    writer.handle = undefined;
    await handle?.datasync().catch((error: unknown) => {
      log.error(`Cannot sync the spool in ${dir}: ${messageOf(error)}`);
    });
    await handle?.close().catch(() => undefined);
  }

  async function sync(): Promise<void> {
    if (writer.dirty) {
      writer.dirty = false;
      try {
        await writer.handle?.datasync();
      } catch (error) {
        // The kernel discards data that it could not write; later records must not follow the gap.
        log.error(`Cannot sync the spool in ${dir}: ${messageOf(error)}. A power failure may lose queued requests.`);
        await endSegment();
      }
    }
    await writePosition();
  }

  /** Overwrites the position in place, with a fixed length, so that it works on a full disk. */
  async function writePosition(): Promise<void> {
    if (!positionDirty) return;
    positionDirty = false;
    try {
      await writeFully(positionFile, [positionText(committed)], 0);
    } catch (error) {
      positionDirty = true;
      log.warn(
        `Cannot write the position of the spool in ${dir}: ${messageOf(error)}. After a crash, more requests are delivered twice, which is harmless.`,
      );
    }
  }

  async function read(bytesAtOnceMax: number): Promise<SpoolRecord[]> {
    const records: SpoolRecord[] = [];
    let bytes = 0;
    while (!closed) {
      const limit = limitOf(reader.segment);
      if (reader.offset >= limit) {
        if (records.length > 0) break;
        // No `await` between the check and the wait: it would miss an append in between.
        const next = segmentAfter(reader.segment);
        if (next === undefined) {
          countGap(writer.requests); // damage at the end
          reader.requests = writer.requests;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else {
          reader.segment = next;
          reader.offset = 0;
        }
        continue;
      }
      try {
        const header = await readHeaderHere(limit);
        if (header !== undefined && records.length > 0 && bytes + header.payloadBytes > bytesAtOnceMax) break;
        const payload =
          header === undefined ? undefined : await readBytes(reader.offset + headerBytes, header.payloadBytes);
        if (header === undefined || payload === undefined || checksumOf(payload) !== header.payloadChecksum) {
          if (records.length > 0) break; // the next read handles it
          await setAside(
            header === undefined ? await endOfDamage(limit) : reader.offset + headerBytes + header.payloadBytes,
          );
          continue;
        }
        countGap(header.requestsBefore);
        reader.offset += headerBytes + payload.length;
        reader.requests = header.requestsBefore + header.requests;
        bytes += payload.length;
        records.push({
          payload,
          requests: header.requests,
          segment: reader.segment,
          endOffset: reader.offset,
          requestsUpTo: reader.requests,
        });
      } catch (error) {
        if (records.length > 0) break;
        await skipSegment(error);
      }
    }
    outstanding = records.length > 0;
    return records;
  }

  function limitOf(segment: number): number {
    return sizes.get(segment) ?? 0;
  }

  function segmentAfter(segment: number): number | undefined {
    for (const each of sizes.keys()) if (each > segment) return each;
    return undefined;
  }

  function totalBytes(): number {
    let sum = 0;
    for (const size of sizes.values()) sum += size;
    return sum;
  }

  async function readHeaderHere(limit: number): Promise<ReturnType<typeof readHeader>> {
    const header = readHeader(await readBytes(reader.offset, Math.min(headerBytes, limit - reader.offset)));
    return header !== undefined && reader.offset + headerBytes + header.payloadBytes <= limit ? header : undefined;
  }

  /** Offset of the next valid header, or the end of the segment. */
  async function endOfDamage(limit: number): Promise<number> {
    const next = findHeader(await readBytes(reader.offset, limit - reader.offset), 1);
    return next === -1 ? limit : reader.offset + next;
  }

  /** Skips a segment that was removed or cannot be read. */
  async function skipSegment(error: unknown): Promise<void> {
    damages += 1;
    log.error(
      `Cannot read ${reader.segment}.segment of the spool in ${dir} from offset ${reader.offset}: ${messageOf(error)}. The rest of it is skipped.`,
    );
    await serialize(async () => {
      if (reader.segment === writer.segment) await endSegment();
    });
    await mkdir(join(dir, 'damaged'), { recursive: true, mode: 0o700 }).catch(() => undefined);
    await rename(pathOf(reader.segment), join(dir, 'damaged', `${reader.segment}.segment`)).catch(() => undefined);
    sizes.delete(reader.segment);
    reader.offset = 0;
  }

  async function setAside(endOffset: number): Promise<void> {
    damages += 1;
    const bytes = await readBytes(reader.offset, endOffset - reader.offset);
    const name = join(dir, 'damaged', `${reader.segment}-${reader.offset}`);
    log.error(
      `The spool in ${dir} is damaged: ${bytes.length} bytes at offset ${reader.offset} of ${reader.segment}.segment are unreadable. They are copied to ${name}.`,
    );
    reader.offset = endOffset;
    if (setAsideBytes + bytes.length > damagedBytesMax) return;
    setAsideBytes += bytes.length;
    try {
      await mkdir(join(dir, 'damaged'), { recursive: true, mode: 0o700 });
      const file = await open(name, 'w', 0o600);
      await file.writeFile(bytes).finally(() => file.close());
    } catch (error) {
      log.warn(`Cannot copy the damaged bytes to ${name}: ${messageOf(error)}`);
    }
  }

  /** Counts the requests between the last record read and the next valid one as lost. */
  function countGap(requestsBefore: number): void {
    const ownLost = requestsBefore - Math.max(reader.requests, requestsAtStart);
    const earlierLost = Math.min(requestsBefore, requestsAtStart) - reader.requests;
    if (ownLost > 0) own.deadLettered += ownLost;
    if (earlierLost > 0) earlier.deadLettered += earlierLost;
  }

  async function commit(records: readonly SpoolRecord[], deadLettered: number): Promise<void> {
    const last = records.at(-1);
    if (last === undefined) return;
    outstanding = last.segment !== reader.segment || last.endOffset !== reader.offset;
    // All records of a read are from one segment, which was written by one process.
    const counts = last.segment >= firstOwnSegment ? own : earlier;
    counts.deadLettered += deadLettered;
    counts.stored += records.reduce((sum, { requests }) => sum + requests, 0) - deadLettered;
    committed = { segment: last.segment, offset: last.endOffset, requests: last.requestsUpTo };
    positionDirty = true;
    for (const segment of [...sizes.keys()]) if (segment < last.segment) await remove(segment);
  }

  async function remove(segment: number): Promise<void> {
    sizes.delete(segment);
    await unlink(pathOf(segment)).catch((error: unknown) => {
      log.warn(`The spool in ${dir} could not delete ${segment}.segment: ${messageOf(error)}`);
    });
  }

  /** Requests up to the end of the last valid record. */
  async function lastRequests(): Promise<number> {
    for (const segment of [...sizes.keys()].reverse()) {
      const bytes = await readFile(pathOf(segment)).catch(() => Buffer.alloc(0));
      let last: ReturnType<typeof readHeader>;
      for (let at = findHeader(bytes, 0); at !== -1; at = findHeader(bytes, at + headerBytes + last.payloadBytes))
        last = readHeader(bytes, at)!;
      if (last !== undefined) return last.requestsBefore + last.requests;
    }
    return 0;
  }

  /** Requests before the first valid record. */
  async function firstRequests(): Promise<number> {
    for (const segment of sizes.keys()) {
      const bytes = await readFile(pathOf(segment)).catch(() => Buffer.alloc(0));
      const at = findHeader(bytes, 0);
      if (at !== -1) return readHeader(bytes, at)!.requestsBefore;
    }
    return requestsAtStart;
  }

  async function readBytes(offset: number, length: number): Promise<Buffer> {
    if (reader.handleSegment !== reader.segment || reader.handle === undefined) {
      await reader.handle?.close();
      reader.handle = await open(pathOf(reader.segment), 'r');
      reader.handleSegment = reader.segment;
    }
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await reader.handle.read(bytes, 0, length, offset);
    return bytes.subarray(0, bytesRead);
  }
}

/**
 * Waits until the current records of a spool are delivered by the process that uses it; resolves to `false` after
 * `waitMsMax`. A missing folder counts as delivered.
 */
export async function spoolPassed(dir: string, waitMsMax: number): Promise<boolean> {
  const [segment, size] = [...(await segmentSizes(dir).catch(() => new Map<number, number>()))].at(-1) ?? [0, 0];
  for (const endMs = performance.now() + waitMsMax; ; ) {
    const position = parsePosition(await readFile(join(dir, 'position'), 'latin1').catch(() => ''));
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

/** Sizes of the existing segments in bytes, oldest first. */
async function segmentSizes(dir: string): Promise<Map<number, number>> {
  const numbers = (await readdir(dir))
    .flatMap((name) => /^([1-9]\d{0,14})\.segment$/.exec(name)?.[1] ?? [])
    .map(Number);
  const sizes = new Map<number, number>();
  for (const segment of numbers.sort((one, other) => one - other))
    sizes.set(segment, (await stat(join(dir, `${segment}.segment`))).size);
  return sizes;
}

interface Position {
  readonly segment: number;
  readonly offset: number;
  /** Requests in all records before it. */
  readonly requests: number;
}

/** Has a fixed length, so that it can be overwritten: three numbers and the CRC-32C of their text. */
function positionText({ segment, offset, requests }: Position): Buffer {
  const numbers = [segment, offset, requests].map((number) => String(number).padStart(16, '0')).join(' ');
  return Buffer.from(`${numbers} ${checksumOf(Buffer.from(numbers)).toString(16).padStart(8, '0')}\n`);
}

function parsePosition(text: string): Position | undefined {
  const match = /^(\d{16}) (\d{16}) (\d{16}) [\da-f]{8}\n$/.exec(text);
  if (match === null) return undefined;
  const position = { segment: Number(match[1]), offset: Number(match[2]), requests: Number(match[3]) };
  return positionText(position).toString('latin1') === text ? position : undefined;
}

/** Whether a path is that of the open file. */
async function isAt(handle: FileHandle, path: string): Promise<boolean> {
  const [own, found] = await Promise.all([
    handle.stat({ bigint: true }),
    stat(path, { bigint: true }).catch(() => undefined),
  ]);
  return found?.ino === own.ino && found.dev === own.dev;
}

async function writeFully(handle: FileHandle, parts: readonly Buffer[], position: number): Promise<void> {
  const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  for (let done = 0; done < bytes.length; )
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}
