import { resolve } from 'node:path';
import { detailedMessageOf, messageOf, stackOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Retention } from '../../rollup/rollup.js';
import { createChanges } from '../changes.js';
import { collect } from '../collect.js';
import { deletedBefore, RetentionGuard } from '../retention-guard.js';
import type { Batch, HostCounts, HostCountsQuery, LedgerSnapshot, ReadOptions, Store } from '../store.js';
import { openDatabase, openDatabaseReadOnly, protectFiles, type Database } from './database.js';
import { countHosts } from './queries/host-counts.js';
import { listImports, readImported } from './queries/imports.js';
import { readLedgers } from './queries/ledgers.js';
import { streamRequests } from './queries/raw-requests.js';
import { rollUpRequests } from './queries/request-rollups.js';
import { topListsOfRequests } from './queries/request-top-lists.js';
import { readStoredWindows, streamRollups } from './queries/rollups.js';
import { streamTopLists } from './queries/top-lists.js';
import { changedKeys, type OpenWindows } from './open-windows.js';
import { ReadPool, type Query } from './read-pool.js';
import { createBatchEncoder, rowGroupRows } from './request-appender.js';
import { deleteSteps, loadRetentionState, readStoredSpan, saveRetentionState } from './retention.js';
import { takeBack } from './take-back.js';
import type { FileFate } from './watched-file.js';
import { setLogAside } from './write-ahead-log.js';

/** Location and limits of the embedded store. */
export interface DuckdbOptions {
  /** The database file. Created with its folder if missing. */
  readonly path: string;
  readonly retention: Retention;
  /** See `RetentionGuard`. */
  readonly retentionDelayMs?: number | undefined;
  /**
   * Memory limit of DuckDB, in bytes. Default: see `defaultMemoryBytes`. Beyond it, DuckDB spills to the folder
   * `PATH.tmp`.
   */
  readonly memoryBytesMax?: number | undefined;
  /** Size of the write-ahead log that forces a checkpoint, in bytes. Default: 32 MiB. */
  readonly logBytesMax?: number | undefined;
}

/** Interval between deletions of old rows, in milliseconds. The first one runs when the store is opened. */
const retentionEveryMs = 600_000;

/** Interval between checks that the path still names the open file, in milliseconds. Each write checks, too. */
const watchEveryMs = 1000;

/** Maximum number of attempts of a read whose file is closed by a failed write. */
const readAttemptsMax = 3;

/**
 * A batch that has waited for longer, in milliseconds, shows that the store is falling behind: from then on reads run
 * one at a time, until no such batch has arrived for this long.
 */
const behindMs = 1000;

/** Files that this process has open. DuckDB's lock keeps out other processes, but not a second open by the same one. */
const openPaths = new Set<string>();

interface DuckdbStoreParts {
  readonly log: Log;
  readonly now?: () => number;
  readonly monotonicMs?: () => number;
  /** Stores a batch that DuckDB rejects permanently. `write` waits for it. */
  readonly onRefused?: (batch: Batch, reason: string) => Promise<void>;
}

/**
 * Opens the embedded store: one DuckDB file, used by one process. A batch is a transaction. Batches are written one
 * after another, and a query sees either all of a batch or none of it.
 *
 * A failed write closes the file; the next use reopens it. While that fails, all operations throw 'retry'.
 *
 * Throws a `StoreError` ('stop') if the file cannot be used.
 */
export async function openDuckdbStore(options: DuckdbOptions, parts: DuckdbStoreParts): Promise<Store> {
  const path = resolve(options.path);
  if (openPaths.has(path))
    throw new StoreError(
      'stop',
      `Cannot open the DuckDB file ${path}: this process already has it open. Use the open store.`,
    );
  openPaths.add(path);
  try {
    return new DuckdbStore(
      { ...options, path },
      parts,
      await openDatabase(path, { ...options, log: parts.log, now: parts.now }),
    );
  } catch (error) {
    openPaths.delete(path);
    throw error;
  }
}

