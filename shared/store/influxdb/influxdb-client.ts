import { setMaxListeners } from 'node:events';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { InfluxDB, type FluxTableMetaData, type QueryApi } from '@influxdata/influxdb-client';
import { messageOf, StoreError } from '../../errors.js';
import { callApi } from './call-api.js';
import { deadline } from './deadline.js';
import { influxdbError, isUnavailable, type InfluxdbPlace } from './influxdb-error.js';
import { postLines } from './post.js';
import type { ReadCells } from './queries/read-cells.js';
import { refuseNewerSchema } from './schema.js';

const connectionsMax = 16;
const versionCheckEveryMs = 600_000;
/** Timeout of a deletion, InfluxDB's slowest operation, in milliseconds. Nobody waits for it. */
const deleteMsMax = 600_000;
/** How long `close` waits for pending operations before it aborts them, in milliseconds. */
const closeMsMax = 1000;
/** Idle connections are closed before a proxy drops them, usually after 60 s. In milliseconds. */
const idleMsMax = 30_000;

/** Options of a client. */
export interface InfluxdbClientOptions extends InfluxdbPlace {
  /** Timeout of one write or read, in milliseconds. */
  readonly timeoutMs: number;
  /** Whether to check the bucket's schema version before writes, too. It needs a token that may read. */
  readonly checksBeforeWriting: boolean;
  readonly now: () => number;
}

/**
 * Reads, writes and deletes in one bucket, with deadlines and over a few connections. Refuses a bucket of a newer
 * schema version.
 */
export class InfluxdbClient {
  /** Aborts everything in progress. */
  readonly stopping = new AbortController();
  readonly #place: InfluxdbPlace;
  readonly #timeoutMs: number;
  readonly #checksBeforeWriting: boolean;
  readonly #now: () => number;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #pending = new Set<Promise<unknown>>();
  #refusesUse = false;
  /** When InfluxDB first became unavailable; `undefined` while it responds. */
  #unavailableSinceMs: number | undefined;
  /** The last check of the schema version. */
  #checked: { readonly atMs: number; readonly done: Promise<void> } | undefined;

