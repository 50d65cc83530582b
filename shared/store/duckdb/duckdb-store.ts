import { resolve } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Retention } from '../../rollup.js';
import { createChanges } from '../changes.js';
import { RetentionGuard } from '../retention-guard.js';
import type { Batch, Store } from '../store.js';
import { openDatabase, protectFiles, type Database } from './database.js';
import { listRequests, readLedgers, readRequests, readRollups, readTops, rollUpRequests } from './queries.js';
import { createRequestGatherer, rowGroupRows } from './request-appender.js';
import { deleteSteps, loadRetentionState, readStoredSpan, saveRetentionState } from './retention.js';

/** Which file, and how much it may take. */
export interface DuckdbOptions {
  /** The file; made with its folder when it is not there. */
  readonly path: string;
  readonly retention: Retention;
  /** See `RetentionGuard`. */
  readonly retentionDelayMs?: number;
  /** What DuckDB may hold in memory, in bytes; 64 MiB by default. Beyond it, DuckDB uses files beside the database. */
  readonly memoryBytesMax?: number;
}

/** Reads that wait for a connection; more are refused, so that a crowd cannot hold up those that come later, or the end. */
const waitingReadsMax = 32;

/** What is old is deleted when the store is opened and every so often from then on. */
const retentionEveryMs = 600_000;

/** The files that this process has open: DuckDB's lock keeps out other processes, but not a second opening by the same one. */
const openPaths = new Set<string>();

/**
 * The embedded store: one DuckDB file, for one process. A batch is a transaction; batches are written one after another,
 * and reads see all of a batch or nothing of it.
 *
 * After a full disk or a failing one DuckDB refuses all further work, and when its memory is full it may stay so: then the file is opened anew before the
 * next use, and what cannot be done meanwhile throws 'retry'.
 *
 * `onRefused` keeps a batch that DuckDB will never take; `write` waits for it.
 *
 * Throws a `StoreError` ('stop') when the file cannot be used.
 */
export async function openDuckdbStore({ path: pathText, retention, retentionDelayMs, memoryBytesMax = 64 * 2 ** 20 }: DuckdbOptions, { log, now = Date.now, monotonicMs = () => performance.now(), onRefused }: { log: Log; now?: () => number; monotonicMs?: () => number; onRefused?: (batch: Batch, reason: string) => Promise<void> }): Promise<Store> {
  const path = resolve(pathText);
  const description = `DuckDB file ${path}`;
  if (openPaths.has(path)) throw new StoreError('stop', `Cannot open the ${description}: this process has it open already. Use the store that is open.`);
  openPaths.add(path);

  /** `undefined` while the file has to be opened anew. */
  let database: Database | undefined;
  try {
    database = await openDatabase(path, { memoryBytesMax });
  } catch (error) {
    openPaths.delete(path);
    throw error;
  }
  let closing: Promise<void> | undefined;
  /** Why the last write failed; `undefined` after one that succeeded. */
  let problem: string | undefined;

  /** Everything that writes, and opening anew, one after another. */
  let lastWrite: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(run: () => Promise<Result>): Promise<Result> => {
    const result = lastWrite.then(run);
    lastWrite = result.catch(() => undefined);
    return result;
  };

  const changes = createChanges();
  const readers = createReaders();
  readers.open(database.reading);

  /** The database, opened anew when it has to be. Only in turn. */
  const usable = async (action: string): Promise<Database> => {
    if (database !== undefined) return database;
    try {
      database = await openDatabase(path, { memoryBytesMax });
    } catch (error) {
      problem = `Cannot ${action} the ${description} yet: it could not be opened anew after an error. ${messageOf(error)}`;
      throw new StoreError('retry', problem, { cause: error });
    }
    readers.open(database.reading);
    log.info(`The ${description} is open again.`);
    return database;
  };

  /** Lets go of a database that an error has left unusable. Only in turn. */
  const abandon = async (broken: Database): Promise<void> => {
    database = undefined;
    await readers.close();
    broken.close();
  };

  /** Runs what writes; on an error nothing of it is left. */
  const write = <Result>(action: string, run: (database: Database) => Promise<Result>): Promise<Result> => inTurn(async () => {
    const current = await usable(action);
    try {
      const result = await run(current);
      problem = undefined;
      return result;
    } catch (error) {
      if (!(await isUsableAfter(error, current.writing))) await abandon(current);
      const failure = storeError(action, description, error);
      if (failure.action !== 'drop') problem = failure.message;
      throw failure;
    }
  });

  const read = async <Result>(run: (connection: DuckDBConnection) => Promise<Result>): Promise<Result> => {
    refuseWhenClosed('read');
    if (database === undefined) await inTurn(async () => await usable('read'));
    try {
      return await readers.use(run);
    } catch (error) {
      throw storeError('read', description, error);
    }
  };

  const refuseWhenClosed = (action: string): void => {
    if (closing !== undefined) throw new StoreError('stop', `Cannot ${action} the ${description}: the store is closed. Open it again.`);
  };

  const guard = new RetentionGuard({
    retention, delayMs: retentionDelayMs, log, now, monotonicMs,
    load: () => read(loadRetentionState),
    save: (state) => write('delete old rows from', ({ writing }) => saveRetentionState(writing, state)),
    readSpan: () => read(readStoredSpan),
  });
  let isDeleting = false;
  const deleteOld = async (): Promise<void> => {
    if (isDeleting) return;
    isDeleting = true;
    try {
      const due = await guard.look();
      for (const step of deleteSteps(due.retention, due.nowMs)) {
        let deleted: number;
        do {
          if (closing !== undefined) return;
          deleted = await write('delete old rows from', async ({ writing }) => await step(writing));
        } while (deleted > 0);
      }
    } catch (error) {
      if (closing === undefined) log.warn(`Old rows are still there; the next try is in ${retentionEveryMs / 60_000} minutes.`, { error: messageOf(error) });
    } finally {
      isDeleting = false;
    }
  };
  void deleteOld();
  const retentionTimer = setInterval(() => void deleteOld(), retentionEveryMs).unref();

  const close = async (): Promise<void> => {
    clearInterval(retentionTimer);
    await inTurn(async () => {
      try {
        if (database === undefined) return;
        await readers.close();
        // Without it nothing is lost: the next start replays the log.
        await database.checkpoint().catch((error: unknown) => { log.warn(`The ${description} was closed without a checkpoint.`, { error: messageOf(error) }); });
        database.close();
        database = undefined;
      } finally {
        openPaths.delete(path);
      }
    });
  };

  const ping = async (): Promise<void> => {
    await read(async (connection) => await connection.run('SELECT version FROM store_schema'));
  };

  return {
    description,
    async write(batch) {
      refuseWhenClosed('write to');
      try {
        await write('write to', async ({ batches }) => {
          await batches.write(batch, now());
          await protectFiles(path);
        });
      } catch (error) {
        if (error instanceof StoreError && error.action === 'drop') {
          await onRefused?.(batch, error.message);
        }
        throw error;
      } finally {
        changes.tell(batch);
      }
      return 0;
    },
    gatherRequests: createRequestGatherer,
    bulkRequests: rowGroupRows,
    spool: undefined,
    requestsKeptMs: retention.requestsMs,
    get problem() { return problem; },
    changes,
    readRollups: (query) => read((connection) => readRollups(connection, query)),
    readTops: (query) => read((connection) => readTops(connection, query)),
    readRequests: (query) => read((connection) => readRequests(connection, query)),
    rollUpRequests: (query) => read((connection) => rollUpRequests(connection, query)),
    listRequests: (query) => read((connection) => listRequests(connection, query)),
    readLedgers: (query) => read((connection) => readLedgers(connection, query)),
    ping,
    pingToWrite: ping,
    close: () => closing ??= close(),
  };
}