/**
 * Opens a file to read it: a store that writes and deletes nothing. Its writes throw a `StoreError` ('stop'). Throws a
 * `StoreError` ('stop') when the file cannot be read.
 */
export async function openDuckdbStoreReadOnly(
  options: DuckdbOptions,
  { now = Date.now }: Pick<DuckdbStoreParts, 'now'> = {},
): Promise<Store> {
  const path = resolve(options.path);
  return new ReadOnlyDuckdbStore({ ...options, path }, now, await openDatabaseReadOnly(path, options));
}

/** The reads of a DuckDB store. */
abstract class DuckdbReads {
  readonly mergesRollups = true;
  readonly createBatchEncoder = createBatchEncoder;
  readonly bulkRequests = rowGroupRows;
  readonly spool = undefined;
  readonly description: string;
  readonly requestRetentionMs: number;
  readonly rollupRetentionMs: number;
  readonly changes = createChanges();
  protected readonly now: () => number;

  constructor(description: string, { requestsMs, rollupsMs }: DuckdbOptions['retention'], now = Date.now) {
    this.description = description;
    this.requestRetentionMs = requestsMs;
    this.rollupRetentionMs = rollupsMs;
    this.now = now;
  }

  async ping(): Promise<void> {
    await this.readLedgers({ sinceMs: this.now() });
  }

