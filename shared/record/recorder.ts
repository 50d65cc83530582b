import { randomUUID } from 'node:crypto';
import type { Log } from '../log.js';
import type { CaddyEvent } from '../caddy-event.js';
import type { RequestEvent } from '../request-event.js';
import { importRowIds, randomRowIds } from '../rollup/rollup.js';
import type { LedgerSnapshot, Store } from '../store/store.js';
import { BatchBuilder, ObjectEncoder, storesAllRequests } from './batch-builder.js';
import { BatchQueue } from './batch-queue.js';
import type { RecordingPolicy } from './recording-policy.js';
import type { UsedTimes } from './unique-time.js';

/**
 * Records requests: makes their times unique, adds them to rollups and top lists, and writes all of it in batches, in
 * order. Each batch is retried until the store accepts or rejects it. `record` never waits and never throws.
 */
export interface Recorder {
  /** Records a request; returns `false` if it was dropped because memory is full. */
  record(event: RequestEvent): boolean;
  /** Records an event. Identical ones are folded: see `EventFolder`. */
  recordEvent(event: CaddyEvent): void;
  /** Marks the times of stored requests as used in their series. */
  reserve(stored: readonly RequestEvent[]): void;
  /** Times of the latest requests, for the next recorder: see `RecorderOptions.usedTimes`. */
  usedTimes(): UsedTimes;
  /**
   * Writes all recorded requests; resolves when the store has accepted or rejected them. `allTopLists` also writes
   * top lists that are not due yet; default: `true`.
   */
  flush(options?: { readonly allTopLists?: boolean }): Promise<void>;
  /**
   * Resolves to `true` when the store has accepted or rejected another queued batch; to `false` if the queue is
   * empty.
   */
  batchWritten(): Promise<boolean>;
  /**
   * Flushes for at most `drainMsMax`, then stops. Logs and resolves to the number of requests not stored by then. A
   * write in flight may still succeed: see `idle`.
   */
  close(options?: { readonly drainMsMax?: number }): Promise<number>;
  /** Resolves when no write is in flight. After `close`, this recorder then never writes again. */
  idle(): Promise<void>;
  readonly counts: RecorderCounts;
  /** Why the store is not accepting batches; `undefined` if it is. */
  readonly problem: string | undefined;
  /** Reason for dropped requests. */
  readonly full: 'memory-full' | 'spool-full' | 'disk-full';
}

/**
 * Requests since the recorder was created: recorded = stored + deadLettered + in memory. Spooled requests count as
 * stored.
 */
export interface RecorderCounts {
  readonly recorded: number;
  readonly stored: number;
  /** Rejected by the store. */
  readonly deadLettered: number;
  /** Counted under `_other` because of the host limit. */
  readonly hostsOverLimit: number;
}

/** Dependencies, settings and limits of a recorder. */
export interface RecorderOptions extends RecordingPolicy {
  readonly store: Pick<Store, 'write' | 'createBatchEncoder' | 'mergesRollups'>;
  readonly log: Log;
  /**
   * Identifies this recorder among those of the store, across restarts: the collector's ID, the web app's host name.
   */
  readonly name: string;
  /** Times used by the previous recorder of this name, which new requests may repeat. Default: none. */
  readonly usedTimes?: UsedTimes | undefined;
  /** Interval between batches in milliseconds. Default: 100. */
  readonly flushMs?: number;
  /** Maximum number of requests in a batch. Default: 5,000, as InfluxDB recommends. */
  readonly batchRequestsMax?: number;
  /** Batch size for sparse traffic, where rollup rows dominate. Default: `batchRequestsMax`. */
  readonly sparseRequestsMax?: number;
  /** Maximum estimated size of a batch's requests, in bytes. Default: 16 MiB. */
  readonly batchBytesMax?: number;
  /**
   * Maximum estimated size of all requests in memory, in bytes. Beyond it, new requests are dropped. Default: 128
   * MiB.
   */
  readonly memoryBytesMax?: number;
  /**
   * Maximum number of batches queued behind the one being written. Beyond it, new requests are dropped. Default:
   * unlimited.
   */
  readonly batchesWaitingMax?: number;
  /** Maximum time that `close` waits for the store, in milliseconds. Default: 8,000. */
  readonly drainMsMax?: number;
  /** Called for each new batch with the counts as of its write. Returns the ledger to write with it, if one is due. */
  readonly ledger?: (counts: RecorderCounts) => LedgerSnapshot | undefined;
  /**
   * Id of the import, if this recorder is for one. Its requests are remembered as imported, and its rows are marked.
   */
  readonly importId?: number | undefined;
  readonly now?: () => number;
}

/** Default of `RecorderOptions.memoryBytesMax`. */
export const memoryBytesMaxDefault = 128 * 2 ** 20;

/** Number of requests to process in a row, so that code and data stay in the processor's caches. */
const requestsPerRun = 32;

/**
 * Creates a recorder, which writes periodically until it is closed. Throws a `RangeError` if `sampleRatio` is
 * invalid.
 */
export function createRecorder(options: RecorderOptions): Recorder {
  return new BatchRecorder(options);
}

