import { link, rm, stat, unlink } from 'node:fs/promises';
import { DuckDBInstance } from '@duckdb/node-api';
import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { scanLog, setLogAside, type LogSetAside } from './write-ahead-log.js';

type Options = Record<string, string>;

/**
 * Opens the file, even if its write-ahead log is damaged: then the log is set aside, its intact transactions are replayed, and an error line says what is
 * missing. A torn log, which a killed process leaves, gets a warning. Throws what DuckDB or the system throws; an error that does not come from the
 * content of the log (in use, no memory, no space, a damaged database file) leaves the log in place.
 */
export async function openPastDamage(path: string, options: Options, log: Pick<Log, 'warn' | 'error'>): Promise<DuckDBInstance> {
  let instance: DuckDBInstance | undefined;
  let repair = await repairLog(path, options);
  try {
    try {
      instance = await DuckDBInstance.create(path, options);
    } catch (error) {
      const damagedAt = repair === undefined ? positionOfDamage(error) : undefined;
      if (damagedAt === undefined) throw error;
      repair = await repairLog(path, options, damagedAt);
      instance = await DuckDBInstance.create(path, options);
    }
    return instance;
  } finally {
    if (repair?.setAside !== undefined && repair.state === 'torn') log.warn(`${tornText(path, repair)} The file holds the rest already, so the log was moved to ${repair.setAside.path}.`);
    else if (repair?.setAside !== undefined) log.error(damageText(path, repair, repair.setAside, instance && await newestRequestMs(instance)));
    else if (repair !== undefined && instance !== undefined) log.warn(tornText(path, repair));
  }
}

interface Repair {
  /** `torn`: as a killed process leaves it. `orphaned`: the database file is gone. */
  readonly state: 'damaged' | 'torn' | 'orphaned';
  /** What follows its last complete transaction. */
  readonly tornBytes: number;
  /** `undefined` if the log is merely torn. */
  readonly setAside: LogSetAside | undefined;
  /** The log outlived a checkpoint: the file holds its batches already. */
  readonly isStored: boolean;
}

/** Makes DuckDB able to open the file. `damagedAt` is where it found a wrong checksum. Returns `undefined` if the log needs no repair. */
async function repairLog(path: string, options: Options, damagedAt?: number): Promise<Repair | undefined> {
  const logPath = `${path}.wal`;
  const scan = await scanLog(logPath);
  if (await isMissing(path)) {
    // DuckDB deletes the log of a file that it creates.
    return await sizeOf(logPath) > 0 ? { state: 'orphaned', tornBytes: 0, setAside: await setLogAside(logPath, { damagedAt: 0 }), isStored: false } : undefined;
  }
  if (damagedAt === undefined && (scan === undefined || scan.intactBytes === scan.bytes)) return undefined;

  const stored = await appliedWithoutLog(path, options);
  let replayed: AppliedBatches | undefined;
  let position = Math.min(damagedAt ?? Infinity, scan?.damagedAt ?? Infinity);
  try {
    replayed = await appliedBatches(path, options);
  } catch (error) {
    if (!isReplayError(error) || (position === Infinity && positionOfDamage(error) === undefined)) throw error;
    position = Math.min(position, positionOfDamage(error) ?? Infinity);
  }

  let setAside = position === Infinity ? undefined : await setLogAside(logPath, { damagedAt: position });
  let isReplayable = true;
  if (setAside !== undefined && setAside.intactBytes > 0 && replayed === undefined) {
    // Any other error comes again when the file is opened for good.
    replayed = await appliedBatches(path, options).catch((error: unknown) => { isReplayable = positionOfDamage(error) === undefined; return undefined; });
  }
  const intactBytes = setAside?.intactBytes ?? scan?.intactBytes ?? 0;
  // The mark that says that a checkpoint was completed is damaged. Replaying the log would store its requests twice.
  const isStored = intactBytes > 0 && replayed !== undefined && stored !== undefined && !isAhead(replayed, stored);
  if (intactBytes > 0 && (isStored || !isReplayable)) {
    if (setAside === undefined) setAside = await setLogAside(logPath, { damagedAt: 0 });
    else await unlink(logPath);
    setAside = { ...setAside, intactBytes: 0, transactionsLost: isStored ? scan?.transactionsLost ?? 0 : setAside.transactionsLost };
  }
  return { state: position === Infinity ? 'torn' : 'damaged', tornBytes: scan === undefined ? 0 : scan.bytes - scan.intactBytes, setAside, isStored };
}

