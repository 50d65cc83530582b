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
 * Takes requests, makes their times unique, adds them to the rollups and top lists and writes all in batches, in order,
 * each until the store has taken it. `record` never waits and never throws.
 */
export interface Recorder {
  /** Takes one request; `false` when the memory is full and it was dropped. */
  record(event: RequestEvent): boolean;
  /** Keeps the times of requests that are stored already from being given to others of their series. */
  reserve(stored: readonly RequestEvent[]): void;
  /** The times of the last requests, for the recorder that goes on after this one: see `RecorderOptions`. */
  usedTimes(): UsedTimes;
  /**
   * Writes what has been recorded; resolves when the store has taken, or refused for good, all of it. Without
   * `allTopLists`, which is set unless given, of the top lists those that are due alone.
   */
  flush(options?: { readonly allTopLists?: boolean }): Promise<void>;
  /**
   * Resolves to `true` when the store has taken, or refused for good, one more of the batches that wait; to `false`
   * when none does.
   */
  batchWritten(): Promise<boolean>;
  /**
   * Flushes for at most `drainMsMax`, then stops; resolves to how many requests the store had not taken by then, and
   * logs it. The write that is in flight by then may still succeed: see `idle`.
   */
  close(options?: { readonly drainMsMax?: number }): Promise<number>;
  /** Resolves when no write is in flight. After `close`, nothing of this recorder reaches the store from then on. */
  idle(): Promise<void>;
  readonly counts: RecorderCounts;
  /** Why the store does not take what it is given just now; `undefined` when it does. */
  readonly problem: string | undefined;
  /** What is full when `record` drops a request. */
  readonly full: 'memory-full' | 'spool-full' | 'disk-full';
}

/**
 * Requests since the recorder was made: recorded = stored + deadLettered + in memory. What a store has spooled counts
 * as stored here.
 */
export interface RecorderCounts {
  readonly recorded: number;
  readonly stored: number;
  /** Refused by the store for good. */
  readonly deadLettered: number;
  /** Counted under `_other` because there were too many hosts. */
  readonly hostsOverLimit: number;
}

/** What a recorder needs; the limits have defaults. */
export interface RecorderOptions {
  readonly store: Pick<Store, 'write' | 'createBatchEncoder' | 'keepsOpenRollups'>;
  readonly log: Log;
  /** Tells the recorders of one store apart, across restarts: the collector's ID, the web app's host name. */
  readonly name: string;
  readonly hostsMax: number;
  /** Hosts of Caddy's configuration, which may become known later. Default: none. */
  readonly configuredHosts?: ConfiguredHosts | undefined;
  readonly clientIp: ClientIpPolicy;
  /**
   * Tells the country of an address, which is asked about before it is truncated. Without it, countries are not known.
   */
  readonly countryOf?: CountryOf | undefined;
  /** The part of the requests that are kept one by one, from 0 to 1: 1. All are counted, whatever it is. */
  readonly sampleRatio?: number | undefined;
  /** Times that a recorder of the same name has given away just before; what comes next may have the same. */
  readonly usedTimes?: UsedTimes | undefined;
  /** How long a request waits for others, in milliseconds: 100. */
  readonly flushMs?: number;
  /** Requests in one batch: 5,000, what InfluxDB takes best at once. */
  readonly batchRequestsMax?: number;
  /** Requests in one batch where they are so far apart that their totals take much of it: as many as in any. */
  readonly sparseRequestsMax?: number;
  /** What the requests of one batch hold in memory, in bytes as what gathers them estimates: 16 MiB. */
  readonly batchBytesMax?: number;
  /**
   * What may be held while the store does not take it, in bytes as what gathers it estimates: 128 MiB. What comes then
   * is dropped.
   */
  readonly memoryBytesMax?: number;
  /**
   * While more batches than so many wait besides the one that is being written, whatever they hold, what comes is
   * dropped: any number may wait.
   */
  readonly batchesWaitingMax?: number;
  /** How long `close` waits for the store: 8 s. */
  readonly drainMsMax?: number;
  /**
   * Called when a batch is made, with the counts as they will be once it is written: the ledger that travels with it,
   * if it is time for one.
   */
  readonly ledger?: (counts: RecorderCounts) => LedgerSnapshot | undefined;
  /**
   * The id of the import that it records: its requests are remembered as imported, and its rows can be told from
   * others. Default: it is not an import.
   */
  readonly importId?: number | undefined;
  readonly now?: () => number;
}

/** What a recorder holds in memory unless it is told otherwise, in bytes. */
export const memoryBytesMaxDefault = 128 * 2 ** 20;

