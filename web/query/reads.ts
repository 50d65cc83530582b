/** The store as the web app reads it: through caches, with one read for concurrent callers, and within a time limit. */
import type { EventRow } from '../../shared/record/event-folder.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { RollupRow } from '../../shared/rollup/rollup.js';
import type {
  EventsQuery,
  HostCounts,
  HostCountsQuery,
  LedgerSnapshot,
  RollupsQuery,
  Store,
  TimeRange,
} from '../../shared/store/store.js';
import type { TopKind, TopLevel, TopRow } from '../../shared/top-list/top-row.js';
import { RecentDrops, type Collection } from '../stats/collection.js';
import { digestOf, sumsIn, type FoldedRange } from '../stats/fold.js';
import { piecesIn, topListsDigestOf, type TopLists, type TopListsDigest } from '../stats/top-lists.js';
import type { WindowDigest } from '../stats/window-digest.js';
import { SharedReads } from './coalesce-reads.js';
import { inTime, pagesInTime } from './deadline.js';
import { FirstData, type DataSpan } from './first-data.js';
import { HostCountsCache } from './host-counts.js';
import { MergeCache } from './merged-windows.js';
import { WindowCache, type Window } from './window-cache.js';

/** Maximum weights of the caches, in units of at most 3 kB: about 50 MB of sums and 25 MB of top lists. */
const cachedSumsMax = 16_000;
const cachedPiecesMax = 8000;

/** TTL of the top lists of an open window if other processes write, in milliseconds. They write every 2 s at most. */
const topListsOpenTtlMs = 1000;

/** Which rollup rows to read, without the range. */
export type RollupWindowsQuery = Omit<RollupsQuery, keyof TimeRange>;

/** Which rows of top lists to read, without the range. */
export interface WindowTopListsQuery {
  readonly level: TopLevel;
  readonly kinds: readonly TopKind[];
  readonly filter: { readonly source?: string; readonly host?: string };
  /** Allows use as a cache key. */
  readonly [restriction: string]: unknown;
}

interface Caches {
  readonly rollups: WindowCache<RollupWindowsQuery, RollupRow, WindowDigest>;
  readonly topLists: WindowCache<WindowTopListsQuery, TopRow, TopListsDigest>;
  readonly foldedRanges: MergeCache<WindowDigest, FoldedRange>;
  readonly mergedTopLists: MergeCache<TopListsDigest, TopLists['bySource']>;
  readonly hostCounts: HostCountsCache;
  /** Single flight for reads that are not cached. */
  readonly shared: SharedReads;
  readonly drops: RecentDrops;
  readonly firstData: FirstData;
  /** Time of creation, in milliseconds since 1970. */
  readonly createdMs: number;
}

/** Creates a reader with empty caches. For `closedTtlMsMax` see `WindowCacheOptions`. */
export function createReads(store: Store, options: { readonly closedTtlMsMax?: number } = {}): Reads {
  return new Reads(store, createCaches(store, options));
}

/** Reads a store for one client, through caches that all clients share. All methods throw a `StoreError`. */
export class Reads {
  readonly #store: Store;
  readonly #caches: Caches;
  readonly #signal: AbortSignal | undefined;

  /** See `createReads`. `signal` is aborted when the client no longer waits for the answer. */
  constructor(store: Store, caches: Caches, signal?: AbortSignal) {
    this.#store = store;
    this.#caches = caches;
    this.#signal = signal;
  }

