import { resolve } from 'node:path';
import { StoreError } from '../../errors.js';
import type { Store } from '../store.js';
import { openDatabaseReadOnly } from './database.js';
import { storeError } from './duckdb-error.js';
import { DuckdbReads } from './duckdb-reads.js';
import type { OpenWindows } from './open-windows.js';
import type { DuckdbOptions } from './options.js';
import { ReadPool, type Query } from './read-pool.js';

/**
 * Opens a file to read it: a store that writes and deletes nothing. Its writes throw a `StoreError` ('stop'). Throws a
 * `StoreError` ('stop') when the file cannot be read.
 */
export async function openDuckdbStoreReadOnly(
  options: DuckdbOptions,
  { now = Date.now }: { now?: () => number } = {},
): Promise<Store> {
  const path = resolve(options.path);
  return new ReadOnlyDuckdbStore({ ...options, path }, now, await openDatabaseReadOnly(path, options));
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
