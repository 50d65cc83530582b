/** Which reads an answer needs. They run at the same time, and none takes longer than `readMsMax`. */
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
  type WindowDigest,
} from '../stats/fold.js';
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

/** How many raw requests are read, at most, where neither rollups nor the store's own sums of requests answer. */
const rawRequestsMax = 20_000;
/**
 * So many values of each list are read of single requests, unless more are asked for: the lists of agents are made from
 * as many user agents.
 */
const listedValuesMax = 1000;
/**
 * The two halves of a request are logged so near to each other, in milliseconds; and so many requests are looked
 * through for them, besides twice the rows.
 */
const halvesApartMsMax = 10_000;
const othersMax = 1000;
/** A store that has not answered by then counts as down, in milliseconds. */
const readMsMax = 10_000;

/**
 * What the sums of windows, and the lists of windows, that are kept may take, in pieces of 3 kB at most: some 50 MB and
 * 25 MB.
 */
const sumsKeptMax = 16_000;
const piecesKeptMax = 8000;

/**
 * How long lists of a window that has not ended are kept where others write, in milliseconds: they are written every
 * two seconds at most.
 */
const topListsOpenTtlMs = 1000;

/**
 * What is judged by fine windows whatever the range is goes back this far, in milliseconds: as many windows of a minute
 * as a page has at most.
 */
const recentMs = 3 * 3_600_000;

/** A store with what is kept of its windows: one for all who read. */
export interface Reads {
  readonly store: Store;
  readonly rollups: WindowCache<RollupsQuery, WindowDigest>;
  readonly topLists: WindowCache<WindowTopListsQuery, TopListsDigest>;
  readonly stretches: MergeCache<WindowDigest, FoldedRange>;
  readonly mergedTopLists: MergeCache<TopListsDigest, TopLists['bySource']>;
  readonly hostCounts: HostCountsCache;
  /** Reads that viewers who come at the same time make together. */
  readonly shared: SharedReads;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal?: AbortSignal | undefined;
  readonly drops: RecentDrops;
  readonly firstData: FirstData;
  /** When they were made, in milliseconds since 1970. */
  readonly madeMs: number;
}

interface RollupsQuery {
  readonly level: Level;
  readonly scope: Scope;
  readonly filter: DashboardQuery['filter'];
  /** See `Store.readRollups`. */
  readonly hosts?: readonly string[] | undefined;
  readonly [restriction: string]: unknown;
}

/**
 * Makes the reads of a store. They keep what they read, until it changes or after a time (`closedTtlMsMax` at most):
 * see `window-cache.ts`.
 */
export function createReads(store: Store, kept: { readonly closedTtlMsMax?: number } = {}): Reads {
  const { changes } = store;
  const rollups = createWindowCache({
    read: (query: RollupsQuery & TimeRange, signal) =>
      pagesInTime(store, (until) => store.streamRollups(query, { signal: until }), signal),
    digest: digestOf,
    estimatedSize: sumsIn,
    weightMax: sumsKeptMax,
    changes,
    ...kept,
  });
  const topLists = createWindowCache({
    read: (query: WindowTopListsQuery & TimeRange, signal) =>
      pagesInTime(store, (until) => store.streamTopLists(query, { signal: until }), signal),
    digest: topListsDigestOf,
    estimatedSize: piecesIn,
    weightMax: piecesKeptMax,
    changes,
    openTtlMs: topListsOpenTtlMs,
    ...kept,
  });
  changes?.listen((batch) => {
    rollups.forget(batch.rollups);
    topLists.forget(batch.topLists);
  });
  changes?.listenForExchange(() => {
    rollups.clear();
    topLists.clear();
  });
  const stretches = new MergeCache<WindowDigest, FoldedRange>({ estimatedSize: sumsIn, weightMax: sumsKeptMax });
  const mergedTopLists = new MergeCache<TopListsDigest, TopLists['bySource']>({
    estimatedSize: piecesIn,
    weightMax: piecesKeptMax,
  });
  const hostCounts = new HostCountsCache({
    read: (query, signal) => inTime(store, (until) => store.countHosts(query, { signal: until }), signal),
    changes,
    ...kept,
  });
  return {
    store,
    rollups,
    topLists,
    stretches,
    mergedTopLists,
    hostCounts,
    shared: createSharedReads(changes),
    drops: new RecentDrops(),
    firstData: new FirstData(store),
    madeMs: Date.now(),
  };
}