/**
 * Requests that are taken together: one by one, each would find the processor's caches full of what its maker does in
 * between.
 */
const takenAtOnce = 32;

/**
 * Requests are far apart when they have more rows of the finest level than so many in one. A row, with those of the
 * other levels, takes some kilobytes until it is written.
 */
const sparsePart = 16;

/** Requests that one recorder has taken and the next one has not are no further apart, in milliseconds. */
const usedMs = 10_000;

/** The longest other free text. */
const textLengthMax = 1024;

/** Starts a recorder; it writes from a timer until it is closed. Throws a `RangeError` when `sampleRatio` is none. */
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
  /** As an import does: readers need not make way for it. */
  const makerWaits = batchesWaitingMax < Infinity;
  const writer = randomUUID();
  const { importId } = options;
  const rowIds = importId === undefined ? randomRowIds() : importRowIds(importId);
  const batchAggregates = new BatchAggregates(now);
  /** For a store that does not keep them itself. */
  const openRollups = store.keepsOpenRollups === true ? undefined : new OpenRollups({ rowIds });
  const topListAggregator = createTopListAggregator({ rowIds });
  const isInSample = createRequestSample(sampleRatio);
  const uniqueTimes = createUniqueTimes();
  const seriesKeyOf = createSeriesKeys();
  // One memo for each: its last text is often the next one.
  const nameOf = { source: createMemo(cleanName), host: createMemo(cleanName), endpoint: createMemo(cleanName) };
  const clientOf = createMemo((address) => boundClientIp(address, options.clientIp), { entriesMax: 10_000 });
  const countryOf = options.countryOf && createMemo(options.countryOf, { entriesMax: 10_000 });
  const boundedText = (): ((text: string) => string) => createMemo((text) => truncateText(text, textLengthMax));
  const textOf = { userAgent: boundedText(), referrer: boundedText(), protocol: boundedText(), tls: boundedText() };
  for (const [series, times] of options.usedTimes ?? []) for (const time of times) uniqueTimes.reserve(series, time);
  const hostLimit = new HostLimit({ hostsMax: options.hostsMax, configured: options.configuredHosts });

  let waiting: RequestEvent[] = [];
  const gathered = (sampleRatio === 1 ? store.createBatchEncoder?.(options.name) : undefined) ?? gatherObjects();
  let gatheredImported: ImportedRequest[] = [];
  /** Those of them that are kept one by one, where not all are. */
  let sampledEvents: RequestEvent[] | undefined = sampleRatio === 1 ? undefined : [];
  let queue: { readonly batch: Batch; readonly bytes: number; readonly sealedMs: number }[] = [];
  let queuedBytes = 0;
  let sequence = 0;
  const counts = { recorded: 0, stored: 0, deadLettered: 0, hostsOverLimit: 0 };
  let problem: string | undefined;
  let full: StoreError['full'];
  let writing: Promise<void> | undefined;
  const onWritten: (() => void)[] = [];
  const stopped = new AbortController();
  const timer = setInterval(tick, flushMs);

  return {
    record(event) {
      if (
        queuedBytes + gathered.bytes >= memoryBytesMax ||
        queue.length > batchesWaitingMax + 1 ||
        stopped.signal.aborted
      )
        return false;
      waiting.push(event);
      counts.recorded += 1;
      if (waiting.length >= takenAtOnce || gathered.length + waiting.length >= batchRequestsMax) {
        takeWaiting();
        if (
          gathered.length >= batchRequestsMax ||
          gathered.bytes >= batchBytesMax ||
          (gathered.length >= sparseRequestsMax && batchAggregates.size * sparsePart > gathered.length)
        ) {
          seal();
          void write();
        }
      }
      return true;
    },

    reserve(stored) {
      takeWaiting();
      for (const request of stored) uniqueTimes.reserve(seriesKey(request), request);
    },

    usedTimes() {
      takeWaiting();
      return uniqueTimes.usedFrom(now() - usedMs);
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
      // A store that does not answer must not keep the process: the write in flight may outlast the limit.
      const giveUp = new AbortController();
      await Promise.race([write(), pause(closeMsMax, giveUp.signal)]);
      giveUp.abort();
      stopped.abort();
      const left = counts.recorded - counts.stored - counts.deadLettered;
      if (left > 0) log.error(`Stopped before the store took ${left} requests: ${problem ?? 'it did not answer'}`);
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

  function takeWaiting(): void {
    if (waiting.length === 0) return;
    const events = waiting;
    waiting = [];
    for (const event of events) take(event);
  }

  function take(event: RequestEvent): void {
    const request = bound(event);
    const series = seriesKeyOf(request);
    const isKept = isInSample(request); // by the time that it came with
    const { timeMs, timeNs } = request;
    if (isKept) {
      const time = uniqueTimes.take(series, request);
      if (time !== request) ({ timeMs: request.timeMs, timeNs: request.timeNs } = time);
      sampledEvents?.push(request);
    }
    if (importId !== undefined) {
      const shiftNs = (request.timeMs - timeMs) * 1e6 + request.timeNs - timeNs;
      gatheredImported.push({
        source: request.source,
        timeMs,
        timeNs,
        shiftNs,
        key: importKey(request, { timeMs, timeNs }),
      });
    }
    const bucket = latencyBucketOf(request);
    batchAggregates.add(request, series, bucket, isKept);
    topListAggregator.add(request, bucket, countryOf?.(event.clientIp));
    gathered.add(request);
  }

  function bound(event: RequestEvent): Writable<RequestEvent> {
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
    // While the store is busy, wait: fewer, larger batches suit it better.
    if (queue.length === 0) seal();
    void write();
  }

  /**
   * Makes a batch of what has gathered: the requests with exactly the rollup rows that they changed, and the top lists
   * that are due.
   */
  function seal({ allTopLists = false } = {}): void {
    takeWaiting();
    const ledger = options.ledger?.({ ...counts, stored: counts.recorded - counts.deadLettered });
    const topLists = topListAggregator.drain(now(), { all: allTopLists });
    if (gathered.length === 0 && ledger === undefined && topLists.length === 0) return;
    sequence += 1;
    const aggregates = batchAggregates.take();
    const rollups = openRollups === undefined ? [] : changedRows(openRollups, aggregates);
    const { requests, bytes: requestsBytes } = gathered.take();
    const imported = importId === undefined ? {} : { importId, imported: packImported(importId, gatheredImported) };
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
    gatheredImported = [];
    if (sampledEvents !== undefined) sampledEvents = [];
  }

  function write(): Promise<void> {
    writing ??= writeQueue().finally(async () => {
      writing = undefined;
      // What was sealed since it saw an empty queue: who asked in that moment waits for this promise.
      if (queue.length > 0 && !stopped.signal.aborted) await write();
    });
    return writing;
  }

  /** Writes the queue in order: a later batch replaces rows of an earlier one. */
  async function writeQueue(): Promise<void> {
    for (let failures = 0; queue[0] !== undefined && !stopped.signal.aborted; ) {
      const { batch, bytes, sealedMs } = queue[0];
      let refused = false;
      try {
        const refusedRequests = await store.write(batch, { waitedMs: makerWaits ? 0 : performance.now() - sealedMs });
        if (problem !== undefined) log.info('The store takes requests again.');
        problem = undefined;
        full = undefined;
        counts.stored += batch.requests.length - refusedRequests;
        counts.deadLettered += refusedRequests;
      } catch (error) {
        const failure = asStoreError(error);
        if (failure.action === 'drop') {
          refused = true;
          counts.deadLettered += batch.requests.length;
          log.error(
            `The store refused a batch of ${batch.requests.length} requests for good: ${detailedMessageOf(failure)}`,
          );
        } else {
          if (problem !== failure.message)
            log.warn(`The store does not take requests, holding them: ${detailedMessageOf(failure)}`);
          if (failure.contentsReplaced) countAnew();
          problem = failure.message;
          full = failure.full;
          failures += 1;
          await pause(Math.min(failure.retryAfterMs ?? backoffMs(failures), retryAfterMsMax), stopped.signal);
          continue;
        }
      }
      failures = 0;
      queue.shift();
      queuedBytes -= bytes;
      if (refused) countAnew();
      for (const resolve of onWritten.splice(0)) resolve();
    }
  }

  /**
   * Rollup rows are cumulative: they also hold requests of earlier batches, one that was refused, or those in a file
   * that is gone. What waits is counted again, and what comes from now on goes into further rows, which add up with
   * those that are stored. The top lists go on: see `Batch.topLists`.
   */
  function countAnew(): void {
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

/**
 * An error that a store does not throw is a bug of this program: requests are held, so that a fixed version can store
 * them.
 */
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
/** Estimated size of a cell or a tally, in bytes: 20 to 200 buckets of 8 bytes, and its numbers. */
const cellBytes = 500;

/** Gathers requests as they are, for a store that has no form of its own. */
function gatherObjects(): BatchEncoder {
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