  protected abstract readonly windows: OpenWindows;
  protected abstract read<Result>(
    run: (query: Query) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result>;

  readRollups(query: Parameters<Store['readRollups']>[0], options?: ReadOptions): ReturnType<Store['readRollups']> {
    return collect(this.streamRollups(query, options));
  }
  readTopLists(query: Parameters<Store['readTopLists']>[0], options?: ReadOptions): ReturnType<Store['readTopLists']> {
    return collect(this.streamTopLists(query, options));
  }
  readRequests(query: Parameters<Store['readRequests']>[0], options?: ReadOptions): ReturnType<Store['readRequests']> {
    return collect(this.streamRequests(query, options));
  }
  streamRollups(
    query: Parameters<Store['streamRollups']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamRollups']> {
    return streamRollups((run) => this.read(run, signal), query, this.windows.snapshot(query));
  }
  streamTopLists(
    query: Parameters<Store['streamTopLists']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamTopLists']> {
    return streamTopLists((run) => this.read(run, signal), query);
  }
  streamRequests(
    query: Parameters<Store['streamRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamRequests']> {
    return streamRequests((run) => this.read(run, signal), query);
  }
  rollUpRequests(
    query: Parameters<Store['rollUpRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['rollUpRequests']> {
    return this.read((run) => rollUpRequests(run, query), signal);
  }
  topListsOfRequests(
    query: Parameters<Store['topListsOfRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['topListsOfRequests']> {
    return this.read((run) => topListsOfRequests(run, query), signal);
  }
  countHosts(query: HostCountsQuery, { signal }: ReadOptions = {}): ReturnType<Store['countHosts']> {
    const open = this.windows.snapshot();
    const counts = new Map<string, HostCounts>();
    this.windows.addHosts(counts, query);
    return this.read((run) => countHosts(run, query, open, new Map(counts)), signal);
  }

  readLedgers(query: { sinceMs: number }, { signal }: ReadOptions = {}): Promise<LedgerSnapshot[]> {
    return this.read((run) => readLedgers(run, query), signal);
  }

  readImported(
    query: Parameters<Store['readImported']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['readImported']> {
    return this.read((run) => readImported(run, query), signal);
  }

  readStoredWindows({ signal }: ReadOptions = {}): ReturnType<Store['readStoredWindows']> {
    return this.read((run) => readStoredWindows(run, this.windows.keys()), signal);
  }

  listImports({ signal }: ReadOptions = {}): ReturnType<Store['listImports']> {
    return this.read((run) => listImports(run), signal);
  }
}

/** A store that only reads its file. */
class ReadOnlyDuckdbStore extends DuckdbReads implements Store {
  readonly problem = undefined;
  protected readonly windows: OpenWindows;
  readonly #database: Awaited<ReturnType<typeof openDatabaseReadOnly>>;
  readonly #reads: ReadPool;
  #closing: Promise<void> | undefined;

  constructor(options: DuckdbOptions, now: () => number, database: Awaited<ReturnType<typeof openDatabaseReadOnly>>) {
    super(`DuckDB file ${options.path}, read-only`, options.retention, now);
    this.#database = database;
    this.windows = database.windows;
    this.#reads = new ReadPool(database.reading);
  }

  write(): Promise<number> {
    return Promise.reject(this.#refusal());
  }
  pingToWrite(): Promise<void> {
    return Promise.reject(this.#refusal());
  }
  takeBack(): Promise<number> {
    return Promise.reject(this.#refusal());
  }
  requestsFrom(): Promise<number> {
    return Promise.resolve(this.now() - this.requestRetentionMs);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#reads.close().then(() => this.#database.close()));
  }

  protected async read<Result>(
    run: (query: Query) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    if (this.#closing !== undefined)
      throw new StoreError('stop', `Cannot read the ${this.description}: the store is closed. Open it again.`);
    try {
      return await this.#reads.use(run, signal);
    } catch (error) {
      throw storeError('read', this.description, error);
    }
  }

  #refusal(): StoreError {
    return new StoreError('stop', `Cannot write to the ${this.description}. Start without --read-only to write.`);
  }
}

class DuckdbStore extends DuckdbReads implements Store {
  readonly #options: DuckdbOptions;
  readonly #log: Log;
  readonly #onRefused: DuckdbStoreParts['onRefused'];
  readonly #guard: RetentionGuard;
  #isDeleting = false;
  #folding: Promise<void> | undefined;
  #behindTimer: NodeJS.Timeout | undefined;
  readonly #retentionTimer: NodeJS.Timeout;
  readonly #watchTimer: NodeJS.Timeout;
  /** `undefined` while the file is closed and has to be reopened. */
  #database: Database | undefined;
  protected windows: OpenWindows;
  #reads: ReadPool;
  #problem: string | undefined;
  /**
   * The file was reopened and nothing has been written since. Reopening proves nothing: it works on a full disk, too.
   */
  #isReopened = false;
  #closing: Promise<void> | undefined;
  /** The last of the operations that run one at a time: writing, opening and closing. */
  #lastWrite: Promise<unknown> = Promise.resolve();

  constructor(
    options: DuckdbOptions,
    { log, now, monotonicMs = () => performance.now(), onRefused }: DuckdbStoreParts,
    database: Database,
  ) {
    super(`DuckDB file ${options.path}`, options.retention, now);
    this.#options = options;
    this.#log = log;
    this.#onRefused = onRefused;
    this.#database = database;
    this.windows = database.windows;
    this.#reads = new ReadPool(database.reading);
    const action = 'delete old rows from';
    this.#guard = new RetentionGuard({
      retention: options.retention,
      delayMs: options.retentionDelayMs,
      log,
      now: this.now,
      monotonicMs,
      load: () => this.#write(action, ({ writing }) => loadRetentionState(writing)),
      save: (state) => this.#write(action, ({ writing }) => saveRetentionState(writing, state)),
      readSpan: () => this.#write(action, ({ writing }) => readStoredSpan(writing)),
    });
    void this.#deleteOld();
    this.#retentionTimer = setInterval(() => void this.#deleteOld(), retentionEveryMs).unref();
    this.#watchTimer = setInterval(() => void this.#watch(), watchEveryMs).unref();
  }

  get problem(): string | undefined {
    return this.#problem;
  }

  async write(batch: Batch, { waitedMs = 0 }: { readonly waitedMs?: number } = {}): Promise<number> {
    const isBehind = waitedMs > behindMs;
    this.#prioritizeWrites(isBehind);
    const changed = { rollups: changedKeys(batch.aggregates), topLists: batch.topLists };
    try {
      await this.#write('write to', async ({ batches, file }) => {
        await this.#refuseExchanged(await file.fate({ withContent: false }));
        const due = batches.checkpointDue(file.logBytes);
        if (due === 'now' || (due === 'when-idle' && this.#reads.isIdle))
          await this.#reads.exclusively(() => batches.checkpoint());
        await this.#closeWindows();
        await batches.write(batch, this.now(), (commit) => this.#reads.exclusively(commit));
        await protectFiles(this.#options.path);
        if (this.#isReopened) this.#log.info(`The ${this.description} is open again.`);
        this.#isReopened = false;
        this.#problem = undefined;
      });
    } catch (error) {
      if (error instanceof StoreError && error.action === 'drop')
        await this.#onRefused?.(batch, detailedMessageOf(error));
      throw error;
    } finally {
      this.changes.tell(changed); // a write that failed may have been committed
      if (isBehind)
        this.#behindTimer = setTimeout(() => {
          this.#prioritizeWrites(false);
        }, behindMs).unref();
    }
    return 0;
  }

  async takeBack(importId: number): Promise<number> {
    const requests = await this.#write('undo an import in', async ({ writing }) => {
      const taken = await takeBack(writing, importId);
      await this.windows.forget(importId, writing);
      return taken;
    });
    this.changes.emitReplaced(); // invalidates all caches
    return requests;
  }

  async requestsFrom(): Promise<number> {
    const deletedBeforeMs = deletedBefore(
      await this.#write('read the state of', ({ writing }) => loadRetentionState(writing)),
    );
    return Math.max(deletedBeforeMs, this.now() - this.requestRetentionMs);
  }

  async pingToWrite(): Promise<void> {
    await this.ping();
    if (this.#problem !== undefined) throw new StoreError('retry', this.#problem);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    clearInterval(this.#retentionTimer);
    clearInterval(this.#watchTimer);
    clearTimeout(this.#behindTimer);
    await this.#serialize(async () => {
      try {
        if (this.#database === undefined) return;
        await this.#reads.close();
        // A failed checkpoint loses nothing: the next start replays the log.
        await this.#database.checkpoint().catch((error: unknown) => {
          this.#log.warn(`The ${this.description} was closed without a checkpoint.`, { error: messageOf(error) });
        });
        await this.#database.close();
        this.#database = undefined;
      } finally {
        openPaths.delete(this.#options.path);
      }
    });
  }

  /** Closes windows. Errors never drop a batch that is written next. Call it only within `#serialize`. */
  async #closeWindows(): Promise<void> {
    const database = this.#database!;
    try {
      if (await database.batches.closeWindows(this.now(), (commit) => this.#reads.exclusively(commit)))
        void this.#fold();
    } catch (error) {
      await this.#abandon(database);
      const { action, message, detail } = storeError('close windows of', this.description, error);
      throw new StoreError(action === 'drop' ? 'hold' : action, message, { cause: error, detail });
    }
  }

  /** Runs the folds that are due, taking turns with batches. */
  #fold(): Promise<void> {
    return (this.#folding ??= this.#foldAll()
      .catch((error: unknown) => {
        if (this.#closing === undefined)
          this.#log.warn(`Cannot fold rollups of the ${this.description}; they are folded later.`, {
            error: detailedMessageOf(error),
          });
      })
      .finally(() => {
        this.#folding = undefined;
      }));
  }

  async #foldAll(): Promise<void> {
    for (;;) {
      const database = this.#database;
      const reads = this.#reads;
      const fold =
        this.#closing === undefined ? database?.windows.folds.due(database.windows.closedMax, this.now()) : undefined;
      if (database === undefined || fold === undefined) return;
      const prepared = await database.windows.folds.prepare((run) => reads.use(run), fold);
      await this.#write('fold rollups of', async ({ windows, batches }) => {
        if (windows === database.windows && windows.folds.isValid(prepared))
          await batches.fold(prepared, this.now(), (commit) => this.#reads.exclusively(commit));
      });
    }
  }

  #prioritizeWrites(isBehind: boolean): void {
    clearTimeout(this.#behindTimer);
    this.#reads.restrict(isBehind);
  }

  #serialize<Result>(run: () => Promise<Result>): Promise<Result> {
    const result = this.#lastWrite.then(run);
    this.#lastWrite = result.catch(() => undefined);
    return result;
  }

  /**
   * Runs an operation exclusively on the open database. An error of DuckDB or the system closes the file, which rolls
   * back an open transaction.
   */
  #write<Result>(action: string, run: (database: Database) => Promise<Result>): Promise<Result> {
    this.#refuseWhenClosed(action);
    return this.#serialize(async () => {
      const database = await this.#usable(action);
      try {
        return await run(database);
      } catch (error) {
        // Our own errors are thrown before anything is written.
        if (!(error instanceof StoreError)) await this.#abandon(database);
        const failure = storeError(action, this.description, error);
        if (failure.action !== 'drop' && !failure.contentsReplaced) this.#problem = failure.message;
        throw failure;
      }
    });
  }

  protected async read<Result>(
    run: (query: Query) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      this.#refuseWhenClosed('read');
      if (this.#database === undefined) await this.#serialize(() => this.#usable('read'));
      const reads = this.#reads;
      try {
        return await reads.use(run, signal);
      } catch (error) {
        // A failed write closed the file. On a full disk, every write does.
        if (reads.isClosed && signal?.aborted !== true && attempt < readAttemptsMax) continue;
        throw storeError('read', this.description, error);
      }
    }
  }

  #refuseWhenClosed(action: string): void {
    if (this.#closing !== undefined)
      throw new StoreError('stop', `Cannot ${action} the ${this.description}: the store is closed. Reopen it.`);
  }

  /** Returns the database, and reopens it if necessary. Call it only within `#serialize`. */
  async #usable(action: string): Promise<Database> {
    if (this.#database !== undefined) return this.#database;
    try {
      this.#database = await openDatabase(this.#options.path, { ...this.#options, log: this.#log, now: this.now });
    } catch (error) {
      this.#problem = `Cannot ${action} the ${this.description}: reopening it after an error failed. ${messageOf(error)}`;
      throw new StoreError('retry', this.#problem, { cause: error });
    }
    this.windows = this.#database.windows;
    this.#reads = new ReadPool(this.#database.reading);
    this.#isReopened = true;
    return this.#database;
  }

  /**
   * Closes the database after a failed write. A commit that runs out of memory can make DuckDB 1.5.5 crash at a later
   * read (https://github.com/duckdb/duckdb/pull/26019), and after a full disk it refuses all statements. Call it only
   * within `#serialize`.
   */
  async #abandon(broken: Database): Promise<void> {
    this.#database = undefined;
    await this.#reads.close();
    await broken.close();
  }

  /** Checks that the path still names the open file, even while nothing is written. */
  async #watch(): Promise<void> {
    try {
      if (this.#closing === undefined)
        await this.#write('watch', async ({ file }) => {
          await this.#refuseExchanged(await file.fate({ withContent: true }));
        });
    } catch (error) {
      if (!(error instanceof StoreError) || error.action === 'stop')
        this.#log.warn(`Cannot check the ${this.description}.`, { error: messageOf(error) });
    }
  }

  /**
   * Closes a file that its path no longer names; the next use opens what is there now. Call it only within `#serialize`.
   */
  async #refuseExchanged(fate: FileFate | undefined): Promise<void> {
    const database = this.#database;
    if (fate === undefined || database === undefined) return;
    const { path } = this.#options;
    const ownLog = await database.file.hasOwnLog();
    this.#database = undefined;
    await this.#reads.close();
    this.changes.emitReplaced();
    // Write the log into the moved file. A file in its place must not get that log.
    if (fate === 'moved' && ownLog)
      await database.checkpoint().catch((error: unknown) => {
        this.#log.warn('The moved DuckDB file lacks the requests in its log.', { error: messageOf(error) });
      });
    await database.close();
    let aside = '';
    if (fate !== 'overwritten' && ownLog) {
      await setLogAside(`${path}.wal`, { label: `of-${fate}-file`, now: this.now }).then(
        (moved) => {
          aside = ` Its log was set aside as ${moved.path}.`;
        },
        (error: unknown) => {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
            aside = ` Its log could not be set aside: ${messageOf(error)}.`;
        },
      );
    }
    this.#log.error(
      `The ${this.description} was ${fate} while it was in use. Its data is no longer at this path.${aside} From now on, requests go to the file at this path, or to a new one if there is none. Stop the program before you move or restore its file.`,
    );
    throw new StoreError('retry', `The ${this.description} was ${fate} while it was in use. It is being reopened.`, {
      retryAfterMs: 0,
    });
  }

  async #deleteOld(): Promise<void> {
    if (this.#isDeleting) return;
    this.#isDeleting = true;
    try {
      const due = await this.#guard.check();
      // Only rows that are closed and folded can be deleted.
      await this.#write('close windows of', () => this.#closeWindows());
      await this.#fold();
      for (const step of deleteSteps(due.retention, due.nowMs)) {
        let deleted: number;
        do {
          if (this.#closing !== undefined) return;
          deleted = await this.#write('delete old rows from', async ({ writing }) => await step(writing));
        } while (deleted > 0);
      }
    } catch (error) {
      if (this.#closing === undefined)
        this.#log.warn(`Cannot delete old rows; the next attempt is in ${retentionEveryMs / 60_000} minutes.`, {
          error: messageOf(error),
        });
    } finally {
      this.#isDeleting = false;
    }
  }
}

