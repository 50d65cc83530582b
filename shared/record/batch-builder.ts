import type { CaddyEvent } from '../caddy-event.js';
import { heldBytes, type RequestEvent } from '../request-event.js';
import { BatchAggregates } from '../rollup/rollup-aggregator.js';
import { createSeriesKeys, latencyBucketOf, seriesKey, type RowIds } from '../rollup/rollup.js';
import type { Batch, BatchEncoder } from '../store/store.js';
import { createTopListAggregator } from '../top-list/top-list-aggregator.js';
import { importKey, packImported, type ImportedRequest } from './imported-requests.js';
import { EventFolder } from './event-folder.js';
import { createRequestSample } from './request-sample.js';
import type { RecordingPolicy } from './recording-policy.js';
import { RequestSanitizer, sanitizeEvent } from './request-sanitizer.js';
import { createUniqueTimes, type UsedTimes } from './unique-time.js';

/** What a batch is built from. Its recorder, rollups and ledger are added later. */
export type BatchContents = Pick<
  Batch,
  'requests' | 'kept' | 'aggregates' | 'topLists' | 'events' | 'importId' | 'imported'
>;

/** Dependencies of a `BatchBuilder`. */
export interface BatchBuilderOptions {
  readonly policy: RecordingPolicy;
  readonly encoder: BatchEncoder;
  readonly rowIds: RowIds;
  readonly importId: number | undefined;
  /** See `RecorderOptions`. */
  readonly usedTimes: UsedTimes | undefined;
  readonly now: () => number;
}

/**
 * Traffic is sparse if there are fewer requests than this per row of the finest level. A row, with those of other
 * levels, occupies some kilobytes until it is written.
 */
const sparseRequestsPerRow = 16;

/** Estimated size of an aggregate, in bytes: 20 to 200 buckets of 8 bytes each, and its numbers. */
export const aggregateBytes = 500;

/** Estimated size of an event, in bytes: at most five texts of 500 characters, usually a tenth. */
const eventBytes = 1000;

/** Maximum time between the last requests of a recorder and the first ones of its successor, in milliseconds. */
const usedTimesMs = 10_000;

/** Collects the requests of the next batch: bounded, with unique times, counted and encoded. */
export class BatchBuilder {
  readonly #encoder: BatchEncoder;
  readonly #importId: number | undefined;
  readonly #now: () => number;
  readonly #sanitizer: RequestSanitizer;
  readonly #sampleIncludes: (event: RequestEvent) => boolean;
  readonly #seriesKeyOf = createSeriesKeys();
  readonly #uniqueTimes = createUniqueTimes();
  readonly #aggregates: BatchAggregates;
  readonly #topLists: ReturnType<typeof createTopListAggregator>;
  readonly #events = new EventFolder();
  #importedRequests: ImportedRequest[] = [];
  /** The requests that are stored as raw requests; `undefined` if all are. */
  #sampled: RequestEvent[] | undefined;

  /** Throws a `RangeError` if the sample ratio is invalid. */
  constructor({ policy, encoder, rowIds, importId, usedTimes, now }: BatchBuilderOptions) {
    this.#encoder = encoder;
    this.#importId = importId;
    this.#now = now;
    this.#sanitizer = new RequestSanitizer(policy);
    this.#sampleIncludes = createRequestSample(policy.sampleRatio ?? 1);
    this.#sampled = storesAllRequests(policy) ? undefined : [];
    this.#aggregates = new BatchAggregates(now);
    this.#topLists = createTopListAggregator({ rowIds });
    for (const [series, times] of usedTimes ?? []) for (const time of times) this.#uniqueTimes.reserve(series, time);
  }

  /** Number of requests. */
  get length(): number {
    return this.#encoder.length;
  }

  /** Their estimated size in memory, in bytes. */
  get bytes(): number {
    return this.#encoder.bytes;
  }

