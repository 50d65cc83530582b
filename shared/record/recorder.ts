import { randomUUID } from 'node:crypto';
import {
  clampBytes,
  boundClientIp,
  boundDuration,
  boundMethod,
  truncateText,
  cleanName,
  nameLengthMax,
  otherName,
  uriLengthMax,
  type ClientIpPolicy,
} from './bounds.js';
import type { ConfiguredHosts } from './configured-hosts.js';
import type { CountryOf } from './countries.js';
import { detailedMessageOf, stackOf, StoreError } from '../errors.js';
import { HostLimit } from './host-limit.js';
import { importKey, packImported, type ImportedRequest } from './imported-requests.js';
import type { Log } from '../log.js';
import { createMemo } from '../memo.js';
import { heldBytes, type RequestEvent } from '../request-event.js';
import { createRequestSample } from './request-sample.js';
import { backoffMs, pause, retryAfterMsMax } from '../retry.js';
import { BatchAggregates, OpenRollups } from '../rollup/rollup-aggregator.js';
import {
  createSeriesKeys,
  importRowIds,
  latencyBucketOf,
  randomRowIds,
  seriesKey,
  type RollupRow,
  type SeriesAggregate,
} from '../rollup/rollup.js';
import type { Batch, LedgerSnapshot, BatchEncoder, Store } from '../store/store.js';
import { createTopListAggregator } from '../top-list/top-list-aggregator.js';
import { createUniqueTimes, type UsedTimes } from './unique-time.js';

/**
 * Records requests: makes their times unique, adds them to rollups and top lists, and writes all of it in batches, in
 * order. Each batch is retried until the store accepts or rejects it. `record` never waits and never throws.
 */
