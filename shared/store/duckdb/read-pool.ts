import type { DuckDBConnection, DuckDBType, DuckDBValue } from '@duckdb/node-api';
import { StoreError } from '../../errors.js';
import { nextTurn } from '../../next-turn.js';
import { Semaphore } from '../../semaphore.js';
import { runCached } from './statements.js';

/**
 * Runs one statement and yields its columns in chunks of up to 2,048 rows; at least one chunk, even without rows. Each
 * chunk is read in its own turn of the event loop.
 */
export type Query = (sql: string, values: DuckDBValue[], types: DuckDBType[]) => AsyncGenerator<DuckDBValue[][]>;

/** Runs `run` with exclusive use of a connection. */
export type Read = <Result>(run: (query: Query) => Promise<Result>) => Promise<Result>;

/** A read in progress. */
interface Reading {
  readonly isCancelled: () => boolean;
  readonly cancel: () => void;
}

/** Maximum number of reads waiting for a connection, and how long each waits, in milliseconds. */
const waitingMax = 256;
const waitMsMax = 10_000;
/** Suggested wait before a refused read is retried, in milliseconds. */
const retryAfterMs = 5000;
const interruptEveryMs = 50;

/**
 * A pool of read connections. A read holds one until its last row has been consumed. Results are materialised, never
 * streamed: an open stream would keep DuckDB's instance, and its locks, alive after `close`.
 */
export class ReadPool {
  readonly #idle: DuckDBConnection[];
  readonly #connections: number;
  /** Maximum number of concurrent reads, unless something runs exclusively. */
  #limit: number;
  #isExclusive = false;
  readonly #permits: Semaphore;
  readonly #readings = new Set<Reading>();
  #isClosing = false;

  constructor(connections: readonly DuckDBConnection[]) {
    this.#idle = [...connections];
    this.#connections = connections.length;
    this.#limit = connections.length;
    this.#permits = new Semaphore({ permits: connections.length, waitingMax, waitMsMax });
  }

  /**
   * Runs a read. Aborting `signal` interrupts its statement. Throws DuckDB's errors, and a `StoreError` ('retry') when
   * too many reads are waiting, the read was cancelled, or the pool is closed.
   */
  async use<Result>(run: (query: Query) => Promise<Result>, signal?: AbortSignal): Promise<Result> {
    const release = this.#isClosing ? undefined : await this.#permits.acquire(signal);
    if (release === undefined || this.#isClosing) {
      release?.();
      throw this.#refusal(signal);
    }
    const connection = this.#idle.pop()!;
    const reading: Reading = { isCancelled: () => this.#isClosing || signal?.aborted === true, cancel };
    let interrupting: NodeJS.Timeout | undefined;
    function cancel(): void {
      connection.interrupt();
      // DuckDB ignores an interrupt that arrives just before a statement starts.
      interrupting ??= setInterval(cancel, interruptEveryMs);
    }
    signal?.addEventListener('abort', cancel);
    this.#readings.add(reading);
    try {
      return await run((...statement) => chunksOf(connection, reading, statement));
    } catch (error) {
      throw reading.isCancelled() ? this.#refusal(signal) : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      clearInterval(interrupting);
      this.#readings.delete(reading);
      this.#idle.push(connection);
      release();
    }
  }

  /** Whether no read is in progress. */
  get isIdle(): boolean {
    return this.#permits.isIdle;
  }

  /**
   * Holds back new reads, waits for those in progress, and then runs `run` alone. One call at a time. Throws the
   * errors of `run`.
   */
  async exclusively(run: () => Promise<void>): Promise<void> {
    this.#isExclusive = true;
    this.#applyLimit();
    try {
      await this.#permits.idle();
      await run();
    } finally {
      this.#isExclusive = false;
      this.#applyLimit();
    }
  }

  /** Limits reads to one at a time, or lifts that limit: while the store is behind, writes come first. */
  restrict(isRestricted: boolean): void {
    this.#limit = isRestricted ? 1 : this.#connections;
    this.#applyLimit();
  }

  #applyLimit(): void {
    this.#permits.setPermits(this.#isExclusive ? 0 : this.#limit);
  }

  /** Whether `close` has been called. */
  get isClosed(): boolean {
    return this.#isClosing;
  }

  /**
   * Refuses new reads, interrupts those in progress, and resolves when the last one has ended. The connections are
   * unused from then on.
   */
  async close(): Promise<void> {
    this.#isClosing = true;
    for (const { cancel } of this.#readings) cancel();
    await this.#permits.idle();
  }

  #refusal(signal: AbortSignal | undefined): StoreError {
    if (this.#isClosing)
      return new StoreError(
        'retry',
        'The read was aborted: the DuckDB file is being closed or reopened. Try again in a moment.',
        { retryAfterMs },
      );
    if (signal?.aborted === true)
      return new StoreError(
        'retry',
        'The read was cancelled: its client has disconnected, or it took too long. Try again, if necessary with a shorter range.',
        { retryAfterMs },
      );
    return new StoreError(
      'retry',
      `Too many reads are waiting for the DuckDB file: more than ${waitingMax} are queued, or this one has waited for ${waitMsMax / 1000} s. Try again in a moment.`,
      { retryAfterMs },
    );
  }
}

async function* chunksOf(
  connection: DuckDBConnection,
  { isCancelled }: Reading,
  [sql, values, types]: Parameters<Query>,
): AsyncGenerator<DuckDBValue[][]> {
  const refuseCancelled = (): void => {
    if (isCancelled()) throw new Error('cancelled');
  };
  refuseCancelled();
  const result = await runCached(connection, sql, values, types);
  if (result.chunkCount === 0) yield Array.from({ length: result.columnCount }, () => []);
  for (let at = 0; at < result.chunkCount; at += 1) {
    await nextTurn();
    refuseCancelled();
    yield result.getChunk(at).getColumns();
  }
}
