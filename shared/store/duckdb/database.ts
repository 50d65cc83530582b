import { access, chmod, rm, stat } from 'node:fs/promises';
import { tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';
import { messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { makeFolder } from '../../make-folder.js';
import { openPastDamage } from './damaged-log.js';
import { OpenWindows } from './open-windows.js';
import { prepareSchema, refuseOtherSchema } from './schema.js';
import { WatchedFile } from './watched-file.js';
import { BatchWriter } from './write-batch.js';

/** An open DuckDB file with its connections. */
export interface Database {
  /** Connection for writes, one at a time. */
  readonly writing: DuckDBConnection;
  readonly batches: BatchWriter;
  /** Connections for reads. Each runs one at a time. */
  readonly reading: readonly DuckDBConnection[];
  readonly windows: OpenWindows;
  /** The open file, to notice when it is moved or replaced. */
  readonly file: WatchedFile;
  /**
   * Writes the log into the database file, so that the next start has nothing to replay. No read may be in progress.
   */
  checkpoint(): Promise<void>;
  /** Closes the file without a checkpoint. The connections must be idle. */
  close(): Promise<void>;
}

const mebibyte = 2 ** 20;

/**
 * Default memory limit of DuckDB, in bytes: an eighth of the memory of the machine or container, clamped to 96–256 MiB.
 * With less, checkpoints and commits fail: decision 23.
 */
export function defaultMemoryBytes(
  machineBytes = Math.min(totalmem(), process.constrainedMemory() || Infinity),
): number {
  return Math.min(256 * mebibyte, Math.max(96 * mebibyte, machineBytes / 8));
}

/**
 * Number of concurrent reads. Each occupies one of the four threads that Node has for blocking work; two are left, so
 * that writes never wait for a thread.
 */
const readingConnections = 2;

/**
 * Log size that forces a checkpoint, in bytes: twice DuckDB's default, since each checkpoint rewrites the newest
 * segment of every column. Until then the rows of the log are held in memory; after a crash, the next start replays
 * them, which took 0.4 s on a busy machine.
 */
const logBytesMaxDefault = 32 * 2 ** 20;

/**
 * Opens the file and migrates its tables to this program's version. Creates the file and its folder if they are
 * missing, readable only by their owner. Sets a damaged write-ahead log aside and logs what is missing. Throws a
 * `StoreError` ('stop') that says what to do.
 */
export async function openDatabase(
  path: string,
  {
    memoryBytesMax = defaultMemoryBytes(),
    logBytesMax = logBytesMaxDefault,
    openCellsMax,
    log,
    now = Date.now,
  }: {
    memoryBytesMax?: number | undefined;
    logBytesMax?: number | undefined;
    openCellsMax?: number | undefined;
    log: Pick<Log, 'info' | 'warn' | 'error'>;
    now?: (() => number) | undefined;
  },
): Promise<Database> {
  let instance: DuckDBInstance | undefined;
  let file: WatchedFile | undefined;
  try {
    await makeFolder(dirname(path));
    instance = await openOrCreate(path, settings(spillFolder(path), memoryBytesMax), log);
    await rm(spillFolder(path), { recursive: true, force: true }); // left by a process that was killed
    await protectFiles(path);
    file = await WatchedFile.open(path);
    const writing = await instance.connect();
    // A checkpoint at shutdown would remove the log at a path that may name another file by then.
    await writing.run('PRAGMA disable_checkpoint_on_shutdown');
    await prepareSchema(writing, path, { nowMs: now(), log });
    // DuckDB must not run checkpoints by itself: reads have to wait for them (decision 24).
    await writing.run("SET wal_autocheckpoint = '1TB'");
    await writing.run('SET lock_configuration = true');
    const windows = await OpenWindows.load(writing, { cellsMax: openCellsMax });
    const batches = await BatchWriter.prepare(writing, windows, { logBytesMax });
    const reading = await Promise.all(
      Array.from({ length: readingConnections }, async () => await instance!.connect()),
    );
    const opened = { instance, file };
    return {
      writing,
      batches,
      windows,
      reading,
      file,
      checkpoint: () => batches.checkpoint(),
      async close() {
        for (const connection of [writing, ...reading]) connection.closeSync();
        opened.instance.closeSync();
        await opened.file.close();
      },
    };
  } catch (error) {
    instance?.closeSync();
    await file?.close();
    throw openError(path, error);
  }
}

/**
 * Opens a file, such as a copy, without writing to it; its write-ahead log is replayed in memory. Throws a
 * `StoreError` ('stop').
 */
export async function openDatabaseReadOnly(
  path: string,
  { memoryBytesMax = defaultMemoryBytes() }: { memoryBytesMax?: number | undefined },
): Promise<Pick<Database, 'reading' | 'windows' | 'close'>> {
  let instance: DuckDBInstance | undefined;
  try {
    await access(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      throw new StoreError(
        'stop',
        `Cannot open the DuckDB file ${path}: it does not exist. Set STORE to an existing file.`,
        { cause: error },
      );
    });
    const spill = join(tmpdir(), `caddy-log-sink-${process.pid}.tmp`); // the file's folder may be read-only too
    instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY', ...settings(spill, memoryBytesMax) });
    const reading = await Promise.all(
      Array.from({ length: readingConnections }, async () => await instance!.connect()),
    );
    await refuseOtherSchema(reading[0]!, path);
    await reading[0]!.run('SET lock_configuration = true');
    const windows = await OpenWindows.load(reading[0]!);
    const opened = instance;
    return {
      reading,
      windows,
      close() {
        for (const connection of reading) connection.closeSync();
        opened.closeSync();
        return Promise.resolve();
      },
    };
  } catch (error) {
    instance?.closeSync();
    throw openError(path, error);
  }
}

/**
 * Opens the file, and replaces an empty one: a full disk or a kill during creation leaves it, and DuckDB refuses to
 * open it. DuckDB checks its lock first, so an empty file that another process is about to fill is not removed.
 */
async function openOrCreate(
  path: string,
  options: Record<string, string>,
  log: Pick<Log, 'warn' | 'error'>,
): Promise<DuckDBInstance> {
  try {
    return await openPastDamage(path, options, log);
  } catch (error) {
    if (!messageOf(error).includes(notADatabase) || (await stat(path)).size > 0) throw error;
    await rm(path);
    return await openPastDamage(path, options, log);
  }
}

/** Part of DuckDB's message about a file in another format. */
const notADatabase = 'not a valid DuckDB database file';

/**
 * Makes the file and its log readable only by their owner. DuckDB creates the log again after each checkpoint. Files of
 * another owner are left unchanged.
 */
export async function protectFiles(path: string): Promise<void> {
  for (const file of [path, `${path}.wal`]) {
    await chmod(file, 0o600).catch((error: unknown) => {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'EPERM') throw error;
    });
  }
}