/** Hands out connections for reading, each to one user at a time; the others wait in line. */
interface Readers {
  open(connections: readonly DuckDBConnection[]): void;
  use<Result>(run: (connection: DuckDBConnection) => Promise<Result>): Promise<Result>;
  /** Takes all connections back: those in line fail, and it resolves when the reads under way have ended. From then on `use` throws. */
  close(): Promise<void>;
}

function createReaders(): Readers {
  let idle: DuckDBConnection[] = [];
  let total = 0;
  const waiting: { take: (connection: DuckDBConnection) => void; fail: (error: Error) => void }[] = [];
  let whenAllIdle: (() => void) | undefined;

  const giveBack = (connection: DuckDBConnection): void => {
    const next = waiting.shift();
    if (next === undefined) idle.push(connection);
    else next.take(connection);
    if (idle.length === total) whenAllIdle?.();
  };

  return {
    open(connections) {
      total = connections.length;
      idle = [...connections];
    },
    async use(run) {
      if (total === 0) throw new Error('the file is being opened anew');
      if (idle.length === 0 && waiting.length >= waitingReadsMax) throw new StoreError('retry', `Cannot read yet: ${waitingReadsMax} reads are waiting. Try again in a moment.`);
      const connection = idle.pop() ?? await new Promise<DuckDBConnection>((take, fail) => { waiting.push({ take, fail }); });
      try {
        return await run(connection);
      } finally {
        giveBack(connection);
      }
    },
    async close() {
      for (const { fail } of waiting.splice(0)) fail(new StoreError('retry', 'Cannot read: the store is being closed, or opened anew. Try again in a moment.'));
      if (idle.length < total) await new Promise<void>((resolve) => { whenAllIdle = resolve; });
      whenAllIdle = undefined;
      idle = [];
      total = 0;
    },
  };
}

/** Rolls back what is open, and says whether the database can go on. */
async function isUsableAfter(error: unknown, connection: DuckDBConnection): Promise<boolean> {
  try {
    await connection.run('ROLLBACK');
    if (/Duplicate key|Out of Memory/.test(messageOf(error))) return false;
    await connection.run('SELECT version FROM store_schema');
    return true;
  } catch {
    // DuckDB has given up on the file, or the error came from the commit itself: the state is best read anew.
    return false;
  }
}

/**
 * Errors of DuckDB that say that the statement or its values are wrong: the same batch would fail again. A duplicate key is
 * none: rows with a key are upserted, so only an index that does not fit its table can say so.
 */
const wrongForGood = /^(?!Constraint Error: Duplicate key)(?:Constraint|Conversion|Out of Range|Invalid Input|Mismatch Type|Invalid Type|Binder|Catalog|Parser|Syntax|Not implemented) Error:/;

function storeError(action: string, description: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  const drop = wrongForGood.test(text) || error instanceof TypeError || error instanceof RangeError;
  return new StoreError(
    drop ? 'drop' : 'retry',
    `Cannot ${action} the ${description}: ${text.trim().split('\n', 1)[0]!.replace(/\.$/, '')}. ${drop ? 'The data does not fit the tables.' : 'See that its disk has space and works; the next try may go through.'}`,
    { cause: error },
  );
}
