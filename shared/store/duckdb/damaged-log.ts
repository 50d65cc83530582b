import { link, rm, stat } from 'node:fs/promises';
import { DuckDBInstance } from '@duckdb/node-api';
import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { copyIntact, scanLog, setLogAside, type LogScan, type MovedLog } from './write-ahead-log.js';

type Options = Record<string, string>;

/**
 * Opens the file, even if its write-ahead log is damaged: sets the log aside, replays its intact transactions, and logs
 * an error that says what is missing. For a torn log, as a killed process leaves it, logs a warning. Throws the errors
 * of DuckDB and the system; an error with another cause than the content of the log (file in use, no memory, no space,
 * a damaged database file) leaves the log in place.
 */
export async function openPastDamage(
  path: string,
  options: Options,
  log: Pick<Log, 'warn' | 'error'>,
): Promise<DuckDBInstance> {
  let instance: DuckDBInstance | undefined;
  let repair = await repairLog(path, options, log);
  try {
    try {
      instance = await DuckDBInstance.create(path, options);
    } catch (error) {
      const damagedAt = repair === undefined ? positionOfDamage(error) : undefined;
      if (damagedAt === undefined) throw error;
      repair = await repairLog(path, options, log, damagedAt);
      instance = await DuckDBInstance.create(path, options);
    }
    return instance;
  } finally {
    if (repair?.state === 'torn') log.warn(tornText(path, repair));
    else if (repair?.moved !== undefined)
      log.error(damageText(path, repair, repair.moved, instance && (await newestRequestMs(instance))));
  }
}

interface Repair {
  /** `torn`: as a killed process leaves it. `orphaned`: the database file is gone. */
  readonly state: 'damaged' | 'torn' | 'orphaned';
  readonly scan: LogScan | undefined;
  /** The log as it was, if it was set aside. */
  readonly moved: MovedLog | undefined;
  /** The log outlived a checkpoint: the database file already contains its transactions. */
  readonly isStored: boolean;
}

/**
 * Repairs the log so that DuckDB can open the file. `damagedAt` is where DuckDB found it damaged. Returns `undefined`
 * if it needs no repair.
 */
async function repairLog(
  path: string,
  options: Options,
  log: Pick<Log, 'warn'>,
  damagedAt = Infinity,
): Promise<Repair | undefined> {
  const logPath = `${path}.wal`;
  // A hard link to the file: DuckDB derives the name of the log from the name of the file. Some file systems have no
  // hard links.
  const probe = `${path}.probe`;
  const replacement = `${probe}.wal`;
  const removeProbe = async (): Promise<void> => {
    for (const file of [probe, replacement]) await rm(file, { force: true });
  };
  await removeProbe(); // left by a start that was killed
  const found = await scanLog(logPath);
  if (await isMissing(path)) {
    // DuckDB deletes the log of a file that it creates.
    return (await sizeOf(logPath)) > 0
      ? { state: 'orphaned', scan: await scanLog(logPath, 0), moved: await setLogAside(logPath), isStored: false }
      : undefined;
  }
  if (damagedAt === Infinity && (found === undefined || found.intactBytes === found.bytes)) return undefined;

  const isLinked = await link(path, probe).then(
    () => true,
    () => false,
  );
  try {
    const stored = isLinked ? await appliedBatches(probe, options) : undefined;
    let { position, replayed } = await tryReplay(path, options, Math.min(damagedAt, found?.damagedAt ?? Infinity));
    let scan = found;
    if (position !== Infinity) {
      scan = await copyIntact(logPath, replacement, position);
      if (isLinked && scan !== undefined && scan.intactBytes > 0)
        ({ position, replayed } = await tryReplay(probe, options, position));
      if (position === 0) scan = await scanLog(logPath, 0);
    }
    const hasIntact = scan !== undefined && scan.intactBytes > 0;
    // The log has lost its record of a completed checkpoint. Replaying it would store its requests twice.
    const isStored = hasIntact && replayed !== undefined && stored !== undefined && !isAhead(replayed, stored);
    const state = position === Infinity ? 'torn' : 'damaged';
    if (state === 'torn' && !isStored) return { state, scan, moved: undefined, isStored };
    log.warn(`The write-ahead log ${logPath} is being set aside: it is ${state}.`);
    return {
      state,
      scan,
      moved: await setLogAside(
        logPath,
        hasIntact && !isStored ? { replacement, inCheckpoint: scan?.inCheckpoint ?? false } : {},
      ),
      isStored,
    };
  } finally {
    await removeProbe();
  }
}

