/**
 * DuckDB's write-ahead log, `FILE.wal`, after a power cut or on a failing disk.
 *
 * DuckDB refuses to open a file whose log has a wrong checksum. A log that ends in the middle of an entry it takes for torn: it opens, says nothing, and
 * truncates the rest at the next write, even if a damaged length hides hundreds of transactions there. So the log is read here before DuckDB opens it.
 *
 * Layout (DuckDB's `write_ahead_log.cpp`, version 2): a header without checksum, then entries of length (u64), checksum (u64) and content. A transaction ends
 * with a flush entry, which has always the same bytes.
 */
import { constants } from 'node:fs';
import { chmod, copyFile, link, open, rename, rm, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What `scanLog` finds. All positions are in bytes. */
export interface LogScan {
  readonly bytes: number;
  /** Where the last intact transaction ends: what lies before can be replayed. 0 if nothing can. */
  readonly intactBytes: number;
  /** Where the first entry begins that no killed process leaves; `undefined` if the log is intact or merely torn. */
  readonly damagedAt: number | undefined;
  /** Flush entries from the damage on: transactions that were complete and cannot be replayed, as each builds on those before it. */
  readonly transactionsLost: number;
  /** A checkpoint was under way when the log ended. */
  readonly inCheckpoint: boolean;
}

/** A log that was moved out of the way, unchanged. */
export interface MovedLog {
  readonly path: string;
  readonly bytes: number;
  /** Time of its last change, in milliseconds since 1970. */
  readonly changedMs: number;
}

/** Field 100 (type): 98 (version). Field 101 (version): 2. */
const headerStart = Buffer.from('640062650002', 'hex');
/** No further field. A database file of storage version 1.3 or later names itself in field 102, which this program's files do not. */
const headerEnd = Buffer.from('ffff', 'hex');
const headerBytes = headerStart.length + headerEnd.length;
const entryHeadBytes = 16;
/** Checksum and content of a flush entry: field 100 (type), 100 (flush). */
const flushMark = Buffer.from('e7fe7d722fed3d5e640064ffff', 'hex');
const flushBytes = flushMark.length + 8;
/** The type of the entry that a checkpoint writes before it changes the database file. It ends a log as a flush does. */
const checkpointType = 99;
/** No entry is longer: it holds at most 2,048 rows. A greater length is noise. */
const entryBytesMax = 2 ** 30;

/**
 * Reads the lengths of all entries; DuckDB verifies the checksums. Only entries that end by `limitBytes` count as intact. Returns `undefined` for a log that
 * is missing, empty or of a format that is not known here. Throws the system's error.
 */
export async function scanLog(path: string, limitBytes = Infinity): Promise<LogScan | undefined> {
  const file = await open(path).catch(ignoreMissing);
  if (file === undefined) return undefined;
  try {
    const { size: bytes } = await file.stat();
    if (bytes === 0) return undefined;
    const head = await readAt(file, 0, headerBytes);
    const expected = Buffer.concat([headerStart, headerEnd]);
    if (!head.equals(expected.subarray(0, head.length)) || limitBytes < headerBytes) {
      const isOtherFormat = head.subarray(0, headerStart.length).equals(headerStart) && head.readUInt16LE(headerStart.length) === 102;
      if (isOtherFormat && limitBytes === Infinity) return undefined;
      return { bytes, intactBytes: 0, damagedAt: 0, transactionsLost: await countFlushes(file, 0), inCheckpoint: false };
    }

    let position = Math.min(headerBytes, bytes);
    let intactBytes = 0;
    let inCheckpoint = false;
    let isDamaged = false;
    let window: { start: number; data: Buffer } = { start: 0, data: Buffer.alloc(0) };
    while (position + entryHeadBytes <= bytes) {
      if (position < window.start || position + flushBytes > window.start + window.data.length) window = { start: position, data: await readAt(file, position, windowBytes) };
      const entry = window.data.subarray(position - window.start);
      const length = Number(entry.readBigUInt64LE());
      isDamaged = position >= limitBytes || length === 0 || length > entryBytesMax;
      const end = position + entryHeadBytes + length;
      if (isDamaged || end > bytes) break;
      const isFlush = length + 8 === flushMark.length && entry.subarray(8, 8 + flushMark.length).equals(flushMark);
      inCheckpoint = entry[entryHeadBytes + 2] === checkpointType;
      position = end;
      if (isFlush || inCheckpoint) intactBytes = position;
    }
    const transactionsLost = position < bytes ? await countFlushes(file, position) : 0;
    // A killed process leaves a part of one transaction at the end, and no flush entry behind it.
    return { bytes, intactBytes, damagedAt: isDamaged || transactionsLost > 0 ? position : undefined, transactionsLost, inCheckpoint };
  } finally {
    await file.close();
  }
}

/** Copies the intact transactions from before `damagedAt`, if there are any. Throws the system's error. */
export async function copyIntact(path: string, to: string, damagedAt: number): Promise<LogScan | undefined> {
  const scan = await scanLog(path, damagedAt);
  if (scan !== undefined && scan.intactBytes > 0) await copyStart(path, to, scan.intactBytes);
  return scan;
}

/**
 * Moves a log to `PATH.LABEL-TIME` (`damaged` by default), where its owner alone can read it, and puts `replacement` in its place, if given. A kill at any moment leaves the old log
 * or the new one in place. Throws the system's error; then the log is as it was.
 */
export async function setLogAside(path: string, { replacement, label = 'damaged', inCheckpoint = false, now = Date.now }: { replacement?: string | undefined; label?: string; inCheckpoint?: boolean; now?: () => number } = {}): Promise<MovedLog> {
  const { size: bytes, mtimeMs: changedMs } = await stat(path);
  const movedTo = await keepBeside(path, `${path}.${label}-${new Date(now()).toISOString().replace(/[-:]|\.\d+/g, '')}`);
  await syncFile(dirname(path));
  if (replacement === undefined) await unlink(path);
  else await rename(replacement, path);
  // DuckDB writes this one while a checkpoint is under way. It continues the part of the log that is gone.
  if (!inCheckpoint) await rename(`${path}.checkpoint`, `${movedTo}.checkpoint`).catch(ignoreMissing);
  await syncFile(dirname(path));
  return { path: movedTo, bytes, changedMs };
}

const windowBytes = 2 ** 20;

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

async function countFlushes(file: FileHandle, start: number): Promise<number> {
  let count = 0;
  for (let position = start; ; position += windowBytes) {
    // Windows overlap by less than one mark, so that each is found once.
    const data = await readAt(file, position, windowBytes + flushMark.length - 1);
    for (let at = data.indexOf(flushMark); at !== -1; at = data.indexOf(flushMark, at + flushMark.length)) count += 1;
    if (data.length <= windowBytes) return count;
  }
}

async function copyStart(from: string, to: string, bytes: number): Promise<void> {
  const source = await open(from);
  try {
    const target = await open(to, 'w', 0o600);
    try {
      for (let position = 0; position < bytes; position += windowBytes) {
        await target.writeFile(await readAt(source, position, Math.min(windowBytes, bytes - position)));
      }
      await target.sync();
    } finally {
      await target.close();
    }
  } catch (error) {
    await rm(to, { force: true });
    throw error;
  } finally {
    await source.close();
  }
}

/** Gives a file a second name, or copies it where a file system knows no links. A file that has the name already stays. Returns the name. */
async function keepBeside(path: string, wanted: string): Promise<string> {
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? wanted : `${wanted}-${number}`;
    try {
      await link(path, name).catch(async (error: unknown) => {
        if (codeOf(error) === 'EEXIST') throw error;
        await copyFile(path, name, constants.COPYFILE_EXCL);
        await syncFile(name);
      });
      await chmod(name, 0o600).catch((error: unknown) => { if (codeOf(error) !== 'EPERM') throw error; });
      return name;
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function ignoreMissing(error: unknown): undefined {
  if (codeOf(error) !== 'ENOENT') throw error;
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
