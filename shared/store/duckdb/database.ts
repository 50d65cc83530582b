import { access, chmod, rm, stat } from 'node:fs/promises';
import { tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';
import { messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { makeFolder } from '../../make-folder.js';
import { openPastDamage } from './damaged-log.js';
import { prepareSchema, refuseOtherSchema } from './schema.js';
import { WatchedFile } from './watched-file.js';
import { createBatchWriter, type BatchWriter } from './write-batch.js';

/** An open DuckDB file with its connections. */
export interface Database {
  /** For writes, one at a time. */
  readonly writing: DuckDBConnection;
  readonly batches: BatchWriter;
  /** For reads, one at a time each. */
  readonly reading: readonly DuckDBConnection[];
  /** The file behind it. */
  readonly file: WatchedFile;
  /** Writes everything into the file, so that the next start has no log to replay. */
  checkpoint(): Promise<void>;
  /** Lets go of the file, without a checkpoint. Nothing may be under way on the connections. */
  close(): Promise<void>;
}

const mebibyte = 2 ** 20;

/**
 * What DuckDB may hold in memory unless it is set, in bytes: an eighth of what the machine or the container has, from 96 to
 * 256 MiB. A checkpoint or a commit that finds no room fails, so less would not do: decision 38.
 */
export function defaultMemoryBytes(machineBytes = Math.min(totalmem(), process.constrainedMemory() || Infinity)): number {
  return Math.min(256 * mebibyte, Math.max(96 * mebibyte, machineBytes / 8));
}

/**
 * Two reads at a time. Each takes one of the four threads that Node has for all blocking work, and writes must never wait
 * for one.
 */
const readingConnections = 2;

/**
 * The log is worked into the file when it has so many bytes, DuckDB's own default twice over: each time, the newest part of every column is
 * written anew. Until then its rows are in memory, and after a crash the next start reads them again, which took 0.4 s on a busy machine.
 */
const logBytesMax = 32 * 2 ** 20;

/**
 * Opens the file, makes it and its folder where they are missing (only their owner may read them), and brings the tables
 * to this program's version. A damaged write-ahead log is set aside, and the log says what is missing. Throws a `StoreError` ('stop') that says what
 * to do.
 */
export async function openDatabase(path: string, { memoryBytesMax = defaultMemoryBytes(), log }: { memoryBytesMax?: number | undefined; log: Pick<Log, 'warn' | 'error'> }): Promise<Database> {
  let instance: DuckDBInstance | undefined;
  let file: WatchedFile | undefined;
  try {
    await makeFolder(dirname(path));
    instance = await openOrCreate(path, settings(spillFolder(path), memoryBytesMax), log);
    await rm(spillFolder(path), { recursive: true, force: true }); // of a process that was killed
    await protectFiles(path);
    file = await WatchedFile.open(path);
    const writing = await instance.connect();
    // It would write what is open, and remove the log, at a path that may lead to another file by then.
    await writing.run('PRAGMA disable_checkpoint_on_shutdown');
    await prepareSchema(writing, path);
    await writing.run('SET lock_configuration = true');
    const batches = await createBatchWriter(writing);
    const reading = await Promise.all(Array.from({ length: readingConnections }, async () => await instance!.connect()));
    const opened = { instance, file };
    return {
      writing, batches, reading, file,
      async checkpoint() {
        await writing.run('CHECKPOINT');
      },
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
 * Opens a file to read it, such as a copy: nothing is written, and its write-ahead log is replayed in memory. Throws a `StoreError` ('stop') that says what
 * to do.
 */
export async function openDatabaseReadOnly(path: string, { memoryBytesMax = defaultMemoryBytes() }: { memoryBytesMax?: number | undefined }): Promise<Pick<Database, 'reading' | 'close'>> {
  let instance: DuckDBInstance | undefined;
  try {
    await access(path);
    const spill = join(tmpdir(), `caddy-log-sink-${process.pid}.tmp`); // the file's folder may be read-only as well
    instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY', ...settings(spill, memoryBytesMax) });
    const reading = await Promise.all(Array.from({ length: readingConnections }, async () => await instance!.connect()));
    await refuseOtherSchema(reading[0]!, path);
    await reading[0]!.run('SET lock_configuration = true');
    const opened = instance;
    return {
      reading,
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
 * A full disk, or a kill in the moment when the file is made, leaves an empty one, which DuckDB does not take for new. It says so when nobody has the
 * file open: one that another process is about to fill stays.
 */
async function openOrCreate(path: string, options: Record<string, string>, log: Pick<Log, 'warn' | 'error'>): Promise<DuckDBInstance> {
  try {
    return await openPastDamage(path, options, log);
  } catch (error) {
    if (!messageOf(error).includes(notADatabase) || (await stat(path)).size > 0) throw error;
    await rm(path);
    return await openPastDamage(path, options, log);
  }
}

/** What DuckDB says of a file that is not its own. */
const notADatabase = 'not a valid DuckDB database file';

/**
 * Lets only the owner read the file and the log beside it, which DuckDB makes anew after each checkpoint. The files of
 * another owner are left as that one wants them.
 */
export async function protectFiles(path: string): Promise<void> {
  for (const file of [path, `${path}.wal`]) {
    await chmod(file, 0o600).catch((error: unknown) => {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'EPERM') throw error;
    });
  }
}

/** Where DuckDB puts what does not fit into its memory. */
function spillFolder(path: string): string {
  return `${path}.tmp`;
}

/** A read that would take more fails, and the disk has room for what is written. */
const spillBytesMax = 2 ** 30;

/** See https://duckdb.org/docs/stable/configuration/overview. SQL can reach nothing but this file, whoever writes it. */
function settings(spillTo: string, memoryBytesMax: number): Record<string, string> {
  return {
    memory_limit: `${Math.floor(memoryBytesMax)}B`,
    temp_directory: spillTo,
    max_temp_directory_size: `${spillBytesMax}B`,
    wal_autocheckpoint: `${logBytesMax}B`,
    threads: '1', // beside the one that asks, another would do little but wait for it, and keep a processor busy with that
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    enable_external_access: 'false',
  };
}

function openError(path: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  const inUse = text.includes('Could not set lock on file');
  const stop = (why: string, what: string): StoreError => new StoreError('stop', `Cannot open the DuckDB file ${path}: ${why}. ${what}`, { cause: error, inUse });
  const elsewhere = 'or set STORE to another file, such as STORE=duckdb:data/other.duckdb.';
  if (inUse) {
    const holder = /Conflicting lock is held in (.+?) ?\(PID (\d+)/.exec(text);
    const who = holder ? `another process (${holder[1]}, PID ${holder[2]})` : 'another process';
    return stop(`${who} has it open, and DuckDB lets one process at a time use a file`, `Stop that process, ${elsewhere} A collector and a web app in separate processes need STORE=influxdb.`);
  }
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return stop('there is no such file', 'Set STORE to a file that is there.');
  if (text.includes(notADatabase)) return stop('it is there, but it is not a DuckDB database', `Move it away, ${elsewhere}`);
  if (/Is a directory/i.test(text)) return stop('it is a folder', `Name a file in it, ${elsewhere}`);
  if (text.includes('Trying to read a database file with version number')) return stop('a newer DuckDB wrote it', `Upgrade this program, ${elsewhere}`);
  const unchanged = 'start the program again. The file and its log are unchanged.';
  if (/Out of Memory|could not allocate|pin block/i.test(text)) return stop(`memory is used up (${firstLine(text)})`, `Give this program more memory, and ${unchanged}`);
  if (/ENOSPC|EDQUOT|No space left|quota exceeded/i.test(text)) return stop(`the disk is full (${firstLine(text)})`, `Free space on it, and ${unchanged}`);
  if (text.includes('replaying WAL')) return stop(`its write-ahead log cannot be replayed (${firstLine(text)})`, `See that the disk works, and ${unchanged} To start without what the log holds, move ${path}.wal away.`);
  if (/Corrupt|checksum|Could not read enough bytes|Serialization Error|INTERNAL Error/i.test(text)) {
    return stop(`it is damaged (${firstLine(text)})`, `Put back a copy of it and of ${path}.wal, or move both away to begin anew.`);
  }
  if (/Permission denied|EACCES|EPERM|EROFS|Read-only file system/i.test(text)) return stop(`no permission (${firstLine(text)})`, `Let this user write the file and its folder, ${elsewhere}`);
  return stop(firstLine(text), `See that the file and its folder can be written and that the disk has space, ${elsewhere}`);
}

/** The first line of an error of DuckDB, without its full stop. */
export function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0]!.replace(/\.$/, '');
}