  /** Whether rollup rows dominate the batch: see `sparseRequestsPerRow`. */
  get isSparse(): boolean {
    return this.#aggregates.size * sparseRequestsPerRow > this.#encoder.length;
  }

  get hostsOverLimit(): number {
    return this.#sanitizer.hostsOverLimit;
  }

  add(event: RequestEvent): void {
    const request = this.#sanitizer.sanitize(event);
    const series = this.#seriesKeyOf(request);
    const isSampled = this.#sampleIncludes(request); // before its time is changed
    const { timeMs, timeNs } = request;
    if (isSampled) {
      const time = this.#uniqueTimes.take(series, request);
      if (time !== request) ({ timeMs: request.timeMs, timeNs: request.timeNs } = time);
      this.#sampled?.push(request);
    }
    if (this.#importId !== undefined) {
      const shiftNs = (request.timeMs - timeMs) * 1e6 + request.timeNs - timeNs;
      const key = importKey(request, { timeMs, timeNs });
      this.#importedRequests.push({ source: request.source, timeMs, timeNs, shiftNs, key });
    }
    const bucket = latencyBucketOf(request);
    this.#aggregates.add(request, series, bucket, isSampled);
    this.#topLists.add(request, bucket, this.#sanitizer.countryOf(event));
    this.#encoder.add(request);
  }

  addEvent(event: CaddyEvent): void {
    this.#events.add(sanitizeEvent(event));
  }

  /** Marks the time of a stored request as used in its series. */
  reserve(stored: RequestEvent): void {
    this.#uniqueTimes.reserve(seriesKey(stored), stored);
  }

  /** Times of the latest requests: see `RecorderOptions.usedTimes`. */
  usedTimes(): UsedTimes {
    return this.#uniqueTimes.usedFrom(this.#now() - usedTimesMs);
  }

  /**
   * Returns the contents of the batch, with the top lists and events that are due (or all of them) and the estimated
   * size in bytes, and starts over. Returns `undefined` if there is nothing to write, unless `evenIfEmpty`.
   */
  take({
    allTopLists,
    evenIfEmpty,
  }: {
    readonly allTopLists: boolean;
    readonly evenIfEmpty: boolean;
  }): { contents: BatchContents; bytes: number } | undefined {
    const topLists = this.#topLists.drain(this.#now(), { all: allTopLists });
    const events = this.#events.drain(this.#now(), { all: allTopLists });
    if (this.#encoder.length + topLists.length + events.length === 0 && !evenIfEmpty) return undefined;
    const aggregates = this.#aggregates.take();
    const { requests, bytes } = this.#encoder.take();
    const contents = { requests, kept: this.#sampled, aggregates, topLists, events, ...this.#takeImported() };
    if (this.#sampled !== undefined) this.#sampled = [];
    return {
      contents,
      bytes:
        bytes +
        aggregates.length * aggregateBytes +
        topLists.reduce((sum, { packed }) => sum + 2 * packed.length, 0) +
        events.length * eventBytes,
    };
  }

  #takeImported(): Pick<Batch, 'importId' | 'imported'> {
    if (this.#importId === undefined) return {};
    const imported = packImported(this.#importId, this.#importedRequests);
    this.#importedRequests = [];
    return { importId: this.#importId, imported };
  }
}

/** Whether all requests are stored as raw requests. */
export function storesAllRequests({ sampleRatio = 1 }: RecordingPolicy): boolean {
  return sampleRatio === 1;
}

/** Collects requests as objects, where only a sample of them is stored and encoding all would be wasted. */
export class ObjectEncoder implements BatchEncoder {
  #requests: RequestEvent[] = [];
  #bytes = 0;

  add(event: RequestEvent): void {
    this.#requests.push(event);
    this.#bytes += heldBytes(event);
  }

  get length(): number {
    return this.#requests.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  take(): { requests: RequestEvent[]; bytes: number } {
    const taken = { requests: this.#requests, bytes: this.#bytes };
    this.#requests = [];
    this.#bytes = 0;
    return taken;
  }
}
