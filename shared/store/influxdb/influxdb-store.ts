import { setMaxListeners } from 'node:events';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { join } from 'node:path';
import { InfluxDB, type FluxTableMetaData } from '@influxdata/influxdb-client';
import { messageOf, StoreError, UsageError } from '../../errors.js';
import type { Log } from '../../log.js';
import { openSpool } from '../spool/spool.js';
import type { Retention } from '../../rollup/rollup.js';
import { RetentionGuard } from '../retention-guard.js';
import type { Batch, Store } from '../store.js';
import { createDeadLetters } from '../dead-letters.js';
import { callApi } from './call-api.js';
import { deadline } from './deadline.js';
import { createDelivery } from './delivery.js';
import { startHousekeeping } from './housekeeping.js';
import { influxdbError, isUnavailable, type InfluxdbPlace } from './influxdb-error.js';
import { ledgerLines } from './line-protocol.js';
import { bodiesOf, compress, createBatchEncoder } from './payload.js';
import { postLines } from './post.js';
import { countHosts } from './queries/host-counts.js';
import { listImports, readImported } from './queries/imports.js';
import { readLedgers } from './queries/ledgers.js';
import { readRequests } from './queries/raw-requests.js';
import { readNothing, type ReadCells } from './queries/read-cells.js';
import { rollUpRequests } from './queries/request-rollups.js';
import { listNewest } from './queries/request-top-lists.js';
import { readRollups, readStoredWindows } from './queries/rollups.js';
import { readStoredSpan } from './queries/stored-span.js';
import { readTopLists } from './queries/top-lists.js';
import { takeBack } from './take-back.js';
import { retentionFile } from './retention-file.js';
import { refuseNewerSchema, schemaLine } from './schema.js';
import { startSpooledWriter, type SpooledWriter } from './spooled-writer.js';

/** Location, credentials and limits of a store in InfluxDB 2.x. */
export interface InfluxdbOptions {
  /** Such as `http://127.0.0.1:8086`, optionally with a path prefix of `/api/v2`. */
  readonly url: string;
  readonly org: string;
  readonly bucket: string;
  /** Needs write access to the bucket to write, and read access to read. */
  readonly token: string;
  /** Timeout of one write of at most 5,000 lines, or one read, in milliseconds. Default: 15,000. */
  readonly timeoutMs?: number;
  /** Folder of spools and dead letters. */
  readonly spoolDir: string;
  /** Maximum size of one spool, in bytes. */
  readonly spoolBytesMax: number;
  /** Retention of rows, for housekeeping. */
  readonly retention?: Retention;
  /** See `RetentionGuard`. */
  readonly retentionDelayMs?: number;
}

/**
 * Opens a store in a bucket of InfluxDB 2.x. InfluxDB is not contacted before the first use, so the program starts
 * even if it is down. Writing a batch again writes the same points, which changes nothing.
 *
 * With `spoolName`, `write` appends a batch to that spool, from which it is delivered. Without it, `write` sends the
 * batch immediately, or throws. A batch is sent in several writes of at most 5,000 lines: requests, then rollup rows
 * and top lists, then the ledger. After a failure, a part of it may be stored until it is retried.
 *
 * With `keepsHouse`, the store deletes rows older than `retention` and writes the schema version; this needs read and
 * write access.
 *
 * Throws a `UsageError` for an invalid `url` or `token`, and a `StoreError` ('stop') if the spool is unusable.
 */
