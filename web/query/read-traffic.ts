/** Reads the figures of a query, and the current state of the store, the collectors and the sources. */
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import type { Level, Scope } from '../../shared/rollup/rollup.js';
import { needsRequests, type Filter, type LedgerSnapshot, type TimeRange } from '../../shared/store/store.js';
import { alignRange, levelFor } from '../../shared/time-range.js';
import type { Collection } from '../stats/collection.js';
import { fold, foldWindows, isComplete, sampledIn, type Fold, type HostList, type Sampled } from '../stats/fold.js';
import type { RecentWindows } from '../stats/health.js';
import type { Pair } from '../stats/pair.js';
import type { WindowDigest } from '../stats/window-digest.js';
import { unionOf, type DataSpan } from './first-data.js';
import { planTraffic, scopeOf, seriesFilter, type TrafficPlan } from './plan.js';
import { parseQuery, type DashboardQuery } from './query.js';
import { readHosts, readSourcePairs } from './read-hosts.js';
import type { Reads } from './reads.js';

/** Length of `Traffic.recent`, in milliseconds: the maximum number of one-minute windows of a page. */
const recentMs = 3 * 3_600_000;

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

/** What to read besides the figures of the range. */
export interface TrafficOptions {
  /** Milliseconds since 1970. Default: now. */
  readonly nowMs?: number;
  /** Whether to read the previous period. Default: no. */
  readonly withPrevious?: boolean;
  /** Whether to read the last hours. Default: no. */
  readonly withRecent?: boolean;
  /** Number of busiest hosts to read. Default: 0. */
  readonly hostsMax?: number;
  /** Whether to compare Caddy with the apps. Default: no. */
  readonly withPairs?: boolean;
}

/**
 * Reads and folds the figures of a query, optionally with the previous period, the last hours, the Caddy–app pairs and
 * the `hostsMax` busiest hosts. Throws a `StoreError`.
 */
export async function readTraffic(reads: Reads, query: DashboardQuery, options: TrafficOptions = {}): Promise<Traffic> {
  const { nowMs = Date.now(), withPrevious = false, withRecent = false } = options;
  const plan = planTraffic(query, reads, nowMs);
  const { range, stepMs, retainedFromMs, rollupsFromMs } = plan;
  const last = { fromMs: nowMs - recentMs, toMs: nowMs };
  const readPart = (part: TimeRange): Promise<Part> => readFold(reads, query.filter, plan, part, { ...options, nowMs });
  const [{ folded, bounded, sampled }, allLedgers, previous, recent, spans] = await Promise.all([
    readPart(range),
    reads.readLedgers(withRecent ? { ...query, fromMs: Math.min(query.fromMs, last.fromMs) } : query),
    withPrevious && plan.previous !== undefined ? readPart(plan.previous) : undefined,
    withRecent ? readRecentWindows(reads, query, last, nowMs) : undefined,
    reads.readSpans(),
  ]);
  const { hosts, pairs, previousPairs } = await readHostFigures(reads, query.filter, plan, {
    ...options,
    nowMs,
    folded,
    previous: previous?.folded,
  });
  const span = unionOf(spans.values());
  const ledgersSince = (sinceMs: number): LedgerSnapshot[] => allLedgers.filter(({ timeMs }) => timeMs >= sinceMs);
  const ledgers = ledgersSince(query.fromMs);
  const isTruncated = bounded || retainedFromMs !== undefined || rollupsFromMs !== undefined;
  const isPreviousWhole =
    previous?.bounded === false && span !== undefined && 2 * range.fromMs - range.toMs >= span.firstMs;
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
    complete: isComplete(ledgers, { bounded: isTruncated }) && !(sampled !== undefined && needsRequests(query.filter)),
    previous: isPreviousWhole ? { ...previous.folded, ...(previousPairs && { pairs: previousPairs }) } : undefined,
    recent: recent && currentState(reads, recent, { ledgers: ledgersSince(last.fromMs), spans, nowMs }),
    ...folded,
    ...(hosts && { hosts }),
    ...(pairs && { pairs }),
  };
}

/**
 * Reads what the default page shows, and alerts evaluate: the figures of the last hour and of the previous one, and the
 * current state. Throws a `StoreError`.
 */
export async function readCurrentTraffic(reads: Reads, nowMs: number): Promise<Traffic & { readonly recent: Recent }> {
  const traffic = await readTraffic(reads, parseQuery({}, nowMs), { nowMs, withPrevious: true, withRecent: true });
  return { ...traffic, recent: traffic.recent! };
}