  /** Returns a reader with the same caches, whose reads are cancelled by `signal` unless others wait for them too. */
  withSignal(signal: AbortSignal): Reads {
    return new Reads(this.#store, this.#caches, signal);
  }

  /** See `Store.requestRetentionMs`. */
  get requestRetentionMs(): number | undefined {
    return this.#store.requestRetentionMs;
  }

  /** See `Store.rollupRetentionMs`. */
  get rollupRetentionMs(): number | undefined {
    return this.#store.rollupRetentionMs;
  }

  /** When the caches were created, in milliseconds since 1970. */
  get createdMs(): number {
    return this.#caches.createdMs;
  }

  /** Cache of the windows of a grid. */
  get foldedRanges(): MergeCache<WindowDigest, FoldedRange> {
    return this.#caches.foldedRanges;
  }

  /** Cache of the top lists of a range. */
  get mergedTopLists(): MergeCache<TopListsDigest, TopLists['bySource']> {
    return this.#caches.mergedTopLists;
  }

  /** Resolves if the store answers. */
  ping(): Promise<void> {
    return inTime(this.#store, () => this.#store.ping(), this.#signal);
  }

  /** Reads when the data of each source begins and ends. */
  readSpans(): Promise<ReadonlyMap<string, DataSpan>> {
    return this.#caches.firstData.spans((read) => inTime(this.#store, read, this.#signal));
  }

  /** Reads the newest ledgers of the collectors that reported since a range began. */
  readLedgers(range: TimeRange): Promise<LedgerSnapshot[]> {
    return this.#share('ledgers', range, {}, ({ fromMs }, signal) =>
      this.#store.readLedgers({ sinceMs: fromMs }, { signal }),
    );
  }

  /** Returns the current state of the store and of the collectors with these ledgers. */
  collectionOf(ledgers: readonly LedgerSnapshot[], nowMs: number): Collection {
    const { problem, spool } = this.#store;
    return {
      problem,
      heldIn: spool === undefined ? 'memory' : 'spool',
      ledgers,
      dropping: this.#caches.drops.observe(ledgers, nowMs),
    };
  }

  /** Reads the digests of the rollup windows of a range, ascending. */
  async readWindows(query: RollupWindowsQuery, range: TimeRange, nowMs: number): Promise<WindowDigest[]> {
    return (await this.#caches.rollups.get(query, range, nowMs, this.#signal)).map(({ digest }) => digest);
  }

  /** Reads the digests of the top lists of a range, ascending. */
  readTopWindows(query: WindowTopListsQuery, range: TimeRange, nowMs: number): Promise<Window<TopListsDigest>[]> {
    return this.#caches.topLists.get(query, range, nowMs, this.#signal);
  }

  /** Reads the counts of all hosts. */
  async readHostCounts(query: HostCountsQuery, nowMs: number): Promise<readonly HostCounts[]> {
    const [first, last] = [query.parts[0], query.parts.at(-1)];
    if (first === undefined || last === undefined) return [];
    const { shared, hostCounts } = this.#caches;
    const range = { fromMs: first.fromMs, toMs: last.toMs };
    return await shared.read(
      'host counts',
      range,
      query,
      (_range, of, cancelled) => hostCounts.get(of, nowMs, cancelled),
      this.#signal,
    );
  }

  /** See `Store.streamRollups`. Not cached. */
  streamRollups(query: RollupsQuery): AsyncGenerator<readonly RollupRow[]> {
    return pagesInTime(this.#store, (signal) => this.#store.streamRollups(query, { signal }), this.#signal);
  }

  /** See `Store.rollUpRequests`. Not cached. */
  rollUpRequests(query: Parameters<Store['rollUpRequests']>[0]): ReturnType<Store['rollUpRequests']> {
    return inTime(this.#store, (signal) => this.#store.rollUpRequests(query, { signal }), this.#signal);
  }

  /** See `Store.topListsOfRequests`. */
  topListsOfRequests({
    fromMs,
    toMs,
    ...query
  }: Parameters<Store['topListsOfRequests']>[0]): ReturnType<Store['topListsOfRequests']> {
    return this.#share('lists', { fromMs, toMs }, query, (of, signal) =>
      this.#store.topListsOfRequests(of, { signal }),
    );
  }

  /** See `Store.readRequests`. */
  readRequests({ fromMs, toMs, ...query }: Parameters<Store['readRequests']>[0]): Promise<RequestEvent[]> {
    return this.#share('requests', { fromMs, toMs }, query, (of, signal) => this.#store.readRequests(of, { signal }));
  }

  /** See `StoreReader.readEvents`. */
  readEvents({ fromMs, toMs, ...query }: EventsQuery): Promise<EventRow[]> {
    return this.#share('events', { fromMs, toMs }, query, (of, signal) => this.#store.readEvents(of, { signal }));
  }

  /** See `Store.streamRequests`. Not cached. */
  streamRequests(query: Parameters<Store['streamRequests']>[0]): AsyncGenerator<readonly RequestEvent[]> {
    return pagesInTime(this.#store, (signal) => this.#store.streamRequests(query, { signal }), this.#signal);
  }

  /** Runs a read in time, once for all callers that ask for the same at the same moment. */
  #share<Query extends object, Answer>(
    name: string,
    { fromMs, toMs }: TimeRange,
    query: Query,
    read: (query: TimeRange & Query, signal: AbortSignal) => Promise<Answer>,
  ): Promise<Answer> {
    return this.#caches.shared.read(
      name,
      { fromMs, toMs },
      query,
      (range, of, cancelled) => inTime(this.#store, (signal) => read({ ...range, ...of }, signal), cancelled),
      this.#signal,
    );
  }
}

function createCaches(store: Store, options: { readonly closedTtlMsMax?: number }): Caches {
  const { changes } = store;
  const rollups = new WindowCache({
    read: (query: RollupWindowsQuery & TimeRange, signal) =>
      pagesInTime(store, (until) => store.streamRollups(query, { signal: until }), signal),
    digest: digestOf,
    estimatedSize: sumsIn,
    weightMax: cachedSumsMax,
    changes,
    ...options,
  });
  const topLists = new WindowCache({
    read: (query: WindowTopListsQuery & TimeRange, signal) =>
      pagesInTime(store, (until) => store.streamTopLists(query, { signal: until }), signal),
    digest: topListsDigestOf,
    estimatedSize: piecesIn,
    weightMax: cachedPiecesMax,
    changes,
    openTtlMs: topListsOpenTtlMs,
    ...options,
  });
  changes?.listen((batch) => {
    rollups.invalidate(batch.rollups);
    topLists.invalidate(batch.topLists);
  });
  changes?.listenForExchange(() => {
    rollups.clear();
    topLists.clear();
  });
  return {
    rollups,
    topLists,
    foldedRanges: new MergeCache({ estimatedSize: sumsIn, weightMax: cachedSumsMax }),
    mergedTopLists: new MergeCache({ estimatedSize: piecesIn, weightMax: cachedPiecesMax }),
    hostCounts: new HostCountsCache({
      read: (query, signal) => inTime(store, (until) => store.countHosts(query, { signal: until }), signal),
      changes,
      ...options,
    }),
    shared: new SharedReads(changes),
    drops: new RecentDrops(),
    firstData: new FirstData(store),
    createdMs: Date.now(),
  };
}