export async function openInfluxdbStore(
  options: InfluxdbOptions,
  {
    log,
    now = Date.now,
    monotonicMs = () => performance.now(),
    spoolName,
    keepsHouse = false,
  }: { log: Log; now?: () => number; monotonicMs?: () => number; spoolName?: string | undefined; keepsHouse?: boolean },
): Promise<Store> {
  const {
    url: urlText,
    org,
    bucket,
    token,
    timeoutMs = 15_000,
    spoolDir,
    spoolBytesMax,
    retention,
    retentionDelayMs,
  } = options;
  const url = readUrl(urlText);
  if (!/^[!-~]*$/.test(token))
    throw new UsageError(
      'INFLUXDB_TOKEN holds a space, a line break or another character that no token has: copy it again.',
    );
  const place: InfluxdbPlace = { url, org, bucket, token };
  const agent = new (url.startsWith('https:') ? HttpsAgent : HttpAgent)({
    keepAlive: true,
    maxSockets: connectionsMax,
    timeout: idleMsMax,
  });
  // The client's timeout only covers an idle socket, and leaves the socket open. The signal aborts the request.
  const connect = (signal?: AbortSignal): InfluxDB =>
    new InfluxDB({
      url,
      token,
      timeout: timeoutMs,
      transportOptions: { agent, signal: deadline(timeoutMs, closing.signal, signal) },
    });

  const closing = new AbortController();
  setMaxListeners(0, closing.signal); // each request listens until its deadline
  const pending = new Set<Promise<unknown>>();
  let closed = false;
  let unavailableSinceMs: number | undefined;
  const failure = (action: string, error: unknown): StoreError => {
    if (isUnavailable(error)) unavailableSinceMs ??= now();
    return influxdbError(action, error, place, unavailableSinceMs);
  };
  /** Runs an operation unless the store is closed. `close` waits for it. */
  const use = async <Result>(action: string, run: () => Promise<Result>): Promise<Result> => {
    if (closed) throw new StoreError('stop', `Cannot ${action} at ${url}: the store is closed. Open it again.`);
    const running = run();
    pending.add(running);
    try {
      return await running;
    } catch (error) {
      throw failure(action, error);
    } finally {
      pending.delete(running);
    }
  };

  const writeUrl = `${url}/api/v2/write?${new URLSearchParams({ org, bucket, precision: 'ns' }).toString()}`;
  const post = async (gzip: Buffer): Promise<void> => {
    if (keepsHouse) await refuseNewer();
    await postLines(gzip, { url: writeUrl, token, agent, timeoutMs, signal: closing.signal }).catch(
      (error: unknown) => {
        throw failure('write', error);
      },
    );
    unavailableSinceMs = undefined;
  };
  const delivery = createDelivery({
    deadLetters: createDeadLetters({ dir: join(spoolDir, 'dead-letters'), by: 'InfluxDB', log }),
    post,
    now,
  });
  const spooled = spoolName === undefined ? undefined : await openSpooled(join(spoolDir, spoolName));
  async function openSpooled(dir: string): Promise<SpooledWriter> {
    try {
      const spool = await openSpool({ dir, bytesMax: spoolBytesMax, log });
      return startSpooledWriter({ spool, delivery, stopping: closing, bytesMax: spoolBytesMax, log });
    } catch (error) {
      if (error instanceof StoreError) throw error;
      throw new StoreError(
        'stop',
        `Cannot open the spool in ${dir}: ${messageOf(error)}. Set SPOOL_DIR to a folder that this user can write.`,
        { cause: error },
      );
    }
  }
  const write = async (batch: Batch): Promise<number> => {
    if (spooled !== undefined) {
      await spooled.write(batch);
      return 0;
    }
    const bodies = bodiesOf({ ...batch, imported: undefined });
    if (batch.ledger !== undefined) {
      const lines = ledgerLines(batch.ledger);
      bodies.push(compress(`${lines.join('\n')}\n`, lines.length));
    }
    const rejected = await delivery.deliver(bodies);
    // Last, and only if nothing was rejected: the rollups must count all requests that are remembered as imported.
    if (rejected === 0)
      await delivery.deliver(bodiesOf({ ...batch, requests: [], kept: [], rollups: [], topLists: [] }));
    return rejected;
  };

  const readUncheckedUntil =
    (signal: AbortSignal | undefined): ReadCells =>
    (query, columns, onRow) =>
      new Promise((resolve, reject) => {
        let known: FluxTableMetaData | undefined;
        let indexes: readonly number[] = [];
        const onValues = (values: string[], table: FluxTableMetaData): void => {
          if (table !== known) {
            known = table;
            // A query that fails midway returns 200 and ends with an error table.
            if (table.columns[0]?.label === 'error')
              throw new StoreError(
                'retry',
                `InfluxDB at ${url} did not finish its answer. Try again, if necessary with a shorter range.`,
                { detail: `the query failed midway (${values[0]})` },
              );
            indexes = columns.map((column) => table.columns.findIndex(({ label }) => label === column));
          }
          onRow(indexes.map((index) => values[index] || undefined));
        };
        let rowError: Error | undefined;
        connect(signal)
          .getQueryApi(org)
          .queryRows(query, {
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
              unavailableSinceMs = undefined;
              resolve();
            },
          });
      });

  const readUnchecked = readUncheckedUntil(undefined);

  let checked: { readonly atMs: number; readonly done: Promise<void> } | undefined;
  /** Checks the schema version of the bucket, at first and from time to time. */
  const refuseNewer = (): Promise<void> => {
    if (checked === undefined || performance.now() - checked.atMs > versionCheckEveryMs) {
      const done = refuseNewerSchema(readUnchecked, { url, bucket }).catch((error: unknown) => {
        throw failure(`read the version of the bucket ${JSON.stringify(bucket)}`, error);
      });
      checked = { atMs: performance.now(), done };
      done.catch(() => {
        checked = undefined;
      });
    }
    return checked.done;
  };
  const readUntil =
    (signal: AbortSignal | undefined): ReadCells =>
    async (...query) => {
      await refuseNewer();
      await readUncheckedUntil(signal)(...query);
    };
  const deleteBefore = (predicate: string, timeMs: number): Promise<unknown> =>
    use(`delete expired rows in the bucket ${JSON.stringify(bucket)}`, () =>
      callApi({ url, token }, 'POST', `/api/v2/delete?${new URLSearchParams({ org, bucket }).toString()}`, {
        body: { start: new Date(0), stop: new Date(timeMs), predicate },
        signal: deadline(deleteMsMax, closing.signal),
      }),
    );
  const writeVersion = (): Promise<void> =>
    use('write the version', async () => {
      await post(compress(schemaLine(now()), 1).gzip);
    });
  const keepHouse = (configured: Retention): (() => void) =>
    startHousekeeping({
      deleteBefore,
      writeVersion,
      log,
      guard: new RetentionGuard({
        retention: configured,
        delayMs: retentionDelayMs,
        log,
        now,
        monotonicMs,
        ...retentionFile(spoolDir, { url, org, bucket }),
        readSpan: () =>
          use('read the time span of the stored data', () => readStoredSpan(readUntil(undefined), bucket)),
      }),
    });
  const stopHousekeeping = keepsHouse && retention !== undefined ? keepHouse(retention) : undefined;

  const readAllRollups: Store['readRollups'] = (query, options) =>
    use('read rollup rows', () => readRollups(readUntil(options?.signal), bucket, query));
  const readAllTopLists: Store['readTopLists'] = (query, options) =>
    use('read top lists', () => readTopLists(readUntil(options?.signal), bucket, query));
  const readLatestRequests: Store['readRequests'] = (query, options) =>
    use('read requests', () => readRequests(readUntil(options?.signal), bucket, query));

  return {
    description: `InfluxDB at ${url}, bucket ${JSON.stringify(bucket)}`,
    get spool() {
      return spooled?.state;
    },
    get problem() {
      return spooled?.state.problem;
    },
    changes: undefined,
    requestRetentionMs: retention?.requestsMs,
    rollupRetentionMs: retention?.rollupsMs,
    write: (batch) =>
      use(`write ${batch.requests.length} requests and ${batch.rollups.length} rollup rows`, () => write(batch)),
    mergesRollups: false,
    bulkRequests: undefined,
    createBatchEncoder,
    readRollups: readAllRollups,
    countHosts: (query, options) => use('count hosts', () => countHosts(readUntil(options?.signal), bucket, query)),
    streamRollups: (...query) => inOnePage(readAllRollups(...query)),
    readTopLists: readAllTopLists,
    streamTopLists: (...query) => inOnePage(readAllTopLists(...query)),
    readRequests: readLatestRequests,
    streamRequests: (...query) => inOnePage(readLatestRequests(...query)),
    rollUpRequests: (query, options) =>
      use('read requests', () => rollUpRequests(readUntil(options?.signal), bucket, query)),
    topListsOfRequests: (query, options) =>
      use('read requests', () => listNewest(readUntil(options?.signal), bucket, query)),
    readStoredWindows: (options) =>
      use('read the oldest and newest rollup rows', () => readStoredWindows(readUntil(options?.signal), bucket)),
    readLedgers: (query, options) =>
      use('read the ledgers', () => readLedgers(readUntil(options?.signal), bucket, query)),
    readImported: (query, options) =>
      use('read the imported requests', () => readImported(readUntil(options?.signal), bucket, query)),
    listImports: (options) => use('list the imports', () => listImports(readUntil(options?.signal), bucket)),
    takeBack: (importId) =>
      use('undo an import', async () => {
        const found = (await listImports(readUntil(undefined), bucket)).find((each) => each.importId === importId);
        if (found === undefined) return 0;
        await takeBack(found, {
          read: readUntil(undefined),
          bucket,
          deleteAll: (predicate) => deleteBefore(predicate, lastMs),
          writeLines: (lines) => delivery.deliver([compress(`${lines.join('\n')}\n`, lines.length)]),
        });
        return found.requests;
      }),
    requestsFrom: () => Promise.resolve(now() - (retention?.requestsMs ?? Infinity)),
    ping: () => use(`read the bucket ${JSON.stringify(bucket)}`, () => readNothing(readUntil(undefined), bucket)),
    pingToWrite: () => use(`write to the bucket ${JSON.stringify(bucket)}`, () => writeNothing(post)),
    close: async () => {
      if (closed) return;
      closed = true;
      stopHousekeeping?.();
      await spooled?.close();
      const timer = setTimeout(() => {
        closing.abort();
      }, closeMsMax);
      await Promise.allSettled(pending);
      clearTimeout(timer);
      agent.destroy();
    },
  };
}