/**
 * DuckDB errors caused by the values: the same batch would fail again. A duplicate key is not one of them: rows with a
 * key are upserted, so only an inconsistent index can report it. Nor is a statement that DuckDB cannot run: that is a
 * bug of this program, and must not cost data.
 */
const wrongForGood =
  /^(?!Constraint Error: Duplicate key)(?:Constraint|Conversion|Out of Range|Invalid Input|Mismatch Type|Invalid Type) Error:/;

function storeError(action: string, description: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  if (wrongForGood.test(text))
    return new StoreError(
      'drop',
      `Cannot ${action} the ${description}: the data does not fit the tables. The log has the details.`,
      { cause: error, detail: text },
    );
  if (error instanceof TypeError || error instanceof RangeError) {
    return new StoreError(
      'hold',
      `Cannot ${action} the ${description}, for an unexpected reason. The log has the details; please report them. Nothing is discarded meanwhile.`,
      { cause: error, detail: stackOf(error) },
    );
  }
  const { why, todo } = explain(text);
  return new StoreError('retry', `Cannot ${action} the ${description}: ${why}. ${todo}`, {
    cause: error,
    detail: text,
  });
}

/** Explains an error of DuckDB to the operator: its cause, and what to do. */
function explain(text: string): { why: string; todo: string } {
  if (/No space left on device|Disk quota exceeded|File too large/i.test(text))
    return { why: 'its disk is full', todo: 'Make room: waiting requests are then stored.' };
  if (/Out of Memory|could not allocate block|failed to pin block/i.test(text))
    return { why: 'DuckDB is out of memory', todo: 'Raise DUCKDB_MEMORY_BYTES_MAX, or ask for a shorter range.' };
  return { why: 'DuckDB reported an error', todo: 'The log has the details. The next attempt may succeed.' };
}