/** Reads `Traffic.sampled` alone. Throws a `StoreError`. */
export async function readSampled(
  reads: Reads,
  query: DashboardQuery,
  nowMs = Date.now(),
): Promise<Sampled | undefined> {
  const scope = scopeOf(query.filter);
  const level = levelFor(query, nowMs, scope);
  return sampledIn(await readSeriesWindows(reads, query.filter, { level, scope }, alignRange(query, level), nowMs));
}

/**
 * Reads one-minute windows. Returns nothing for a filter that needs raw requests: reading them for all hours costs too
 * much.
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
  const { folded } = await readFold(reads, filter, { level, scope, stepMs }, alignRange(part, level), { nowMs });
  return { windows: folded.windows, stepMs };
}

function currentState(
  reads: Reads,
  recent: RecentWindows,
  {
    ledgers,
    spans,
    nowMs,
  }: { ledgers: readonly LedgerSnapshot[]; spans: ReadonlyMap<string, DataSpan>; nowMs: number },
): Recent {
  return {
    ...recent,
    ...reads.collectionOf(ledgers, nowMs),
    caddyNewestMs: spans.get(caddySource)?.newestMs,
    ownSinceMs: spans.get(dashboardSource)?.firstMs ?? reads.createdMs,
  };
}

/**
 * Reads the busiest hosts and the pairs, if asked for. Under a filter by host, or one that needs raw requests, the fold
 * has them already.
 */
async function readHostFigures(
  reads: Reads,
  filter: Filter,
  { scope, range, stepMs, previous: before }: TrafficPlan,
  {
    nowMs,
    hostsMax = 0,
    withPairs = false,
    folded,
    previous,
  }: Pick<TrafficOptions, 'hostsMax' | 'withPairs'> & {
    readonly nowMs: number;
    readonly folded: Fold;
    readonly previous: Fold | undefined;
  },
): Promise<{
  hosts?: HostList | undefined;
  pairs?: readonly Pair[] | undefined;
  previousPairs?: readonly Pair[] | undefined;
}> {
  if (scope !== 'all' || needsRequests(filter)) return {};
  const [hosts, pairs, previousPairs] = await Promise.all([
    hostsMax > 0
      ? readHosts(reads, filter, range, { source: folded.sources.keys().next().value, hostsMax, nowMs })
      : undefined,
    withPairs ? readSourcePairs(reads, filter, range, { stepMs, sources: folded.sources, nowMs }) : undefined,
    withPairs && before !== undefined && previous !== undefined
      ? readSourcePairs(reads, filter, before, { stepMs, sources: previous.sources, nowMs })
      : undefined,
  ]);
  return { hosts, pairs, previousPairs };
}

/** The figures of a range. See `Traffic`. */
interface Part {
  readonly folded: Fold;
  readonly bounded: boolean;
  readonly sampled: Sampled | undefined;
}

/** Reads and folds a range: from rollups, or from raw requests for a filter that needs them. */
async function readFold(
  reads: Reads,
  filter: Filter,
  { level, scope, stepMs }: Pick<TrafficPlan, 'level' | 'scope' | 'stepMs'>,
  range: TimeRange,
  {
    nowMs,
    hostsMax = 0,
    withPairs = false,
  }: Pick<TrafficOptions, 'hostsMax' | 'withPairs'> & { readonly nowMs: number },
): Promise<Part> {
  const grid = { fromMs: range.fromMs, stepMs };
  const inWindows = readSeriesWindows(reads, filter, { level, scope }, range, nowMs);
  if (!needsRequests(filter)) {
    const windows = await inWindows;
    const folded = foldWindows(windows, grid, (older, make) =>
      reads.foldedRanges.of(JSON.stringify({ level, scope, filter, range, stepMs }), older, make),
    );
    return { folded, bounded: false, sampled: sampledIn(windows) };
  }
  const requestsScope = hostsMax > 0 || withPairs ? 'host' : 'all';
  const [{ rows, isBounded }, windows] = await Promise.all([
    reads.rollUpRequests({ ...range, level, scope: requestsScope, filter }),
    inWindows,
  ]);
  return { folded: fold(rows, grid), bounded: isBounded, sampled: sampledIn(windows) };
}

/** Reads the windows of a filter, ignoring conditions that rollups do not support. */
async function readSeriesWindows(
  reads: Reads,
  filter: Filter,
  { level, scope }: { readonly level: Level; readonly scope: Scope },
  range: TimeRange,
  nowMs: number,
): Promise<WindowDigest[]> {
  return await reads.readWindows({ level, scope, filter: seriesFilter(filter) }, range, nowMs);
}