/** The figures of a query. */
export interface Traffic extends Fold {
  /** The range of the query, widened to whole windows of the level that was read. */
  readonly range: TimeRange;
  /** The length of a window: the level's, or a multiple of it where there would be more than `windowsMax` of them. */
  readonly stepMs: number;
  /**
   * The same of the period of the same length before; `undefined` where it was not asked for, is not kept whole, or
   * begins before the store's first data.
   */
  readonly previous: Fold | undefined;
  /** Since when there is data, in milliseconds since 1970; `undefined` where the store has none. */
  readonly firstMs: number | undefined;
  /** The start of the newest window with data. */
  readonly newestMs: number | undefined;
  /** The last hours, whatever the range is; `undefined` where it was not asked for. */
  readonly recent: Recent | undefined;
  /** Newest ledgers of the collectors that reported since the range began. */
  readonly ledgers: readonly LedgerSnapshot[];
  /** Whether a read stopped at `rawRequestsMax`. */
  readonly bounded: boolean;
  /**
   * Since when single requests are kept, in milliseconds since 1970, where they are what the figures are made from and
   * the range begins earlier.
   */
  readonly retainedFromMs: number | undefined;
  /** Since when rollups are kept, in milliseconds since 1970, where the range begins earlier. */
  readonly rollupsFromMs: number | undefined;
  /**
   * How many of the requests of the range, whatever only single ones know, are kept one by one; `undefined` where all
   * are.
   */
  readonly sampled: Sampled | undefined;
  /** See `isComplete`; not where the figures come from single requests, and not all are kept. */
  readonly complete: boolean;
}

/** What tells how things are now. */
export interface Recent extends RecentWindows, Collection {
  /** When the newest request of Caddy came, by its window; `undefined` where none ever did. */
  readonly caddyNewestMs: number | undefined;
  /**
   * Since when the dashboard records its own requests as `dashboard`: before that, the source `app` may be the
   * dashboard.
   */
  readonly ownSinceMs: number;
}

/**
 * Reads and folds the figures of a query. On demand also the period before, the last hours, the pairs, and the figures
 * of the `hostsMax` busiest hosts. Throws a `StoreError`.
 */
export async function readTraffic(
  reads: Reads,
  query: DashboardQuery,
  {
    requestsMax = rawRequestsMax,
    nowMs = Date.now(),
    withPrevious = false,
    withRecent = false,
    hostsMax = 0,
    withPairs = false,
  } = {},
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
  const isKept =
    nowMs - before.fromMs <= levelRetentionMs(level, reads.store.rollupRetentionMs ?? Infinity, scope) &&
    requestsFrom(before) === undefined;
  const requestsScope = hostsMax > 0 || withPairs ? 'host' : 'all';
  const readWindows = (part: TimeRange): ReturnType<typeof readFold> =>
    readFold(reads, { level, scope, filter: query.filter }, { range: part, stepMs, requestsMax, requestsScope, nowMs });
  const last = { fromMs: nowMs - recentMs, toMs: nowMs };
  const [{ folded, bounded, sampled }, allLedgers, previous, recent, spans] = await Promise.all([
    readWindows(range),
    readLedgers(reads, withRecent ? { ...query, fromMs: Math.min(query.fromMs, last.fromMs) } : query),
    withPrevious && isKept ? readWindows(before) : undefined,
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
      ownSinceMs: spans.get(dashboardSource)?.firstMs ?? reads.madeMs,
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

/** Windows of a minute; none under a filter that only single requests know, of which as many would have to be read. */
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
    { range: alignRange(part, level), stepMs, requestsMax: 0, requestsScope: 'all', nowMs },
  );
  return { windows: folded.windows, stepMs };
}

/**
 * Reads how many of the requests of a query's range, whatever only single ones know, are kept one by one: as in
 * `Traffic`, without its figures. Throws a `StoreError`.
 */
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

/** Reads top lists and unique clients: see `readTopListsFrom`. Throws a `StoreError`. */
export function readTopLists(
  { store, topLists, mergedTopLists, shared, signal }: Reads,
  query: DashboardQuery,
  {
    dimensions,
    requestsMax = rawRequestsMax,
    nowMs = Date.now(),
  }: { dimensions: readonly TopDimension[]; requestsMax?: number; nowMs?: number },
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
    requestsMax,
    nowMs,
  });
}

/**
 * Reads the latest requests of a query, newest first; on demand before them as many of the latest errors (5xx). Throws
 * a `StoreError`.
 */