  constructor({ timeoutMs, checksBeforeWriting, now, ...place }: InfluxdbClientOptions) {
    this.#place = place;
    this.#timeoutMs = timeoutMs;
    this.#checksBeforeWriting = checksBeforeWriting;
    this.#now = now;
    this.#agent = new (place.url.startsWith('https:') ? HttpsAgent : HttpAgent)({
      keepAlive: true,
      maxSockets: connectionsMax,
      timeout: idleMsMax,
    });
    setMaxListeners(0, this.stopping.signal); // each request listens until its deadline
  }

  /** Runs an operation of the store, and converts its errors. `close` waits for it. */
  async use<Result>(action: string, run: () => Promise<Result>): Promise<Result> {
    if (this.#refusesUse)
      throw new StoreError('stop', `Cannot ${action} at ${this.#place.url}: the store is closed. Open it again.`);
    const running = run();
    this.#pending.add(running);
    try {
      return await running;
    } catch (error) {
      throw this.#failure(action, error);
    } finally {
      this.#pending.delete(running);
    }
  }

  /** Writes compressed lines. Throws a `StoreError`. */
  async post(gzip: Buffer): Promise<void> {
    if (this.#checksBeforeWriting) await this.#refuseNewer();
    const { url, org, bucket, token } = this.#place;
    try {
      await postLines(gzip, {
        url: `${url}/api/v2/write?${new URLSearchParams({ org, bucket, precision: 'ns' }).toString()}`,
        token,
        agent: this.#agent,
        timeoutMs: this.#timeoutMs,
        signal: this.stopping.signal,
      });
    } catch (error) {
      throw this.#failure('write', error, { isWrite: true });
    }
    this.#unavailableSinceMs = undefined;
  }

  /** Returns a function that runs queries until `signal` aborts. */
  readUntil(signal: AbortSignal | undefined): ReadCells {
    return async (...query) => {
      await this.#refuseNewer();
      await this.#read(signal, ...query);
    };
  }

  /** Deletes the points before a time that match a predicate. Throws errors of InfluxDB and the system. */
  async deleteBefore(predicate: string, timeMs: number): Promise<void> {
    const { url, org, bucket, token } = this.#place;
    await callApi({ url, token }, 'POST', `/api/v2/delete?${new URLSearchParams({ org, bucket }).toString()}`, {
      body: { start: new Date(0), stop: new Date(timeMs), predicate },
      signal: deadline(deleteMsMax, this.stopping.signal),
    });
  }

  /** From now on, `use` throws. */
  refuseUse(): void {
    this.#refusesUse = true;
  }

  /** Waits for operations in progress for a limited time, and closes the connections. */
  async close(): Promise<void> {
    const timer = setTimeout(() => {
      this.stopping.abort();
    }, closeMsMax);
    await Promise.allSettled(this.#pending);
    clearTimeout(timer);
    this.#agent.destroy();
  }

  #failure(action: string, error: unknown, { isWrite = false } = {}): StoreError {
    if (isUnavailable(error)) this.#unavailableSinceMs ??= this.#now();
    return influxdbError(action, error, this.#place, { sinceMs: this.#unavailableSinceMs, isWrite });
  }

  /** Checks the schema version of the bucket, at first and from time to time. */
  #refuseNewer(): Promise<void> {
    if (this.#checked === undefined || performance.now() - this.#checked.atMs > versionCheckEveryMs) {
      const { url, bucket } = this.#place;
      const read: ReadCells = (...query) => this.#read(undefined, ...query);
      const done = refuseNewerSchema(read, { url, bucket }).catch((error: unknown) => {
        throw this.#failure(`read the version of the bucket ${JSON.stringify(bucket)}`, error);
      });
      this.#checked = { atMs: performance.now(), done };
      done.catch(() => {
        this.#checked = undefined;
      });
    }
    return this.#checked.done;
  }

  #read(signal: AbortSignal | undefined, ...[query, columns, onRow]: Parameters<ReadCells>): Promise<void> {
    return new Promise((resolve, reject) => {
      let known: FluxTableMetaData | undefined;
      let indexes: readonly number[] = [];
      const onValues = (values: string[], table: FluxTableMetaData): void => {
        if (table !== known) {
          known = table;
          // A query that fails midway returns 200 and ends with an error table.
          if (table.columns[0]?.label === 'error') throw this.#unfinished(values[0]);
          indexes = columns.map((column) => table.columns.findIndex(({ label }) => label === column));
        }
        onRow(indexes.map((index) => values[index] || undefined));
      };
      let rowError: Error | undefined;
      this.#queryApi(signal).queryRows(query, {
        next: (values, table) => {
          if (rowError !== undefined) return;
          try {
            onValues(values, table);
          } catch (error) {
            rowError = error instanceof Error ? error : new Error(messageOf(error));
          }
        },
        error: reject,
        complete: () => {
          if (rowError !== undefined) {
            reject(rowError);
            return;
          }
          this.#unavailableSinceMs = undefined;
          resolve();
        },
      });
    });
  }

  /** The client's timeout only covers an idle socket, and leaves the socket open. The signal aborts the request. */
  #queryApi(signal: AbortSignal | undefined): QueryApi {
    const { url, org, token } = this.#place;
    return new InfluxDB({
      url,
      token,
      timeout: this.#timeoutMs,
      transportOptions: { agent: this.#agent, signal: deadline(this.#timeoutMs, this.stopping.signal, signal) },
    }).getQueryApi(org);
  }

  #unfinished(reason: string | undefined): StoreError {
    return new StoreError(
      'retry',
      `InfluxDB at ${this.#place.url} did not finish its answer. Try again, if necessary with a shorter range.`,
      { detail: `the query failed midway (${reason})` },
    );
  }
}
