/** The reads of pages and API answers. They run concurrently, each within `readMsMax`. */
import { StoreError } from '../../shared/errors.js';
import { caddySource, dashboardSource, rfc3339, type RequestEvent } from '../../shared/request-event.js';
import {
  levelsOf,
  levelRetentionMs,
  seriesKey,
  type Level,
  type RollupRow,
  type Scope,
} from '../../shared/rollup/rollup.js';
import {
  needsRequests,
  type Filter,
  type HostCounts,
  type HostCountsQuery,
  type LedgerSnapshot,
  type Store,
  type TimeRange,
} from '../../shared/store/store.js';
import { groupBy } from '../../shared/group-by.js';
import { retainedFrom } from '../../shared/store/retention.js';
import { alignRange, coverRange, levelFor, windowsMax } from '../../shared/time-range.js';
import { RecentDrops, type Collection } from '../stats/collection.js';
import { CellSum } from '../stats/figures.js';
import { FirstData, unionOf } from './first-data.js';
import {
  digestOf,
  fold,
  foldWindows,
  hostListOf,
  isComplete,
  merged,
  ranked,
  sampledIn,
  sumsIn,
  type Fold,
  type HostList,
  type Sampled,
  type FoldedRange,
} from '../stats/fold.js';
import type { WindowDigest } from '../stats/window-digest.js';
import type { RecentWindows } from '../stats/health.js';
import { HostCountsCache } from './host-counts.js';
import { MergeCache } from './merged-windows.js';
import { pairedHosts, type Pair } from '../stats/pair.js';
import type { DashboardQuery } from './query.js';
import { requestPairs, type RequestPairs } from '../stats/request-pairs.js';
import {
  piecesIn,
  readTopListsFrom,
  topListsDigestOf,
  type TopLists,
  type TopListsDigest,
  type WindowTopListsQuery,
} from './top-lists.js';
import type { TopDimension } from '../../shared/top-list/top-row.js';
import { createSharedReads, type SharedReads } from './coalesce-reads.js';
import { createWindowCache, type Window, type WindowCache } from './window-cache.js';

/**
 * Default number of values per top list of raw requests. Lists of browsers and bots are derived from as many agents.
 */
const listedValuesMax = 1000;
/** Maximum time between the log entries of Caddy and the app for one request, in milliseconds. */
const halvesApartMsMax = 10_000;
/** Maximum number of requests to search for the other halves of pairs, in addition to twice the rows. */
const othersMax = 1000;
/** Timeout of a read, in milliseconds. */
const readMsMax = 10_000;

/** Maximum weights of the caches, in units of at most 3 kB: about 50 MB of sums and 25 MB of top lists. */
const cachedSumsMax = 16_000;
const cachedPiecesMax = 8000;

/** TTL of the top lists of an open window if other processes write, in milliseconds. They write every 2 s at most. */
const topListsOpenTtlMs = 1000;

/** Length of `Traffic.recent`, in milliseconds: the maximum number of one-minute windows of a page. */
const recentMs = 3 * 3_600_000;

/** A store and the caches over it, shared by all readers. */
export interface Reads {
  readonly store: Store;
  readonly rollups: WindowCache<RollupsQuery, WindowDigest>;
  readonly topLists: WindowCache<WindowTopListsQuery, TopListsDigest>;
  readonly foldedRanges: MergeCache<WindowDigest, FoldedRange>;
  readonly mergedTopLists: MergeCache<TopListsDigest, TopLists['bySource']>;
  readonly hostCounts: HostCountsCache;
  /** Single flight for reads that are not cached. */
  readonly shared: SharedReads;
  /** Aborted when the client no longer waits for the answer. */
  readonly signal?: AbortSignal | undefined;
  readonly drops: RecentDrops;
  readonly firstData: FirstData;
  /** Time of creation, in milliseconds since 1970. */
  readonly createdMs: number;
}

interface RollupsQuery {
  readonly level: Level;
  readonly scope: Scope;
  readonly filter: DashboardQuery['filter'];
  /** See `Store.readRollups`. */
  readonly hosts?: readonly string[] | undefined;
  readonly [restriction: string]: unknown;
}