export async function readLatest(
  { store, shared, signal }: Reads,
  { fromMs, toMs, filter, limit: limitGiven, errorsFirst }: DashboardQuery,
  limitDefault: number,
): Promise<RequestEvent[]> {
  const limit = limitGiven ?? limitDefault;
  const read = (of: Filter): Promise<RequestEvent[]> =>
    shared(
      'requests',
      { fromMs, toMs },
      { filter: of, limit },
      (range, query, cancelled) =>
        inTime(store, (until) => store.readRequests({ ...range, ...query }, { signal: until }), cancelled),
      signal,
    );
  if (!putsErrorsFirst({ errorsFirst, filter })) return read(filter);
  const [errors, latest] = await Promise.all([read({ ...filter, status: errorStatuses }), read(filter)]);
  return [...errors, ...latest.filter(({ status }) => !isError(status))];
}

/**
 * The rows of `readLatest` in pages, `limit` rows in all. Nothing is kept of them: an answer may take as long as its
 * client wants. Throws a `StoreError`.
 */
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

/** Under a filter by status all are errors, or none is. */
function putsErrorsFirst({ errorsFirst, filter }: Pick<DashboardQuery, 'errorsFirst' | 'filter'>): boolean {
  return errorsFirst && filter.status === undefined;
}

const errorStatuses = { min: 500, max: 599 };

function isError(status: number): boolean {
  return status >= errorStatuses.min && status <= errorStatuses.max;
}

/**
 * The pairs among requests by request id. Under a filter the other half of a pair is not among them as a rule: it is
 * looked for among all that came at about the same time. Throws a `StoreError`.
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
 * Turns pages of requests into rows with their pairs. Without a filter the other half of a request is in the same page
 * or in one beside it; under a filter see `readPairs`. Throws a `StoreError`.
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

/** Resolves when the store can be read. Throws a `StoreError`. */
export function pingStore(store: Store): Promise<void> {
  return inTime(store, () => store.ping());
}

async function readFold(
  reads: Reads,
  { level, scope, filter }: RollupsQuery,
  {
    range,
    stepMs,
    requestsMax,
    requestsScope,
    nowMs,
  }: { range: TimeRange; stepMs: number; requestsMax: number; requestsScope: Scope; nowMs: number },
): Promise<{ folded: Fold; bounded: boolean; sampled: Sampled | undefined }> {
  const grid = { fromMs: range.fromMs, stepMs };
  const inWindows = readSeriesWindows(reads, { level, scope, filter }, range, nowMs);
  if (!needsRequests(filter)) {
    const windows = await inWindows;
    const folded = foldWindows(windows, grid, (older, make) =>
      reads.stretches.of(JSON.stringify({ level, scope, filter, range, stepMs }), older, make),
    );
    return { folded, bounded: false, sampled: sampledIn(windows) };
  }
  const { store } = reads;
  const [{ rows, isBounded }, windows] = await Promise.all([
    inTime(
      store,
      (until) =>
        store.rollUpRequests({ ...range, level, scope: requestsScope, filter, requestsMax }, { signal: until }),
      reads.signal,
    ),
    inWindows,
  ]);
  return { folded: fold(rows, grid), bounded: isBounded, sampled: sampledIn(windows) };
}

/** The windows of what rollups know of a filter. */
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

/** A filter by host is answered by rows of hosts; all others by rows of scope `all`. */
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

/** Compares the edge with each app, over the hosts that both have. */
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

/** Maximum number of hosts that are compared, without their ports. */
const pairedHostsMax = 200;

/** The fewest windows of single hosts that cover a range, in the order of time. */
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

/** Maximum number of hosts whose windows are cached: many hosts would evict what pages need. */
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

/**
 * Maximum number of hosts in a statement. Beyond it the rows of all hosts are read: for 10,000 hosts that takes DuckDB
 * a sixth of the time.
 */
const namedHostsMax = 500;

/** Which windows of which hosts to read. */
interface HostDigestsQuery {
  /** In the order of time. */
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

/** Reads, and cancels the read when it takes too long or `signal` is aborted. */
async function inTime<Answer>(
  store: Store,
  read: (until: AbortSignal) => Promise<Answer>,
  signal?: AbortSignal,
): Promise<Answer> {
  const cancelling = new AbortController();
  return await beforeDeadline(store, () => read(cancelling.signal), cancelling, signal);
}

/**
 * The same for a read in pages, each of which has as much time. The time that its reader takes over a page does not
 * count.
 */
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
 * Resolves to what `read` does. Aborts `cancelling` when `signal` is aborted, and `readMsMax` after the start; then it
 * throws a `StoreError` at once.
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
    // Not `Promise.race` with one promise for all pages: it would hold on to each of them.
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