export interface Recorder {
  /** Records a request; returns `false` if it was dropped because memory is full. */
  record(event: RequestEvent): boolean;
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
export interface RecorderOptions {
  readonly store: Pick<Store, 'write' | 'createBatchEncoder' | 'keepsOpenRollups'>;
  readonly log: Log;
  /**
   * Identifies this recorder among those of the store, across restarts: the collector's ID, the web app's host name.
   */
  readonly name: string;
  readonly hostsMax: number;
  /** Hosts of Caddy's configuration. They may change later. Default: none. */
  readonly configuredHosts?: ConfiguredHosts | undefined;
  readonly clientIp: ClientIpPolicy;
  /** Looks up the country of an address before the address is truncated. Default: no countries. */
  readonly countryOf?: CountryOf | undefined;
  /** Fraction of requests stored as raw requests, from 0 to 1. All requests are counted. Default: 1. */
  readonly sampleRatio?: number | undefined;
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
 * Traffic is sparse if there are fewer requests than this per row of the finest level. A row, with those of other
 * levels, occupies some kilobytes until it is written.
 */
const sparseRequestsPerRow = 16;

/** Maximum time between the last requests of a recorder and the first ones of its successor, in milliseconds. */
const usedTimesMs = 10_000;

/** Maximum delay between attempts while a recorder closes, in milliseconds. */
const closingRetryMsMax = 250;

/** Maximum length of other free text, in UTF-16 code units. */
const textLengthMax = 1024;

/**
 * Creates a recorder, which writes periodically until it is closed. Throws a `RangeError` if `sampleRatio` is
 * invalid.
 */
export function createRecorder(options: RecorderOptions): Recorder {
  const {
    store,
    log,
    sampleRatio = 1,
    flushMs = 100,
    batchRequestsMax = 5000,
    sparseRequestsMax = batchRequestsMax,
    batchBytesMax = 16 * 2 ** 20,
    memoryBytesMax = memoryBytesMaxDefault,
    batchesWaitingMax = Infinity,
    drainMsMax = 8000,
    now = Date.now,
  } = options;
  /** An import waits for its batches, and the store need not prefer readers to it. */
  const callerWaits = batchesWaitingMax < Infinity;
  const writer = randomUUID();
  const { importId } = options;
  const rowIds = importId === undefined ? randomRowIds() : importRowIds(importId);
  const batchAggregates = new BatchAggregates(now);
  /** Only for a store that does not maintain open rollups itself. */
  const openRollups = store.keepsOpenRollups === true ? undefined : new OpenRollups({ rowIds });
  const topListAggregator = createTopListAggregator({ rowIds });
  const sampleIncludes = createRequestSample(sampleRatio);
  const uniqueTimes = createUniqueTimes();
  const seriesKeyOf = createSeriesKeys();
  // Separate memos: consecutive requests often have the same value.
  const nameOf = { source: createMemo(cleanName), host: createMemo(cleanName), endpoint: createMemo(cleanName) };
  const clientOf = createMemo((address) => boundClientIp(address, options.clientIp), { entriesMax: 10_000 });
  const countryOf = options.countryOf && createMemo(options.countryOf, { entriesMax: 10_000 });
  const boundedText = (): ((text: string) => string) => createMemo((text) => truncateText(text, textLengthMax));
  const textOf = { userAgent: boundedText(), referrer: boundedText(), protocol: boundedText(), tls: boundedText() };
  for (const [series, times] of options.usedTimes ?? []) for (const time of times) uniqueTimes.reserve(series, time);
  const hostLimit = new HostLimit({ hostsMax: options.hostsMax, configured: options.configuredHosts });

  let waiting: RequestEvent[] = [];
  const encoder = (sampleRatio === 1 ? store.createBatchEncoder?.(options.name) : undefined) ?? createObjectEncoder();
  let importedRequests: ImportedRequest[] = [];
  /** The sampled ones among them; `undefined` if all are. */
  let sampledEvents: RequestEvent[] | undefined = sampleRatio === 1 ? undefined : [];
  let queue: { readonly batch: Batch; readonly bytes: number; readonly sealedMs: number }[] = [];
  let queuedBytes = 0;
  let sequence = 0;
  const counts = { recorded: 0, stored: 0, deadLettered: 0, hostsOverLimit: 0 };
  let problem: string | undefined;
  let full: StoreError['full'];
  let writing: Promise<void> | undefined;
  const onWritten: (() => void)[] = [];
  const closing = new AbortController();
  const stopped = new AbortController();
  const timer = setInterval(tick, flushMs);

  return {
    record(event) {
      if (
        queuedBytes + encoder.bytes >= memoryBytesMax ||
        queue.length > batchesWaitingMax + 1 ||
        stopped.signal.aborted
      )
        return false;
      waiting.push(event);
      counts.recorded += 1;
      if (waiting.length >= requestsPerRun || encoder.length + waiting.length >= batchRequestsMax) {
        addWaiting();
        if (
          encoder.length >= batchRequestsMax ||
          encoder.bytes >= batchBytesMax ||
          (encoder.length >= sparseRequestsMax && batchAggregates.size * sparseRequestsPerRow > encoder.length)
        ) {
          seal();
          void write();
        }
      }
      return true;
    },

    reserve(stored) {
      addWaiting();
      for (const request of stored) uniqueTimes.reserve(seriesKey(request), request);
    },

    usedTimes() {
      addWaiting();
      return uniqueTimes.usedFrom(now() - usedTimesMs);
    },

    async flush({ allTopLists = true } = {}) {
      seal({ allTopLists });
      await write();
    },

    async batchWritten() {
      if (queue.length === 0) return false;
      await new Promise<void>((resolve) => {
        onWritten.push(resolve);
      });
      return true;
    },

    async close({ drainMsMax: closeMsMax = drainMsMax } = {}) {
      clearInterval(timer);
      seal({ allTopLists: true });
      closing.abort(); // ends a pause: the store may work again
      // A store that does not respond must not block the exit: the write in flight may outlast the limit.
      const giveUp = new AbortController();
      await Promise.race([write(), pause(closeMsMax, giveUp.signal)]);
      giveUp.abort();
      stopped.abort();
      const left = counts.recorded - counts.stored - counts.deadLettered;
      if (left > 0) log.error(`Stopped before the store accepted ${left} requests: ${problem ?? 'it did not respond'}`);
      return left;
    },

    async idle() {
      await writing;
    },

    counts,
    get problem() {
      return problem;
    },
    get full() {
      return full ?? 'memory-full';
    },
  };

  function addWaiting(): void {
    if (waiting.length === 0) return;
    const events = waiting;
    waiting = [];
    for (const event of events) add(event);
  }

  function add(event: RequestEvent): void {
    const request = sanitize(event);
    const series = seriesKeyOf(request);
    const isSampled = sampleIncludes(request); // before its time is changed
    const { timeMs, timeNs } = request;
    if (isSampled) {
      const time = uniqueTimes.take(series, request);
      if (time !== request) ({ timeMs: request.timeMs, timeNs: request.timeNs } = time);
      sampledEvents?.push(request);
    }
    if (importId !== undefined) {
      const shiftNs = (request.timeMs - timeMs) * 1e6 + request.timeNs - timeNs;
      importedRequests.push({
        source: request.source,
        timeMs,
        timeNs,
        shiftNs,
        key: importKey(request, { timeMs, timeNs }),
      });
    }
    const bucket = latencyBucketOf(request);
    batchAggregates.add(request, series, bucket, isSampled);
    topListAggregator.add(request, bucket, countryOf?.(event.clientIp));
    encoder.add(request);
  }

  function sanitize(event: RequestEvent): Writable<RequestEvent> {
    const clean = nameOf.host(event.host);
    const host = hostLimit.admit(clean, event);
    if (host === otherName && clean !== otherName) counts.hostsOverLimit += 1;
    return {
      source: nameOf.source(event.source),
      timeMs: event.timeMs,
      timeNs: event.timeNs,
      host,
      method: boundMethod(event.method),
      status: event.status,
      durationMs: boundDuration(event.durationMs),
      size: clampBytes(event.size),
      bytesRead: clampBytes(event.bytesRead),
      uri: truncateText(event.uri, uriLengthMax),
      endpoint: nameOf.endpoint(event.endpoint),
      clientIp: clientOf(event.clientIp),
      userAgent: textOf.userAgent(event.userAgent),
      referrer: textOf.referrer(event.referrer),
      protocol: textOf.protocol(event.protocol),
      tls: textOf.tls(event.tls),
      upstreamMs: boundDuration(event.upstreamMs),
      requestId: truncateText(event.requestId, nameLengthMax),
    };
  }

  function tick(): void {
    // Wait while the store is busy: fewer, larger batches are more efficient.
    if (queue.length === 0) seal();
    void write();
  }

  /** Seals a batch: the requests, exactly the rollup rows that they changed, and the top lists that are due. */
  function seal({ allTopLists = false } = {}): void {
    addWaiting();
    const ledger = options.ledger?.({ ...counts, stored: counts.recorded - counts.deadLettered });
    const topLists = topListAggregator.drain(now(), { all: allTopLists });
    if (encoder.length === 0 && ledger === undefined && topLists.length === 0) return;
    sequence += 1;
    const aggregates = batchAggregates.take();
    const rollups = openRollups === undefined ? [] : changedRows(openRollups, aggregates);
    const { requests, bytes: requestsBytes } = encoder.take();
    const imported = importId === undefined ? {} : { importId, imported: packImported(importId, importedRequests) };
    const bytes =
      requestsBytes +
      rollups.reduce((sum, { cells }) => sum + rollupRowBytes + cells.length * cellBytes, 0) +
      aggregates.length * cellBytes +
      topLists.reduce((sum, { packed }) => sum + 2 * packed.length, 0);
    queue.push({
      batch: {
        recorder: options.name,
        writer,
        sequence,
        requests,
        kept: sampledEvents,
        aggregates,
        rollups,
        topLists,
        ledger,
        ...imported,
      },
      bytes,
      sealedMs: performance.now(),
    });
    queuedBytes += bytes;
    importedRequests = [];
    if (sampledEvents !== undefined) sampledEvents = [];
  }

  function write(): Promise<void> {
    writing ??= writeQueue().finally(async () => {
      writing = undefined;
      // Batches may have been sealed after the queue was seen empty, by callers who await this promise.
      if (queue.length > 0 && !stopped.signal.aborted) await write();
    });
    return writing;
  }

  /** Writes the queue in order: rows of later batches replace those of earlier ones. */
  async function writeQueue(): Promise<void> {
    for (let failures = 0; queue[0] !== undefined && !stopped.signal.aborted; ) {
      const { batch, bytes, sealedMs } = queue[0];
      let refused = false;
      try {
        const refusedRequests = await store.write(batch, { waitedMs: callerWaits ? 0 : performance.now() - sealedMs });
        if (problem !== undefined) log.info('The store accepts requests again.');
        problem = undefined;
        full = undefined;
        counts.stored += batch.requests.length - refusedRequests;
        counts.deadLettered += refusedRequests;
      } catch (error) {
        const failure = asStoreError(error);
        if (failure.action === 'drop') {
          refused = true;
          counts.deadLettered += batch.requests.length;
          log.error(`The store rejected a batch of ${batch.requests.length} requests: ${detailedMessageOf(failure)}`);
        } else {
          if (problem !== failure.message)
            log.warn(`The store does not accept requests, they wait in memory: ${detailedMessageOf(failure)}`);
          if (failure.contentsReplaced) recount();
          problem = failure.message;
          full = failure.full;
          failures += 1;
          const delayMs = Math.min(failure.retryAfterMs ?? backoffMs(failures), retryAfterMsMax);
          if (closing.signal.aborted) await pause(Math.min(delayMs, closingRetryMsMax), stopped.signal);
          else await pause(delayMs, closing.signal);
          continue;
        }
      }
      failures = 0;
      queue.shift();
      queuedBytes -= bytes;
      if (refused) recount();
      for (const resolve of onWritten.splice(0)) resolve();
    }
  }

  /**
   * Recounts the queued batches into new rollup rows. The current ones are cumulative and include a rejected batch,
   * or requests whose file is gone. New rows add up with the stored ones. Top lists are unaffected: see
   * `Batch.topLists`.
   */
  function recount(): void {
    if (openRollups === undefined) return;
    openRollups.clear();
    queue = queue.map(({ batch, ...others }) => ({
      batch: { ...batch, rollups: changedRows(openRollups, batch.aggregates) },
      ...others,
    }));
  }

  function changedRows(open: OpenRollups, aggregates: readonly SeriesAggregate[]): RollupRow[] {
    const rows = open.copiesOf(open.merge(aggregates, now()));
    open.close(open.closing(now()));
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

type Writable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** Estimated size of a rollup row without its cells, in bytes. */
const rollupRowBytes = 200;
/** Estimated size of a cell or an aggregate, in bytes: 20 to 200 buckets of 8 bytes each, and its numbers. */
const cellBytes = 500;

/** Collects requests as objects, for stores without an encoding. */
function createObjectEncoder(): BatchEncoder {
  let requests: RequestEvent[] = [];
  let bytes = 0;
  return {
    add(event) {
      requests.push(event);
      bytes += heldBytes(event);
    },
    get length() {
      return requests.length;
    },
    get bytes() {
      return bytes;
    },
    take() {
      const taken = { requests, bytes };
      requests = [];
      bytes = 0;
      return taken;
    },
  };
}
