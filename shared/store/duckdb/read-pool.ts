import type { DuckDBConnection, DuckDBType, DuckDBValue } from '@duckdb/node-api';
import { StoreError } from '../../errors.js';
import { nextTurn } from '../../next-turn.js';
import { Semaphore } from '../../semaphore.js';
import { runKept } from './statements.js';

/** Runs one statement, and hands out the columns of its rows in chunks of up to 2,048 rows, one at least. Each chunk takes a turn of the event loop of its own. */
export type Query = (sql: string, values: DuckDBValue[], types: DuckDBType[]) => AsyncGenerator<DuckDBValue[][]>;

/** Runs `run` over a connection that nobody else uses meanwhile. */
export type Read = <Result>(run: (query: Query) => Promise<Result>) => Promise<Result>;

/** A read under way. */
interface Reading {
  readonly isCancelled: () => boolean;
  readonly cancel: () => void;
}

/** Reads that wait for a connection, and how long they do, in milliseconds. */
const waitingMax = 256;
const waitMsMax = 10_000;
/** What a refused caller is told to wait, in milliseconds. */
const retryAfterMs = 5000;
const interruptEveryMs = 50;

/**
 * The connections that read. A read holds one until its last row has been taken over; results are materialised, never
 * streamed: an open stream would keep DuckDB's instance, and its locks, alive after `close`.
 */
export class ReadPool {
  readonly #idle: DuckDBConnection[];
  readonly #connections: number;
  readonly #permits: Semaphore;
  readonly #readings = new Set<Reading>();
  #isClosing = false;
  #onIdle: (() => void) | undefined;

  constructor(connections: readonly DuckDBConnection[]) {
    this.#idle = [...connections];
    this.#connections = connections.length;
    this.#permits = new Semaphore({ permits: connections.length, waitingMax, waitMsMax });
  }

  /**
   * Runs a read. When `signal` is aborted, its statement is interrupted. Throws what DuckDB throws, and a `StoreError`
   * ('retry') when too many reads wait, when the read was cancelled, and when the pool is closed.
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
      // DuckDB forgets an interruption that comes just before a statement starts.
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
      if (this.#readings.size === 0) this.#onIdle?.();
    }
  }

  /** Lets one read at a time begin, or all again: while lines wait, they come first. */
  restrict(isRestricted: boolean): void {
    this.#permits.setPermits(isRestricted ? 1 : this.#connections);
  }

  /** Whether `close` was called. */
  get isClosed(): boolean { return this.#isClosing; }

  /** Refuses new reads, interrupts those under way, and resolves when the last of them has ended. Nothing uses the connections from then on. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#readings.size === 0) return;
    for (const { cancel } of this.#readings) cancel();
    await new Promise<void>((resolve) => { this.#onIdle = resolve; });
  }

  #refusal(signal: AbortSignal | undefined): StoreError {
    if (this.#isClosing) return new StoreError('retry', 'The read was broken off: the DuckDB file is being closed or opened anew. Try again in a moment.', { retryAfterMs });
    if (signal?.aborted === true) return new StoreError('retry', 'The read was cancelled: nobody waits for it any more, or it took too long. Try again, with a shorter range perhaps.', { retryAfterMs });
    return new StoreError('retry', `Too many reads wait for the DuckDB file: more than ${waitingMax}, or for longer than ${waitMsMax / 1000} s. Try again in a moment.`, { retryAfterMs });
  }
}

async function* chunksOf(connection: DuckDBConnection, { isCancelled }: Reading, [sql, values, types]: Parameters<Query>): AsyncGenerator<DuckDBValue[][]> {
  const refuseCancelled = (): void => {
    if (isCancelled()) throw new Error('cancelled');
  };
  refuseCancelled();
  const result = await runKept(connection, sql, values, types);
  if (result.chunkCount === 0) yield Array.from({ length: result.columnCount }, () => []);
  for (let at = 0; at < result.chunkCount; at += 1) {
    await nextTurn();
    refuseCancelled();
    yield result.getChunk(at).getColumns();
  }
}
