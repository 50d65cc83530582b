import { detailedMessageOf, stackOf, StoreError } from '../errors.js';
import type { Log } from '../log.js';
import { backoffMs, pause, retryAfterMsMax } from '../retry.js';
import { OpenRollups } from '../rollup/rollup-aggregator.js';
import type { RollupRow, RowIds, SeriesAggregate } from '../rollup/rollup.js';
import type { Batch, Store } from '../store/store.js';
import { aggregateBytes } from './batch-builder.js';

/** Dependencies of a `BatchQueue`. */
export interface BatchQueueOptions {
  readonly store: Pick<Store, 'write' | 'mergesRollups'>;
  readonly log: Log;
  readonly rowIds: RowIds;
  /** Whether somebody waits for the batches, so that the store need not prefer them to readers. */
  readonly callerWaits: boolean;
  readonly now: () => number;
}

interface QueuedBatch {
  readonly batch: Batch;
  readonly bytes: number;
  /** When it was queued, on the monotonic clock. */
  readonly queuedMs: number;
}

/** Estimated size of a rollup row without its cells, in bytes. */
const rollupRowBytes = 200;

/** Maximum delay between attempts while the queue closes, in milliseconds. */
const closingRetryMsMax = 250;

/** Writes batches in order. Each is retried until the store accepts or rejects it. */
export class BatchQueue {
  readonly #options: BatchQueueOptions;
  /** Only for a store that does not maintain the rows of open windows itself. */
  readonly #openRollups: OpenRollups | undefined;
  #queue: QueuedBatch[] = [];
  #bytes = 0;
  #stored = 0;
  #deadLettered = 0;
  #problem: string | undefined;
  #full: StoreError['full'];
  #writing: Promise<void> | undefined;
  readonly #onWritten: (() => void)[] = [];
  readonly #closing = new AbortController();
  readonly #stopped = new AbortController();

  constructor(options: BatchQueueOptions) {
    this.#options = options;
    this.#openRollups = options.store.mergesRollups ? undefined : new OpenRollups({ rowIds: options.rowIds });
  }

  /** Number of batches, including the one being written. */
  get length(): number {
    return this.#queue.length;
  }

  /** Their estimated size in memory, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of requests that the store has accepted. */
  get stored(): number {
    return this.#stored;
  }

  /** Number of requests that the store has rejected. */
  get deadLettered(): number {
    return this.#deadLettered;
  }

  /** Why the store is not accepting batches; `undefined` if it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** What is full, if that is why the store is not accepting batches. */
  get full(): StoreError['full'] {
    return this.#full;
  }

  get isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  /** Queues a batch with its estimated size in bytes, and gives it the rollup rows that it changed. */
  push(batch: Omit<Batch, 'rollups'>, bytes: number): void {
    const rollups = this.#changedRows(batch.aggregates);
    const size = bytes + rollups.reduce((sum, { cells }) => sum + rollupRowBytes + cells.length * aggregateBytes, 0);
    this.#queue.push({ batch: { ...batch, rollups }, bytes: size, queuedMs: performance.now() });
    this.#bytes += size;
  }

  /** Writes what is queued. Resolves when the store has accepted or rejected all of it. */
  write(): Promise<void> {
    this.#writing ??= this.#writeAll().finally(async () => {
      this.#writing = undefined;
      // Batches may have been queued after the queue was seen empty, by callers who await this promise.
      if (this.#queue.length > 0 && !this.isStopped) await this.write();
    });
    return this.#writing;
  }

  /** Resolves to `true` when another batch has been accepted or rejected; to `false` if the queue is empty. */
  async batchWritten(): Promise<boolean> {
    if (this.#queue.length === 0) return false;
    await new Promise<void>((resolve) => {
      this.#onWritten.push(resolve);
    });
    return true;
  }

  /**
   * Writes what is queued for at most `drainMsMax`, then stops. A store that does not respond must not block the exit,
   * so the write in flight may outlast the limit: see `idle`.
   */
  async close(drainMsMax: number): Promise<void> {
    this.#closing.abort(); // ends a pause: the store may work again
    const giveUp = new AbortController();
    await Promise.race([this.write(), pause(drainMsMax, giveUp.signal)]);
    giveUp.abort();
    this.#stopped.abort();
  }

  /** Resolves when no write is in flight. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  /** Writes the queue in order: rows of later batches replace those of earlier ones. */
  async #writeAll(): Promise<void> {
    for (let failures = 0; this.#queue[0] !== undefined && !this.isStopped; ) {
      const { batch, bytes, queuedMs } = this.#queue[0];
      let isRejected = false;
      try {
        const waitedMs = this.#options.callerWaits ? 0 : performance.now() - queuedMs;
        this.#onAccepted(batch, await this.#options.store.write(batch, { waitedMs }));
      } catch (error) {
        const failure = asStoreError(error);
        isRejected = failure.action === 'drop';
        if (!isRejected) {
          failures += 1;
          await this.#onRefused(failure, failures);
          continue;
        }
        this.#deadLettered += batch.requests.length;
        this.#options.log.error(
          `The store rejected a batch of ${batch.requests.length} requests: ${detailedMessageOf(failure)}`,
        );
      }
      failures = 0;
      this.#queue.shift();
      this.#bytes -= bytes;
      if (isRejected) this.#recount();
      for (const resolve of this.#onWritten.splice(0)) resolve();
    }
  }

  #onAccepted(batch: Batch, rejectedRequests: number): void {
    if (this.#problem !== undefined) this.#options.log.info('The store accepts requests again.');
    this.#problem = undefined;
    this.#full = undefined;
    this.#stored += batch.requests.length - rejectedRequests;
    this.#deadLettered += rejectedRequests;
  }

  /** Reports why the store did not take a batch, and waits until it is time to try again. */
  async #onRefused(failure: StoreError, failures: number): Promise<void> {
    if (this.#problem !== failure.message)
      this.#options.log.warn(`The store does not accept requests, they wait in memory: ${detailedMessageOf(failure)}`);
    if (failure.contentsReplaced) this.#recount();
    this.#problem = failure.message;
    this.#full = failure.full;
    const delayMs = Math.min(failure.retryAfterMs ?? backoffMs(failures), retryAfterMsMax);
    if (this.#closing.signal.aborted) await pause(Math.min(delayMs, closingRetryMsMax), this.#stopped.signal);
    else await pause(delayMs, this.#closing.signal);
  }

  /**
   * Recounts the queued batches into new rollup rows. The current ones are cumulative and include a rejected batch,
   * or requests whose file is gone. New rows add up with the stored ones. Top lists are unaffected: see
   * `Batch.topLists`.
   */
  #recount(): void {
    if (this.#openRollups === undefined) return;
    this.#openRollups.clear();
    this.#queue = this.#queue.map(({ batch, ...others }) => ({
      batch: { ...batch, rollups: this.#changedRows(batch.aggregates) },
      ...others,
    }));
  }

  #changedRows(aggregates: readonly SeriesAggregate[]): RollupRow[] {
    const open = this.#openRollups;
    if (open === undefined) return [];
    const nowMs = this.#options.now();
    const rows = open.copiesOf(open.merge(aggregates, nowMs));
    open.close(open.closing(nowMs));
    return rows;
  }
}

/** An unknown error is a bug of this program: hold the requests, so that a fixed version can store them. */
function asStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  return new StoreError(
    'hold',
    'The store cannot be written, for an unexpected reason. The log has the details; please report them.',
    { cause: error, detail: stackOf(error) },
  );
}
