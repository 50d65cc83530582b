import { resolve } from 'node:path';
import { detailedMessageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { deletedBefore } from '../retention-guard.js';
import type { Batch, Store } from '../store.js';
import { openDatabase, protectFiles, type Database } from './database.js';
import { Deletion } from './deletion.js';
import { storeError } from './duckdb-error.js';
import { DuckdbReads } from './duckdb-reads.js';
import { changedKeys } from './changed-keys.js';
import type { OpenWindows } from './open-windows.js';
import type { DuckdbOptions } from './options.js';
import type { Query } from './read-pool.js';
import { ReopeningDatabase } from './reopening-database.js';
import { loadRetentionState } from './retention.js';
import { takeBack } from './take-back.js';

/**
 * A batch that has waited for longer, in milliseconds, shows that the store is falling behind: from then on reads run
 * one at a time, until no such batch has arrived for this long.
 */
const behindMs = 1000;

/** Files that this process has open. DuckDB's lock keeps out other processes, but not a second open by the same one. */
const openPaths = new Set<string>();

/** Dependencies of the store. */
export interface DuckdbStoreParts {
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

class DuckdbStore extends DuckdbReads implements Store {
  readonly #path: string;
  readonly #log: Log;
  readonly #onRefused: DuckdbStoreParts['onRefused'];
  readonly #database: ReopeningDatabase;
  readonly #deletion: Deletion;
  #folding: Promise<void> | undefined;
  #behindTimer: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;
  /** Runs a commit or a checkpoint while no read is in progress. */
  readonly #alone = (run: () => Promise<void>): Promise<void> => this.#database.reads.exclusively(run);

  constructor(
    options: DuckdbOptions,
    { log, now, monotonicMs = () => performance.now(), onRefused }: DuckdbStoreParts,
    database: Database,
  ) {
    super(`DuckDB file ${options.path}`, options.retention, now);
    this.#path = options.path;
    this.#log = log;
    this.#onRefused = onRefused;
    this.#database = new ReopeningDatabase(options, database, {
      description: this.description,
      log,
      now: this.now,
      onExchanged: () => {
        this.changes.emitReplaced();
      },
    });
    this.#deletion = new Deletion(this.#database, options, {
      log,
      now: this.now,
      monotonicMs,
      prepare: async () => {
        await this.#database.write('close windows of', (open) => this.#closeWindows(open));
        await this.#fold();
      },
    });
  }

  get problem(): string | undefined {
    return this.#database.problem;
  }

  protected get windows(): OpenWindows {
    return this.#database.windows;
  }

  protected read<Result>(run: (query: Query) => Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
    return this.#database.read(run, signal);
  }

  async write(batch: Batch, { waitedMs = 0 }: { readonly waitedMs?: number } = {}): Promise<number> {
    const isBehind = waitedMs > behindMs;
    this.#prioritizeWrites(isBehind);
    const changed = { rollups: changedKeys(batch.aggregates), topLists: batch.topLists };
    try {
      await this.#database.write('write to', (database) => this.#writeBatch(database, batch));
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
    const requests = await this.#database.write('undo an import in', async ({ writing, windows }) => {
      const taken = await takeBack(writing, importId);
      await windows.forget(importId, writing);
      return taken;
    });
    this.changes.emitReplaced(); // invalidates all caches
    return requests;
  }

  async requestsFrom(): Promise<number> {
    const deletedBeforeMs = deletedBefore(
      await this.#database.write('read the state of', ({ writing }) => loadRetentionState(writing)),
    );
    return Math.max(deletedBeforeMs, this.now() - this.requestRetentionMs);
  }

  async pingToWrite(): Promise<void> {
    await this.ping();
    if (this.problem !== undefined) throw new StoreError('retry', this.problem);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#deletion.stop();
    clearTimeout(this.#behindTimer);
    try {
      await this.#database.close();
    } finally {
      openPaths.delete(this.#path);
    }
  }

  async #writeBatch(database: Database, batch: Batch): Promise<void> {
    const { batches, file } = database;
    await this.#database.refuseExchanged({ withContent: false });
    const due = batches.checkpointDue(file.logBytes);
    if (due === 'now' || (due === 'when-idle' && this.#database.reads.isIdle))
      await this.#alone(() => batches.checkpoint());
    await this.#closeWindows(database);
    try {
      await batches.write(batch, this.now(), this.#alone);
    } catch (error) {
      await this.#database.abandon(database);
      throw storeError('write to', this.description, error, { isOfBatch: true });
    }
    await protectFiles(this.#path);
    this.#database.onWritten();
  }

  /** Closes windows. An error says so: a batch that waits is not the cause. */
  async #closeWindows(database: Database): Promise<void> {
    try {
      if (await database.batches.closeWindows(this.now(), this.#alone)) void this.#fold();
    } catch (error) {
      await this.#database.abandon(database);
      throw storeError('close windows of', this.description, error);
    }
  }

  /** Runs the folds that are due, taking turns with batches. */
  #fold(): Promise<void> {
    return (this.#folding ??= this.#foldAll()
      .catch((error: unknown) => {
        if (!this.#database.isClosed)
          this.#log.warn(`Cannot fold rollups of the ${this.description}; they are folded later.`, {
            error: detailedMessageOf(error),
          });
      })
      .finally(() => {
        this.#folding = undefined;
      }));
  }

  async #foldAll(): Promise<void> {
    while (this.#database.isOpen) {
      const { windows, reads } = this.#database;
      const fold = windows.folds.due(windows.closedMax, this.now());
      if (fold === undefined) return;
      const prepared = await windows.folds.prepare((run) => reads.use(run), fold);
      await this.#database.write('fold rollups of', async (database) => {
        if (database.windows === windows && windows.folds.isValid(prepared))
          await database.batches.fold(prepared, this.now(), this.#alone);
      });
    }
  }

  #prioritizeWrites(isBehind: boolean): void {
    clearTimeout(this.#behindTimer);
    this.#database.reads.restrict(isBehind);
  }
}