/** The folder to which DuckDB spills when it reaches its memory limit. */
function spillFolder(path: string): string {
  return `${path}.tmp`;
}

/** Maximum size of the spill folder. A read that needs more fails, so that it cannot fill the disk. */
const spillBytesMax = 2 ** 30;

/** See https://duckdb.org/docs/stable/configuration/overview. SQL can access no other file. */
function settings(spillTo: string, memoryBytesMax: number): Record<string, string> {
  return {
    memory_limit: `${Math.floor(memoryBytesMax)}B`,
    temp_directory: spillTo,
    max_temp_directory_size: `${spillBytesMax}B`,
    wal_autocheckpoint: `${logBytesMaxDefault}B`,
    threads: '1', // besides the calling one; a second thread would mostly spin while it waits for the first
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    enable_external_access: 'false',
  };
}

function openError(path: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  const inUse = text.includes('Could not set lock on file');
  const stop = (why: string, what: string): StoreError =>
    new StoreError('stop', `Cannot open the DuckDB file ${path}: ${why}. ${what}`, { cause: error, inUse });
  const elsewhere = 'or set STORE to another file, such as STORE=duckdb:data/other.duckdb.';
  if (inUse) {
    const holder = /Conflicting lock is held in (.+?) ?\(PID (\d+)/.exec(text);
    const who = holder ? `another process (${holder[1]}, PID ${holder[2]})` : 'another process';
    return stop(
      `${who} has it open, and DuckDB lets one process at a time use a file`,
      `Stop that process, ${elsewhere} A collector and a web app in separate processes need STORE=influxdb.`,
    );
  }
  if (text.includes(notADatabase))
    return stop('it is there, but it is not a DuckDB database', `Move it away, ${elsewhere}`);
  if (/Is a directory/i.test(text)) return stop('it is a folder', `Name a file in it, ${elsewhere}`);
  if (text.includes('Trying to read a database file with version number'))
    return stop('a newer DuckDB wrote it', `Upgrade this program, ${elsewhere}`);
  const unchanged = 'start the program again. The file and its log are unchanged.';
  if (/Out of Memory|could not allocate|pin block/i.test(text))
    return stop(`memory is used up (${firstLine(text)})`, `Give this program more memory, and ${unchanged}`);
  if (/ENOSPC|EDQUOT|No space left|quota exceeded/i.test(text))
    return stop(`the disk is full (${firstLine(text)})`, `Free space on it, and ${unchanged}`);
  if (text.includes('replaying WAL'))
    return stop(
      `its write-ahead log cannot be replayed (${firstLine(text)})`,
      `Check the disk, and ${unchanged} To start without the data in the log, move ${path}.wal away.`,
    );
  if (/Corrupt|checksum|Could not read enough bytes|Serialization Error|INTERNAL Error/i.test(text)) {
    return stop(
      `it is damaged (${firstLine(text)})`,
      `Restore a copy of it and of ${path}.wal, or move both away to start afresh.`,
    );
  }
  if (/Permission denied|EACCES|EPERM|EROFS|Read-only file system/i.test(text))
    return stop(`no permission (${firstLine(text)})`, `Let this user write the file and its folder, ${elsewhere}`);
  return stop(
    firstLine(text),
    `Check that the file and its folder can be written and that the disk has space, ${elsewhere}`,
  );
}

/** The first line of a DuckDB error message, without its full stop. */
function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0]!.replace(/\.$/, '');
}