class BatchRecorder implements Recorder {
  readonly #options: RecorderOptions;
  readonly #limits: {
    readonly batchRequestsMax: number;
    readonly sparseRequestsMax: number;
    readonly batchBytesMax: number;
    readonly memoryBytesMax: number;
    readonly batchesWaitingMax: number;
  };
  readonly #writer = randomUUID();
  readonly #builder: BatchBuilder;
  readonly #queue: BatchQueue;
  readonly #timer: NodeJS.Timeout;
  /** Requests that are not yet in the builder. */
  #waiting: RequestEvent[] = [];
  #recorded = 0;
  #sequence = 0;

  constructor(options: RecorderOptions) {
    const { store, log, importId, usedTimes, flushMs = 100, batchRequestsMax = 5000, now = Date.now } = options;
    const {
      sparseRequestsMax = batchRequestsMax,
      batchBytesMax = 16 * 2 ** 20,
      memoryBytesMax = memoryBytesMaxDefault,
      batchesWaitingMax = Infinity,
    } = options;
    const rowIds = importId === undefined ? randomRowIds() : importRowIds(importId);
    const encoder = storesAllRequests(options) ? store.createBatchEncoder(options.name) : new ObjectEncoder();
    this.#options = options;
    this.#limits = { batchRequestsMax, sparseRequestsMax, batchBytesMax, memoryBytesMax, batchesWaitingMax };
    this.#builder = new BatchBuilder({ policy: options, encoder, rowIds, importId, usedTimes, now });
    this.#queue = new BatchQueue({ store, log, rowIds, callerWaits: batchesWaitingMax < Infinity, now });
    this.#timer = setInterval(() => {
      this.#tick();
    }, flushMs);
  }

  get counts(): RecorderCounts {
    const { stored, deadLettered } = this.#queue;
    return { recorded: this.#recorded, stored, deadLettered, hostsOverLimit: this.#builder.hostsOverLimit };
  }

  get problem(): string | undefined {
    return this.#queue.problem;
  }

  get full(): Recorder['full'] {
    return this.#queue.full ?? 'memory-full';
  }

  record(event: RequestEvent): boolean {
    const { memoryBytesMax, batchesWaitingMax, batchRequestsMax } = this.#limits;
    const queue = this.#queue;
    const builder = this.#builder;
    if (queue.bytes + builder.bytes >= memoryBytesMax || queue.length > batchesWaitingMax + 1 || queue.isStopped)
      return false;
    this.#waiting.push(event);
    this.#recorded += 1;
    if (this.#waiting.length >= requestsPerRun || builder.length + this.#waiting.length >= batchRequestsMax) {
      this.#addWaiting();
      if (this.#isBatchFull()) {
        this.#seal();
        void queue.write();
      }
    }
    return true;
  }

  recordEvent(event: CaddyEvent): void {
    if (!this.#queue.isStopped) this.#builder.addEvent(event);
  }

  reserve(stored: readonly RequestEvent[]): void {
    this.#addWaiting();
    for (const request of stored) this.#builder.reserve(request);
  }

  usedTimes(): UsedTimes {
    this.#addWaiting();
    return this.#builder.usedTimes();
  }

  async flush({ allTopLists = true } = {}): Promise<void> {
    this.#seal({ allTopLists });
    await this.#queue.write();
  }

  batchWritten(): Promise<boolean> {
    return this.#queue.batchWritten();
  }

  async close({ drainMsMax = this.#options.drainMsMax ?? 8000 } = {}): Promise<number> {
    clearInterval(this.#timer);
    this.#seal({ allTopLists: true });
    await this.#queue.close(drainMsMax);
    const { stored, deadLettered, problem = 'it did not respond' } = this.#queue;
    const left = this.#recorded - stored - deadLettered;
    if (left > 0) this.#options.log.error(`Stopped before the store accepted ${left} requests: ${problem}`);
    return left;
  }

  idle(): Promise<void> {
    return this.#queue.idle();
  }

  #tick(): void {
    // Wait while the store is busy: fewer, larger batches are more efficient.
    if (this.#queue.length === 0) this.#seal();
    void this.#queue.write();
  }

  #addWaiting(): void {
    if (this.#waiting.length === 0) return;
    const events = this.#waiting;
    this.#waiting = [];
    for (const event of events) this.#builder.add(event);
  }

  #isBatchFull(): boolean {
    const { length, bytes, isSparse } = this.#builder;
    const { batchRequestsMax, batchBytesMax, sparseRequestsMax } = this.#limits;
    return length >= batchRequestsMax || bytes >= batchBytesMax || (length >= sparseRequestsMax && isSparse);
  }

  /** Queues a batch: the requests, exactly the rollup rows that they changed, and the top lists that are due. */
  #seal({ allTopLists = false } = {}): void {
    this.#addWaiting();
    const { counts } = this;
    const ledger = this.#options.ledger?.({ ...counts, stored: counts.recorded - counts.deadLettered });
    const taken = this.#builder.take({ allTopLists, evenIfEmpty: ledger !== undefined });
    if (taken === undefined) return;
    this.#sequence += 1;
    this.#queue.push(
      { recorder: this.#options.name, writer: this.#writer, sequence: this.#sequence, ledger, ...taken.contents },
      taken.bytes,
    );
  }
}