/** InfluxDB returns all rows of a query at once. */
async function* inOnePage<Row>(rows: Promise<Row[]>): AsyncGenerator<Row[]> {
  yield await rows;
}

/** InfluxDB checks the token and the bucket before the lines, so a write of no lines is enough (seen with 2.7.12). */
async function writeNothing(post: (gzip: Buffer) => Promise<void>): Promise<void> {
  const { gzip } = compress('\n', 0);
  await post(gzip).catch((error: unknown) => {
    if (!(error instanceof StoreError) || error.action !== 'drop') throw error; // 'drop': it would have accepted a line
  });
}

/** The end of an unbounded deletion: the last whole day that fits into 64 bits of nanoseconds. */
const lastMs = Date.UTC(2262, 3, 11);
const connectionsMax = 16;
const versionCheckEveryMs = 600_000;
/** Timeout of a deletion, InfluxDB's slowest operation, in milliseconds. Nobody waits for it. */
const deleteMsMax = 600_000;
/** How long `close` waits for pending operations before it aborts them, in milliseconds. */
const closeMsMax = 1000;
/** Idle connections are closed before a proxy drops them, usually after 60 s. In milliseconds. */
const idleMsMax = 30_000;

/**
 * Parses the address of InfluxDB and removes a trailing slash. Throws a `UsageError` if it is invalid or has a
 * password.
 */
export function readUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UsageError(
      `INFLUXDB_URL ${JSON.stringify(text)} is not a valid address: it must look like http://127.0.0.1:8086.`,
    );
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new UsageError(
      'INFLUXDB_URL has a user, a password, a query or a fragment: remove them, and put the token in INFLUXDB_TOKEN.',
    );
  }
  return url.href.replace(/\/+$/, '');
}