/** Creates the caches over a store. For `closedTtlMsMax` see `WindowCacheOptions`. */
export function createReads(store: Store, options: { readonly closedTtlMsMax?: number } = {}): Reads {
  const { changes } = store;
  const rollups = createWindowCache({
    read: (query: RollupsQuery & TimeRange, signal) =>
      pagesInTime(store, (until) => store.streamRollups(query, { signal: until }), signal),
    digest: digestOf,
    estimatedSize: sumsIn,
    weightMax: cachedSumsMax,
    changes,
    ...options,
  });
  const topLists = createWindowCache({
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
  const foldedRanges = new MergeCache<WindowDigest, FoldedRange>({ estimatedSize: sumsIn, weightMax: cachedSumsMax });
  const mergedTopLists = new MergeCache<TopListsDigest, TopLists['bySource']>({
    estimatedSize: piecesIn,
    weightMax: cachedPiecesMax,
  });
  const hostCounts = new HostCountsCache({
    read: (query, signal) => inTime(store, (until) => store.countHosts(query, { signal: until }), signal),
    changes,
    ...options,
  });
  return {
    store,
    rollups,
    topLists,
    foldedRanges,
    mergedTopLists,
    hostCounts,
    shared: createSharedReads(changes),
    drops: new RecentDrops(),
    firstData: new FirstData(store),
    createdMs: Date.now(),
  };
}

/** The figures of a query. */
export interface Traffic extends Fold {
  /** The range of the query, extended to whole windows of the level that was read. */
  readonly range: TimeRange;
  /** Length of a window: that of the level, or a multiple of it to stay within `windowsMax` windows. */
  readonly stepMs: number;
  /**
   * Figures of the previous period, of the same length. `undefined` if not requested, partly past its retention, or
   * starting before the store's first data.
   */
  readonly previous: Fold | undefined;
  /** Start of the first data, in milliseconds since 1970; `undefined` if the store is empty. */
  readonly firstMs: number | undefined;
  /** Start of the newest window with data. */
  readonly newestMs: number | undefined;
  /** The last hours, independent of the range; `undefined` if not requested. */
  readonly recent: Recent | undefined;
  /** Newest ledgers of the collectors that reported since the range began. */
  readonly ledgers: readonly LedgerSnapshot[];
  /** Whether the store only counted the newest raw requests. */
  readonly bounded: boolean;
  /**
   * Start of the retained raw requests, in milliseconds since 1970, if the figures are computed from them and the range
   * starts earlier.
   */
  readonly retainedFromMs: number | undefined;
  /** Start of the retained rollups, in milliseconds since 1970, if the range starts earlier. */
  readonly rollupsFromMs: number | undefined;
  /** Number of sampled requests under the filters that rollups support; `undefined` if all requests are stored. */
  readonly sampled: Sampled | undefined;
  /** See `isComplete`. Also false for figures of raw requests if only some are sampled. */
  readonly complete: boolean;
}

/** The current state, for the status line and alerts. */
export interface Recent extends RecentWindows, Collection {
  /** Start of the newest window with requests of Caddy; `undefined` if there are none. */
  readonly caddyNewestMs: number | undefined;
  /**
   * Since when the dashboard records its own requests under the source `dashboard`, in milliseconds since 1970. Older
   * requests of the source `app` may be the dashboard's.
   */
  readonly ownSinceMs: number;
}

/**
 * Reads and folds the figures of a query, optionally with the previous period, the last hours, the Caddy–app pairs and
 * the `hostsMax` busiest hosts. Throws a `StoreError`.
 */
export async function readTraffic(
  reads: Reads,
  query: DashboardQuery,
  { nowMs = Date.now(), withPrevious = false, withRecent = false, hostsMax = 0, withPairs = false } = {},
): Promise<Traffic> {
  const scope = scopeOf(query.filter);
  const level = levelFor(query, nowMs, scope);
  const range = alignRange(query, level);
  const stepMs = level * 1000 * Math.ceil((range.toMs - range.fromMs) / (level * 1000) / (windowsMax + 1));
  const before = { fromMs: 2 * range.fromMs - range.toMs, toMs: range.fromMs };
  const requestsFrom = ({ fromMs }: TimeRange): number | undefined =>
    needsRequests(query.filter)
      ? retainedFrom(reads.store.requestRetentionMs, fromMs, { windowMs: stepMs, nowMs })
      : undefined;
  const retainedFromMs = requestsFrom(query);
  const rollupsFromMs = retainedFrom(reads.store.rollupRetentionMs, query.fromMs, { windowMs: stepMs, nowMs });
  const isBeforeRetained =
    nowMs - before.fromMs <= levelRetentionMs(level, reads.store.rollupRetentionMs ?? Infinity, scope) &&
    requestsFrom(before) === undefined;
  const requestsScope = hostsMax > 0 || withPairs ? 'host' : 'all';
  const readWindows = (part: TimeRange): ReturnType<typeof readFold> =>
    readFold(reads, { level, scope, filter: query.filter }, { range: part, stepMs, requestsScope, nowMs });
  const last = { fromMs: nowMs - recentMs, toMs: nowMs };
  const [{ folded, bounded, sampled }, allLedgers, previous, recent, spans] = await Promise.all([
    readWindows(range),
    readLedgers(reads, withRecent ? { ...query, fromMs: Math.min(query.fromMs, last.fromMs) } : query),
    withPrevious && isBeforeRetained ? readWindows(before) : undefined,
    withRecent ? readRecentWindows(reads, query, last, nowMs) : undefined,
    reads.firstData.spans((run) => inTime(reads.store, run, reads.signal)),
  ]);
  const countsAllHosts = scope === 'all' && !needsRequests(query.filter);
  const [hosts, pairs, previousPairs] = await Promise.all([
    hostsMax > 0 && countsAllHosts
      ? readHosts(reads, query.filter, range, { source: folded.sources.keys().next().value, hostsMax, nowMs })
      : undefined,
    withPairs && countsAllHosts
      ? readSourcePairs(reads, query.filter, range, { stepMs, sources: folded.sources, nowMs })
      : undefined,
    withPairs && previous !== undefined && countsAllHosts
      ? readSourcePairs(reads, query.filter, before, { stepMs, sources: previous.folded.sources, nowMs })
      : undefined,
  ]);
  const span = unionOf(spans.values());
  const ledgersSince = (sinceMs: number): LedgerSnapshot[] => allLedgers.filter(({ timeMs }) => timeMs >= sinceMs);
  const ledgers = ledgersSince(query.fromMs);
  return {
    range,
    stepMs,
    ledgers,
    bounded,
    firstMs: span?.firstMs,
    newestMs: span?.newestMs,
    retainedFromMs,
    rollupsFromMs,
    sampled,
    complete:
      isComplete(ledgers, { bounded: bounded || retainedFromMs !== undefined || rollupsFromMs !== undefined }) &&
      !(sampled !== undefined && needsRequests(query.filter)),
    previous:
      previous === undefined || previous.bounded || span === undefined || before.fromMs < span.firstMs
        ? undefined
        : { ...previous.folded, ...(previousPairs && { pairs: previousPairs }) },
    recent: recent && {
      ...recent,
      ...readCollection(reads, ledgersSince(last.fromMs), nowMs),
      caddyNewestMs: spans.get(caddySource)?.newestMs,
      ownSinceMs: spans.get(dashboardSource)?.firstMs ?? reads.createdMs,
    },
    ...folded,
    ...(hosts && { hosts }),
    ...(pairs && { pairs }),
  };
}

function readCollection({ store, drops }: Reads, ledgers: readonly LedgerSnapshot[], nowMs: number): Collection {
  return {
    problem: store.problem,
    heldIn: store.spool === undefined ? 'memory' : 'spool',
    ledgers,
    dropping: drops.observe(ledgers, nowMs),
  };
}

/**
 * Reads one-minute windows. Empty under a filter that needs raw requests, which would have to be read for all hours.
 */
async function readRecentWindows(
  reads: Reads,
  { filter }: DashboardQuery,
  part: TimeRange,
  nowMs: number,
): Promise<RecentWindows> {
  const scope = scopeOf(filter);
  const level = levelFor(part, nowMs, scope);
  const stepMs = level * 1000;
  if (needsRequests(filter)) return { windows: [], stepMs };
  const { folded } = await readFold(
    reads,
    { level, scope, filter },
    { range: alignRange(part, level), stepMs, requestsScope: 'all', nowMs },
  );
  return { windows: folded.windows, stepMs };
}

/** Reads `Traffic.sampled` alone. Throws a `StoreError`. */
export async function readSampled(
  reads: Reads,
  query: DashboardQuery,
  nowMs = Date.now(),
): Promise<Sampled | undefined> {
  const scope = scopeOf(query.filter);
  const level = levelFor(query, nowMs, scope);
  return sampledIn(
    await readSeriesWindows(reads, { level, scope, filter: query.filter }, alignRange(query, level), nowMs),
  );
}

/** Reads top lists and unique clients. See `readTopListsFrom`. Throws a `StoreError`. */
export function readTopLists(
  { store, topLists, mergedTopLists, shared, signal }: Reads,
  query: DashboardQuery,
  { dimensions, nowMs = Date.now() }: { dimensions: readonly TopDimension[]; nowMs?: number },
): Promise<TopLists> {
  const reader = {
    merged: mergedTopLists,
    requestRetentionMs: store.requestRetentionMs,
    readTopWindows: (windowsQuery: WindowTopListsQuery, range: TimeRange): Promise<Window<TopListsDigest>[]> =>
      topLists.get(windowsQuery, range, nowMs, signal),
    topListsOfRequests: ({
      fromMs,
      toMs,
      ...requestsQuery
    }: Parameters<Store['topListsOfRequests']>[0]): ReturnType<Store['topListsOfRequests']> =>
      shared(
        'lists',
        { fromMs, toMs },
        requestsQuery,
        (range, of, cancelled) =>
          inTime(store, (until) => store.topListsOfRequests({ ...range, ...of }, { signal: until }), cancelled),
        signal,
      ),
  };
  return readTopListsFrom(reader, query, {
    dimensions,
    valuesMax: Math.max(listedValuesMax, query.limit ?? 0),
    nowMs,
  });
}

/**
 * Reads the latest requests of a query, newest first. With `errorsFirst`, they follow up to `limit` of the latest
 * errors (5xx). Throws a `StoreError`.
 */
export async function readLatest(
  { store, shared, signal }: Reads,
  { fromMs, toMs, filter, errorsFirst, ...query }: DashboardQuery,
  limitDefault: number,
): Promise<RequestEvent[]> {
  const limit = query.limit ?? limitDefault;
  const read = (of: Filter): Promise<RequestEvent[]> =>
    shared(
      'requests',
      { fromMs, toMs },
      { filter: of, limit },
      (range, others, cancelled) =>
        inTime(store, (until) => store.readRequests({ ...range, ...others }, { signal: until }), cancelled),
      signal,
    );
  if (!putsErrorsFirst({ errorsFirst, filter })) return read(filter);
  const [errors, latest] = await Promise.all([read({ ...filter, status: errorStatuses }), read(filter)]);
  return [...errors, ...latest.filter(({ status }) => !isError(status))];
}

/** Streams the rows of `readLatest` in pages, at most `limit` rows in total. Not cached. Throws a `StoreError`. */
export async function* streamLatest(
  { store, signal }: Reads,
  { fromMs, toMs, filter, limit, errorsFirst }: DashboardQuery & { readonly limit: number },
): AsyncGenerator<readonly RequestEvent[]> {
  let left = limit;
  const stream = async function* (
    of: Filter,
    isWanted: (status: number) => boolean = () => true,
  ): AsyncGenerator<readonly RequestEvent[]> {
    for await (const page of pagesInTime(
      store,
      (until) => store.streamRequests({ fromMs, toMs, filter: of, limit }, { signal: until }),
      signal,
    )) {
      const rows = page.filter(({ status }) => isWanted(status)).slice(0, left);
      left -= rows.length;
      if (rows.length > 0) yield rows;
      if (left === 0) return;
    }
  };
  if (!putsErrorsFirst({ errorsFirst, filter })) {
    yield* stream(filter);
    return;
  }
  yield* stream({ ...filter, status: errorStatuses });
  if (left > 0) yield* stream(filter, (status) => !isError(status));
}

/** A filter by status selects either errors or other requests. */
function putsErrorsFirst({ errorsFirst, filter }: Pick<DashboardQuery, 'errorsFirst' | 'filter'>): boolean {
  return errorsFirst && filter.status === undefined;
}

const errorStatuses = { min: 500, max: 599 };

function isError(status: number): boolean {
  return status >= errorStatuses.min && status <= errorStatuses.max;
}

/**
 * Returns the pairs among requests, by request id. A filter usually excludes one half of a pair, which is then searched
 * among all requests of about the same time. Throws a `StoreError`.
 */
export async function readPairs(
  { store, shared, signal }: Reads,
  { filter }: DashboardQuery,
  requests: readonly RequestEvent[],
): Promise<RequestPairs> {
  const timesMs = requests.filter(({ requestId }) => requestId !== '').map(({ timeMs }) => timeMs);
  if (timesMs.length === 0 || Object.keys(filter).length === 0) return requestPairs(requests);
  const { requestId } = filter;
  const around = { fromMs: Math.min(...timesMs) - halvesApartMsMax, toMs: Math.max(...timesMs) + halvesApartMsMax + 1 };
  const query = { filter: requestId === undefined ? {} : { requestId }, limit: 2 * requests.length + othersMax };
  const others = await shared(
    'pairs',
    around,
    query,
    (range, of, cancelled) =>
      inTime(store, (until) => store.readRequests({ ...range, ...of }, { signal: until }), cancelled),
    signal,
  );
  const known = new Set(requests.map(rowKey));
  return requestPairs([...requests, ...others.filter((other) => !known.has(rowKey(other)))]);
}

/**
 * Turns pages of requests into rows with their pairs. Without a filter, the other half of a request is on the same or
 * an adjacent page; with a filter, see `readPairs`. Throws a `StoreError`.
 */
export async function* pairedPages<Row>(
  reads: Reads,
  query: DashboardQuery,
  pages: AsyncIterable<readonly RequestEvent[]>,
  rowsOf: (requests: readonly RequestEvent[], pairs: RequestPairs) => Row[],
): AsyncGenerator<Row[]> {
  let before: readonly RequestEvent[] = [];
  let page: readonly RequestEvent[] | undefined;
  const paired = async (requests: readonly RequestEvent[], after: readonly RequestEvent[]): Promise<Row[]> => {
    const isFiltered = Object.keys(query.filter).length > 0;
    return rowsOf(
      requests,
      isFiltered ? await readPairs(reads, query, requests) : requestPairs([...before, ...requests, ...after]),
    );
  };
  for await (const after of pages) {
    if (page !== undefined) {
      yield await paired(page, after);
      before = page;
    }
    page = after;
  }
  if (page !== undefined) yield await paired(page, []);
}

function rowKey(request: RequestEvent): string {
  return JSON.stringify([rfc3339(request), seriesKey(request), request.endpoint]);
}

/** Reads the newest ledgers of the collectors that reported since the query's range began. Throws a `StoreError`. */
export function readLedgers({ store, shared, signal }: Reads, { fromMs, toMs }: TimeRange): Promise<LedgerSnapshot[]> {
  return shared(
    'ledgers',
    { fromMs, toMs },
    {},
    (range, _query, cancelled) =>
      inTime(store, (until) => store.readLedgers({ sinceMs: range.fromMs }, { signal: until }), cancelled),
    signal,
  );
}

/** Resolves if the store answers. Throws a `StoreError`. */
export function pingStore(store: Store): Promise<void> {
  return inTime(store, () => store.ping());
}

async function readFold(
  reads: Reads,
  { level, scope, filter }: RollupsQuery,
  { range, stepMs, requestsScope, nowMs }: { range: TimeRange; stepMs: number; requestsScope: Scope; nowMs: number },
): Promise<{ folded: Fold; bounded: boolean; sampled: Sampled | undefined }> {
  const grid = { fromMs: range.fromMs, stepMs };
  const inWindows = readSeriesWindows(reads, { level, scope, filter }, range, nowMs);
  if (!needsRequests(filter)) {
    const windows = await inWindows;
    const folded = foldWindows(windows, grid, (older, make) =>
      reads.foldedRanges.of(JSON.stringify({ level, scope, filter, range, stepMs }), older, make),
    );
    return { folded, bounded: false, sampled: sampledIn(windows) };
  }
  const { store } = reads;
  const [{ rows, isBounded }, windows] = await Promise.all([
    inTime(
      store,
      (until) => store.rollUpRequests({ ...range, level, scope: requestsScope, filter }, { signal: until }),
      reads.signal,
    ),
    inWindows,
  ]);
  return { folded: fold(rows, grid), bounded: isBounded, sampled: sampledIn(windows) };
}

/** Reads the windows of a filter, ignoring conditions that rollups do not support. */
async function readSeriesWindows(
  { rollups, signal }: Reads,
  { level, scope, filter }: RollupsQuery,
  range: TimeRange,
  nowMs: number,
): Promise<WindowDigest[]> {
  return (await rollups.get({ level, scope, filter: seriesFilter(filter) }, range, nowMs, signal)).map(
    ({ digest }) => digest,
  );
}

/** Rows of scope `host` answer a filter by host; rows of scope `all` all others. */
function scopeOf({ host }: Filter): Scope {
  return host === undefined ? 'all' : 'host';
}

/**
 * Reads the hosts of a source, with the figures of the `hostsMax` busiest. Covers whole windows of the levels that
 * hosts have, which may exceed the range.
 */
async function readHosts(
  reads: Reads,
  filter: Filter,
  range: TimeRange,
  { source, hostsMax, nowMs }: { source: string | undefined; hostsMax: number; nowMs: number },
): Promise<HostList> {
  const parts = hostParts(range, nowMs);
  const counts = (await readHostCounts(reads, { parts, filter: seriesFilter(filter) }, nowMs)).filter(
    (host) => host.source === source && host.requests > 0,
  );
  const listed = counts
    .toSorted((one, other) => other.requests - one.requests || (one.host < other.host ? -1 : 1))
    .slice(0, hostsMax)
    .map(({ host }) => host);
  if (source === undefined || listed.length === 0) return hostListOf([], new Map());
  const query = { parts, filter: { ...seriesFilter(filter), source }, hosts: listed, nowMs };
  if (listed.length <= cachedHostsMax)
    return hostListOf(
      counts,
      ranked(merged(range.fromMs, await readHostDigests(reads, query)).sources.get(source)?.hosts),
    );
  const sums = new Map(listed.map((host) => [host, new CellSum()]));
  for await (const { host, cells } of streamHostRows(reads, query))
    for (const cell of cells) sums.get(host!)!.add(cell);
  return hostListOf(counts, ranked(new Map([...sums].map(([host, sum]) => [host, sum.sum()]))));
}

/** Compares Caddy with each app, over their common hosts. */
async function readSourcePairs(
  reads: Reads,
  filter: Filter,
  range: TimeRange,
  { stepMs, sources, nowMs }: { stepMs: number; sources: ReadonlyMap<string, unknown>; nowMs: number },
): Promise<readonly Pair[]> {
  if (!sources.has(caddySource) || sources.size < 2) return [];
  const hostLevel = levelFor(range, nowMs, 'host');
  const counts = await readHostCounts(reads, { parts: hostParts(range, nowMs), filter: seriesFilter(filter) }, nowMs);
  const hosts = pairedHosts(counts, pairedHostsMax);
  if (hosts.length === 0) return [];
  const aligned = alignRange(range, hostLevel);
  const digests = await readHostDigests(reads, {
    parts: [{ ...aligned, level: hostLevel }],
    filter: seriesFilter(filter),
    hosts,
    nowMs,
  });
  return foldWindows(digests, { fromMs: aligned.fromMs, stepMs: Math.max(stepMs, hostLevel * 1000) }).pairs;
}

/** Maximum number of hosts to compare, without their ports. */
const pairedHostsMax = 200;

/** The fewest windows of scope `host` that cover a range, ascending. */
export function hostParts(range: TimeRange, nowMs: number): (TimeRange & { level: Level })[] {
  const finest = levelFor(range, nowMs, 'host');
  return coverRange(
    alignRange(range, finest),
    levelsOf.host.filter((each) => each >= finest),
  );
}

/** Reads the counts of all hosts. Concurrent readers share a read. Throws a `StoreError`. */
export async function readHostCounts(
  { hostCounts, shared, signal }: Reads,
  query: HostCountsQuery,
  nowMs: number,
): Promise<readonly HostCounts[]> {
  const [first, last] = [query.parts[0], query.parts.at(-1)];
  if (first === undefined || last === undefined) return [];
  const range = { fromMs: first.fromMs, toMs: last.toMs };
  return await shared(
    'host counts',
    range,
    query,
    (_range, of, cancelled) => hostCounts.get(of, nowMs, cancelled),
    signal,
  );
}

/** Maximum number of hosts in a cached read: more would evict the windows of pages. */
const cachedHostsMax = 20;

/** Reads the windows of some hosts, ascending. Throws a `StoreError`. */
export async function readHostDigests(
  reads: Reads,
  { parts, filter, hosts, byClass = true, nowMs }: HostDigestsQuery,
): Promise<WindowDigest[]> {
  if (hosts.length <= cachedHostsMax) {
    const sorted = hosts.toSorted();
    const ofParts = await Promise.all(
      parts.map(({ level, ...range }) =>
        reads.rollups.get({ level, scope: 'host', filter, hosts: sorted, byClass }, range, nowMs, reads.signal),
      ),
    );
    return ofParts.flat().map(({ digest }) => digest);
  }
  const rows: RollupRow[] = [];
  for await (const row of streamHostRows(reads, { parts, filter, hosts, byClass })) rows.push(row);
  return [...groupBy(rows, ({ windowMs }) => windowMs)]
    .sort(([one], [other]) => one - other)
    .map(([, ofWindow]) => digestOf(ofWindow));
}

/** Reads the rows of some hosts, part by part and window by window. Throws a `StoreError`. */
export async function* streamHostRows(
  { store, signal }: Reads,
  { parts, filter, hosts, byClass = true }: Omit<HostDigestsQuery, 'nowMs'>,
): AsyncGenerator<RollupRow> {
  const wanted = new Set(hosts);
  const named = wanted.size > namedHostsMax ? undefined : [...wanted];
  for (const part of wanted.size === 0 ? [] : parts) {
    for await (const rows of pagesInTime(
      store,
      (until) => store.streamRollups({ ...part, scope: 'host', filter, hosts: named, byClass }, { signal: until }),
      signal,
    )) {
      for (const row of rows) if (wanted.has(row.host!)) yield row;
    }
  }
}

/** Maximum number of hosts in a statement. Beyond it, reading the rows of all hosts is faster. */
const namedHostsMax = 500;

/** The windows and hosts to read. */
interface HostDigestsQuery {
  /** Ascending. */
  readonly parts: readonly (TimeRange & { readonly level: Level })[];
  readonly filter: Filter;
  readonly hosts: readonly string[];
  /** Whether cells may be merged by status class. Default: yes. */
  readonly byClass?: boolean;
  readonly nowMs: number;
}

function seriesFilter({ source, host, method, status }: Filter): Filter {
  return {
    ...(source !== undefined && { source }),
    ...(host !== undefined && { host }),
    ...(method !== undefined && { method }),
    ...(status !== undefined && { status }),
  };
}

/** Runs a read. Cancels it after `readMsMax` or when `signal` is aborted. */
async function inTime<Answer>(
  store: Store,
  read: (until: AbortSignal) => Promise<Answer>,
  signal?: AbortSignal,
): Promise<Answer> {
  const cancelling = new AbortController();
  return await beforeDeadline(store, () => read(cancelling.signal), cancelling, signal);
}

/** Runs a paged read, with a timeout for each page. The time that the consumer spends on a page does not count. */
async function* pagesInTime<Row>(
  store: Store,
  read: (until: AbortSignal) => AsyncIterable<readonly Row[]>,
  signal?: AbortSignal,
): AsyncGenerator<readonly Row[]> {
  const cancelling = new AbortController();
  const pages = read(cancelling.signal)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await beforeDeadline(store, () => pages.next(), cancelling, signal);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    void Promise.resolve(pages.return?.()).catch(() => undefined);
  }
}

/**
 * Resolves to the result of `read`. Aborts `cancelling` when `signal` is aborted or after `readMsMax`; on timeout
 * throws a `StoreError` immediately.
 */
async function beforeDeadline<Answer>(
  store: Store,
  read: () => Promise<Answer>,
  cancelling: AbortController,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const cancel = (): void => {
    cancelling.abort();
  };
  if (signal?.aborted === true) cancel();
  else signal?.addEventListener('abort', cancel, { once: true });
  let timer: NodeJS.Timeout | undefined;
  try {
    // `Promise.race` with one promise for all pages would retain every page.
    return await new Promise<Answer>((resolve, reject) => {
      timer = setTimeout(() => {
        reject(
          new StoreError(
            'retry',
            `Cannot read ${store.description}: no answer within ${readMsMax / 1000} s. Check that it is running and not overloaded, or ask for a shorter range.`,
          ),
        );
        cancel();
      }, readMsMax);
      read().then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  }
}