/** The last batch of each writer. */
type AppliedBatches = ReadonlyMap<string, bigint>;

/** Reads as DuckDB would replay, and changes nothing. */
async function appliedBatches(path: string, options: Options): Promise<AppliedBatches> {
  const instance = await DuckDBInstance.create(path, { ...options, access_mode: 'READ_ONLY' });
  try {
    const rows = await rowsOf(instance, 'SELECT writer, max(sequence) FROM applied_batch GROUP BY writer');
    return new Map(rows as [string, bigint][]);
  } finally {
    instance.closeSync();
  }
}

/** The same without the log, which DuckDB looks for under the name of the file; `undefined` where the file system knows no links. */
async function appliedWithoutLog(path: string, options: Options): Promise<AppliedBatches | undefined> {
  const otherName = `${path}.probe`;
  await rm(otherName, { force: true });
  try {
    await link(path, otherName);
  } catch {
    return undefined;
  }
  try {
    return await appliedBatches(otherName, options);
  } finally {
    await unlink(otherName);
  }
}

function isAhead(replayed: AppliedBatches, stored: AppliedBatches): boolean {
  return [...replayed].some(([writer, sequence]) => sequence > (stored.get(writer) ?? -1n));
}

async function newestRequestMs(instance: DuckDBInstance): Promise<number | undefined> {
  const [row] = await rowsOf(instance, 'SELECT max(time_ns) FROM request_metrics').catch(() => []);
  return typeof row?.[0] === 'bigint' ? Number(row[0] / 1_000_000n) : undefined;
}

/** No rows where the table is missing: its creation was in the log. */
async function rowsOf(instance: DuckDBInstance, sql: string): Promise<unknown[][]> {
  const connection = await instance.connect();
  try {
    return await (await connection.run(sql)).getRows();
  } catch (error) {
    if (messageOf(error).startsWith('Catalog Error')) return [];
    throw error;
  } finally {
    connection.closeSync();
  }
}

function isReplayError(error: unknown): boolean {
  return messageOf(error).includes('Failure while replaying WAL file');
}

/**
 * Where the log is damaged, in bytes; 0 if none of it fits. `undefined` for an error that is not about its content: without memory or space, a replay fails
 * too.
 */
function positionOfDamage(error: unknown): number | undefined {
  const text = messageOf(error);
  if (!isReplayError(error)) return undefined;
  const checksum = /entry at byte position (\d+) computed checksum/.exec(text);
  // DuckDB names the content of the entry, which follows its length and checksum of 8 bytes each.
  if (checksum !== null) return Number(checksum[1]) - 16;
  if (/allocat|memory|pin block|No space left/i.test(text)) return undefined;
  return /^(?:INTERNAL|Catalog|Serialization) Error|Corrupt WAL|Failed to read WAL of version|WAL (?:does not match|checkpoint iteration)/.test(text) ? 0 : undefined;
}

function damageText(path: string, { state, isStored }: Repair, { path: movedTo, bytes, changedMs, intactBytes, transactionsLost }: LogSetAside, newestMs: number | undefined): string {
  const replayed = intactBytes > 0 ? `Its first ${intactBytes} bytes are intact and remain as the log` : isStored ? 'The file holds its intact part already' : 'None of it could be replayed';
  const lost = transactionsLost > 0 ? `at least ${transactionsLost} complete transactions are lost` : 'it cannot be told how many transactions are lost';
  const since = newestMs === undefined ? 'until' : `from ${timeText(newestMs)}, the newest that is stored, until`;
  const why = state === 'orphaned' ? `The file ${path} is missing or empty, but its write-ahead log is there.` : `The write-ahead log of ${path} is damaged.`;
  return `${why} It was moved to ${movedTo} (${bytes} bytes, last changed ${timeText(changedMs)}). `
    + `${replayed}; ${lost}. Requests ${since} ${timeText(changedMs)} may be missing. `
    + "Import Caddy's own log files of that time (npm run import -- FILES): requests that are there are not added again. Keep the moved file until then.";
}

function tornText(path: string, { tornBytes }: Repair): string {
  return `The write-ahead log of ${path} ended in the middle of a transaction, as a killed process leaves it. Its last ${tornBytes} bytes, which were never confirmed, are dropped.`;
}

function timeText(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

async function isMissing(path: string): Promise<boolean> {
  return await stat(path).then(() => false, (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT');
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(({ size }) => size, () => 0);
}
