import { join } from 'node:path';
import { messageOf, StoreError, UsageError } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Retention } from '../../rollup/rollup.js';
import { createDeadLetters } from '../dead-letters.js';
import { RetentionGuard } from '../retention-guard.js';
import { openSpool } from '../spool/spool.js';
import type { Batch, SpoolState, Store } from '../store.js';
import { Delivery } from './delivery.js';
import { startHousekeeping } from './housekeeping.js';
import { InfluxdbClient } from './influxdb-client.js';
import { InfluxdbReads } from './influxdb-reads.js';
import { ledgerLines } from './line-protocol.js';
import { bodiesOf, compress, createBatchEncoder } from './payload.js';
import { listImports } from './queries/imports.js';
import { readStoredSpan } from './queries/stored-span.js';
import { readUrl } from './read-url.js';
import { retentionFile } from './retention-file.js';
import { schemaLine } from './schema.js';
import { SpooledWriter, type SpooledWriterParts } from './spooled-writer.js';
import { takeBack } from './take-back.js';

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

/** Timeout of one write or read, in milliseconds. */
const timeoutMsDefault = 15_000;

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
  const { org, bucket, token, timeoutMs = timeoutMsDefault, spoolDir, spoolBytesMax } = options;
  const url = readUrl(options.url);
  if (!/^[!-~]*$/.test(token))
    throw new UsageError(
      'INFLUXDB_TOKEN holds a space, a line break or another character that no token has: copy it again.',
    );
  const client = new InfluxdbClient({ url, org, bucket, token, timeoutMs, checksBeforeWriting: keepsHouse, now });
  const delivery = new Delivery({
    deadLetters: createDeadLetters({ dir: join(spoolDir, 'dead-letters'), by: 'InfluxDB', log }),
    post: (gzip) => client.post(gzip),
    now,
  });
  const spooled =
    spoolName === undefined
      ? undefined
      : await openSpooled(join(spoolDir, spoolName), {
          delivery,
          stopping: client.stopping,
          bytesMax: spoolBytesMax,
          log,
        });
  const store = new InfluxdbStore({ ...options, url }, { client, delivery, spooled, now });
  if (keepsHouse && options.retention !== undefined) store.keepHouse(options.retention, { log, monotonicMs });
  return store;
}

async function openSpooled(dir: string, parts: Omit<SpooledWriterParts, 'spool'>): Promise<SpooledWriter> {
  try {
    const spool = await openSpool({ dir, bytesMax: parts.bytesMax, log: parts.log });
    return new SpooledWriter({ ...parts, spool });
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError(
      'stop',
      `Cannot open the spool in ${dir}: ${messageOf(error)}. Set SPOOL_DIR to a folder that this user can write.`,
      { cause: error },
    );
  }
}

/** Dependencies of the store. */
interface InfluxdbStoreParts {
  readonly client: InfluxdbClient;
  readonly delivery: Delivery;
  /** `undefined` to send each batch immediately. */
  readonly spooled: SpooledWriter | undefined;
  readonly now: () => number;
}

class InfluxdbStore extends InfluxdbReads implements Store {
  readonly description: string;
  readonly mergesRollups = false;
  readonly bulkRequests = undefined;
  readonly createBatchEncoder = createBatchEncoder;
  readonly #options: InfluxdbOptions;
  readonly #delivery: Delivery;
  readonly #spooled: SpooledWriter | undefined;
  readonly #now: () => number;
  #stopHousekeeping: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: InfluxdbOptions, { client, delivery, spooled, now }: InfluxdbStoreParts) {
    super(client, options);
    this.#options = options;
    this.#delivery = delivery;
    this.#spooled = spooled;
    this.#now = now;
    this.description = `InfluxDB at ${options.url}, bucket ${JSON.stringify(options.bucket)}`;
  }

  /** Starts to delete expired rows and to write the schema version. Call it at most once. */
  keepHouse(retention: Retention, { log, monotonicMs }: { log: Log; monotonicMs: () => number }): void {
    const { url, org, bucket, spoolDir, retentionDelayMs } = this.#options;
    this.#stopHousekeeping = startHousekeeping({
      deleteBefore: (predicate, timeMs) => this.#deleteBefore(predicate, timeMs),
      writeVersion: () =>
        this.client.use('write the version', () => this.client.post(compress(schemaLine(this.#now()), 1).gzip)),
      log,
      guard: new RetentionGuard({
        retention,
        delayMs: retentionDelayMs,
        log,
        now: this.#now,
        monotonicMs,
        ...retentionFile(spoolDir, { url, org, bucket }),
        readSpan: () =>
          this.read('read the time span of the stored data', undefined, (read) => readStoredSpan(read, bucket)),
      }),
    });
  }

  get spool(): SpoolState | undefined {
    return this.#spooled?.state;
  }

  get problem(): string | undefined {
    return this.#spooled?.state.problem;
  }

  write(batch: Batch): Promise<number> {
    return this.client.use(
      `write ${batch.requests.length} requests and ${batch.rollups.length} rollup rows`,
      async () => {
        if (this.#spooled === undefined) return await this.#send(batch);
        await this.#spooled.write(batch);
        return 0;
      },
    );
  }

  /** InfluxDB checks the token and the bucket before the lines, so a write of no lines is enough (seen with 2.7.12). */
  pingToWrite(): Promise<void> {
    return this.client.use(`write to the bucket ${JSON.stringify(this.bucket)}`, async () => {
      await this.client.post(compress('\n', 0).gzip).catch((error: unknown) => {
        // 'drop': it would have accepted a line
        if (!(error instanceof StoreError) || error.action !== 'drop') throw error;
      });
    });
  }

  takeBack(importId: number): Promise<number> {
    return this.client.use('undo an import', async () => {
      const read = this.client.readUntil(undefined);
      const found = (await listImports(read, this.bucket)).find((each) => each.importId === importId);
      if (found === undefined) return 0;
      await takeBack(found, {
        read,
        bucket: this.bucket,
        deleteAll: (predicate) => this.#deleteBefore(predicate, lastMs),
        writeLines: (lines) => this.#delivery.deliver([compress(`${lines.join('\n')}\n`, lines.length)]),
      });
      return found.requests;
    });
  }

  requestsFrom(): Promise<number> {
    return Promise.resolve(this.#now() - (this.requestRetentionMs ?? Infinity));
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.client.refuseUse();
    this.#stopHousekeeping?.();
    await this.#spooled?.close();
    await this.client.close();
  }

  /** Sends a batch immediately. Resolves to the number of rejected requests. */
  async #send(batch: Batch): Promise<number> {
    const bodies = bodiesOf({ ...batch, imported: undefined });
    if (batch.ledger !== undefined) {
      const lines = ledgerLines(batch.ledger);
      bodies.push(compress(`${lines.join('\n')}\n`, lines.length));
    }
    const rejected = await this.#delivery.deliver(bodies);
    // Last, and only if nothing was rejected: the rollups must count all requests that are remembered as imported.
    if (rejected === 0)
      await this.#delivery.deliver(bodiesOf({ ...batch, requests: [], kept: [], rollups: [], topLists: [] }));
    return rejected;
  }

  #deleteBefore(predicate: string, timeMs: number): Promise<void> {
    return this.client.use(`delete expired rows in the bucket ${JSON.stringify(this.bucket)}`, () =>
      this.client.deleteBefore(predicate, timeMs),
    );
  }
}

/** The end of an unbounded deletion: the last whole day that fits into 64 bits of nanoseconds. */
const lastMs = Date.UTC(2262, 3, 11);