/**
 * Replays the log without changing anything. `position` is where the log is known to be damaged, or `Infinity`. The
 * result has the position where DuckDB found it damaged, if that is earlier. Throws any error that is not about the
 * content of the log.
 */
async function tryReplay(
  path: string,
  options: Options,
  position: number,
): Promise<{ position: number; replayed: AppliedBatches | undefined }> {
  try {
    return { position, replayed: await appliedBatches(path, options) };
  } catch (error) {
    const found = positionOfDamage(error);
    // A damaged length makes DuckDB run out of memory.
    if (found === undefined && (position === Infinity || !isReplayError(error))) throw error;
    return { position: Math.min(position, found ?? Infinity), replayed: undefined };
  }
}

/** The sequence number of the last batch of each writer. */
type AppliedBatches = ReadonlyMap<string, bigint>;

/** Opens the file and its log read-only, which changes neither. */
async function appliedBatches(path: string, options: Options): Promise<AppliedBatches> {
  const instance = await DuckDBInstance.create(path, { ...options, access_mode: 'READ_ONLY' });
  try {
    const rows = await rowsOf(instance, 'SELECT writer, max(sequence) FROM applied_batch GROUP BY writer');
    return new Map(rows as [string, bigint][]);
  } finally {
    instance.closeSync();
  }
}

function isAhead(replayed: AppliedBatches, stored: AppliedBatches): boolean {
  return [...replayed].some(([writer, sequence]) => sequence > (stored.get(writer) ?? -1n));
}

async function newestRequestMs(instance: DuckDBInstance): Promise<number | undefined> {
  const [row] = await rowsOf(instance, 'SELECT max(time_ns) FROM request_metrics').catch(() => []);
  return typeof row?.[0] === 'bigint' ? Number(row[0] / 1_000_000n) : undefined;
}

/** Returns no rows if the table is missing: its creation was in the log. */
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
 * The position of the damage in bytes, 0 if nothing can be replayed. `undefined` for an error that is not about the
 * content of the log: a lack of memory or space makes a replay fail, too.
 */
function positionOfDamage(error: unknown): number | undefined {
  const text = messageOf(error);
  if (!isReplayError(error)) return undefined;
  const checksum = /entry at byte position (\d+) computed checksum/.exec(text);
  // DuckDB names the content of the entry, which follows its length and checksum of 8 bytes each.
  if (checksum !== null) return Number(checksum[1]) - 16;
  if (/allocat|memory|pin block|No space left/i.test(text)) return undefined;
  return /^(?:INTERNAL|Catalog|Serialization) Error|Corrupt WAL|Failed to read WAL of version|WAL (?:does not match|checkpoint iteration)/.test(
    text,
  )
    ? 0
    : undefined;
}

function damageText(
  path: string,
  { state, scan, isStored }: Repair,
  moved: MovedLog,
  newestMs: number | undefined,
): string {
  const why =
    state === 'orphaned'
      ? `The file ${path} is missing or empty, but its write-ahead log is there.`
      : `The write-ahead log of ${path} is damaged.`;
  const intactBytes = scan?.intactBytes ?? 0;
  const replayed = isStored
    ? 'The database file already contains its intact part'
    : intactBytes > 0
      ? `Its first ${intactBytes} bytes are intact and remain as the log`
      : 'None of it could be replayed';
  const lost =
    (scan?.transactionsLost ?? 0) > 0
      ? `at least ${scan!.transactionsLost} complete transactions are lost`
      : 'the number of lost transactions is unknown';
  const since = newestMs === undefined ? 'until' : `from ${timeText(newestMs)} (the newest stored request) until`;
  return (
    `${why} It was moved to ${moved.path} (${moved.bytes} bytes, last changed ${timeText(moved.changedMs)}). ${replayed}; ${lost}. ` +
    `Requests ${since} ${timeText(moved.changedMs)} may be missing. ` +
    "Import Caddy's own log files of that time (npm run import -- FILES); requests that are already stored are not added again. Keep the moved file until then."
  );
}

function tornText(path: string, { scan, moved }: Repair): string {
  const bytes = scan === undefined ? 0 : scan.bytes - scan.intactBytes;
  return (
    `The write-ahead log of ${path} ended in the middle of a transaction, as a killed process leaves it. Its last ${bytes} bytes, which were never committed, are dropped.` +
    (moved === undefined ? '' : ` The database file already contains the rest, so the log was moved to ${moved.path}.`)
  );
}

function timeText(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

async function isMissing(path: string): Promise<boolean> {
  return await stat(path).then(
    () => false,
    (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT',
  );
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
