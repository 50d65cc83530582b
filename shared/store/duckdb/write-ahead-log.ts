/**
 * DuckDB's write-ahead log, `FILE.wal`, after a power cut or on a failing disk.
 *
 * DuckDB refuses to open a file whose log has a wrong checksum. If the log ends in the middle of an entry, DuckDB
 * treats it as torn: it opens without a message and truncates the log at the next write, even if a damaged length hides
 * hundreds of transactions. So this module reads the log first.
 *
 * Layout (DuckDB's `write_ahead_log.cpp`, version 2): a header without a checksum, then entries of length (u64),
 * checksum (u64) and content. A transaction ends with a flush entry, which always has the same bytes.
 */
import { constants } from 'node:fs';
import { chmod, copyFile, link, open, rename, rm, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What `scanLog` finds. All positions are in bytes. */
export interface LogScan {
  readonly bytes: number;
  /** End of the last intact transaction: everything before it can be replayed. 0 if nothing can. */
  readonly intactBytes: number;
  /** Start of the first damaged entry; `undefined` if the log is intact, or merely torn by a killed process. */
  readonly damagedAt: number | undefined;
  /**
   * Number of flush entries after the damage: complete transactions that cannot be replayed, since each builds on those
   * before it.
   */
  readonly transactionsLost: number;
  /** Whether a checkpoint was in progress when the log ended. */
  readonly inCheckpoint: boolean;
}

/** A log that was moved out of the way, unchanged. */
export interface MovedLog {
  readonly path: string;
  readonly bytes: number;
  /** Time of its last change, in milliseconds since 1970. */
  readonly changedMs: number;
}

/** Field 100 (entry type) is 98 (version); field 101 (version) is 2. */
const headerStart = Buffer.from('640062650002', 'hex');
/**
 * End of the fields. Storage versions from 1.3 on add a database identifier in field 102; this program's files have
 * none.
 */
const headerEnd = Buffer.from('ffff', 'hex');
const headerBytes = headerStart.length + headerEnd.length;
const entryHeadBytes = 16;
/** Checksum and content of a flush entry: field 100 (type), 100 (flush). */
const flushMark = Buffer.from('e7fe7d722fed3d5e640064ffff', 'hex');
const flushBytes = flushMark.length + 8;
/**
 * Type of the entry that a checkpoint writes before it changes the database file. Like a flush entry, it is a valid end
 * of the log.
 */
const checkpointType = 99;
/** Maximum length of an entry, which holds at most 2,048 rows. A greater length is damage. */
const entryBytesMax = 2 ** 30;

/**
 * Reads the lengths of all entries; DuckDB verifies the checksums. Entries that begin at or after `limitBytes` count as
 * damaged. Returns `undefined` for a log that is missing, empty or of an unknown format. Throws the system's error.
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
      const isOtherFormat =
        head.subarray(0, headerStart.length).equals(headerStart) && head.readUInt16LE(headerStart.length) === 102;
      if (isOtherFormat && limitBytes === Infinity) return undefined;
      return {
        bytes,
        intactBytes: 0,
        damagedAt: 0,
        transactionsLost: await countFlushes(file, 0),
        inCheckpoint: false,
      };
    }

    let position = Math.min(headerBytes, bytes);
    let intactBytes = 0;
    let inCheckpoint = false;
    let isDamaged = false;
    let window: { start: number; data: Buffer } = { start: 0, data: Buffer.alloc(0) };
    while (position + entryHeadBytes <= bytes) {
      if (position < window.start || position + flushBytes > window.start + window.data.length)
        window = { start: position, data: await readAt(file, position, windowBytes) };
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
    // A killed process leaves an incomplete transaction at the end, with no flush entry after it.
    return {
      bytes,
      intactBytes,
      damagedAt: isDamaged || transactionsLost > 0 ? position : undefined,
      transactionsLost,
      inCheckpoint,
    };
  } finally {
    await file.close();
  }
}

/**
 * Copies the intact transactions before `damagedAt`, if there are any. Returns the scan up to there. Throws the
 * system's error.
 */
export async function copyIntact(path: string, to: string, damagedAt: number): Promise<LogScan | undefined> {
  const scan = await scanLog(path, damagedAt);
  if (scan !== undefined && scan.intactBytes > 0) await copyStart(path, to, scan.intactBytes);
  return scan;
}

/**
 * Moves a log to `PATH.LABEL-TIME` (default label: `damaged`), readable only by its owner, and puts `replacement` in
 * its place, if given. A kill at any moment leaves either the old log or the new one in place. Throws the system's
 * error; the log is then unchanged.
 */
export async function setLogAside(
  path: string,
  {
    replacement,
    label = 'damaged',
    inCheckpoint = false,
    now = Date.now,
  }: { replacement?: string | undefined; label?: string; inCheckpoint?: boolean; now?: () => number } = {},
): Promise<MovedLog> {
  const { size: bytes, mtimeMs: changedMs } = await stat(path);
  const movedTo = await linkOrCopy(
    path,
    `${path}.${label}-${new Date(now()).toISOString().replace(/[-:]|\.\d+/g, '')}`,
  );
  await syncFile(dirname(path));
  if (replacement === undefined) await unlink(path);
  else await rename(replacement, path);
  // DuckDB writes this file during a checkpoint. It continues the log that was just moved.
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
    // Windows overlap by one byte less than a mark, so that each mark is found exactly once.
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

/**
 * Links a file under a second name, or copies it if the file system has no hard links. Never overwrites a file: appends
 * a number instead. Returns the name.
 */
async function linkOrCopy(path: string, preferred: string): Promise<string> {
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? preferred : `${preferred}-${number}`;
    try {
      await link(path, name).catch(async (error: unknown) => {
        if (codeOf(error) === 'EEXIST') throw error;
        await copyFile(path, name, constants.COPYFILE_EXCL);
        await syncFile(name);
      });
      await chmod(name, 0o600).catch((error: unknown) => {
        if (codeOf(error) !== 'EPERM') throw error;
      });
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
