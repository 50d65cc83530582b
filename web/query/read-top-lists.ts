/** Reads top lists and unique clients: from stored rows, or from raw requests for filters that rows do not support. */
import { retainedFrom } from '../../shared/store/retention.js';
import type { Filter, Store, TimeRange } from '../../shared/store/store.js';
import { alignRange, coverRange, levelFor } from '../../shared/time-range.js';
import {
  hostClientsLevels,
  topLevels,
  topListRetentionMs,
  type TopDimension,
  type TopKind,
  type TopLevel,
} from '../../shared/top-list/top-row.js';
import { mergeTopLists, type TopLists, type TopListsDigest } from '../stats/top-lists.js';
import type { MergeCache } from './merged-windows.js';
import type { DashboardQuery } from './query.js';
import type { Reads, WindowTopListsQuery } from './reads.js';
import type { Window } from './window-cache.js';

/**
 * Default number of values per top list of raw requests. Lists of browsers and bots are derived from as many agents.
 */
const listedValuesMax = 1000;
/** Time until the rows of a closed window have been written, in milliseconds. */
const settledMs = 10_000;
/** The same for rows of kind `host_clients`. */
const hostSettledMs = 70_000;

/** The reads of a store that top lists need. They throw a `StoreError`. */
export interface TopListsReader {
  readTopWindows(query: WindowTopListsQuery, range: TimeRange, nowMs: number): Promise<Window<TopListsDigest>[]>;
  topListsOfRequests: Store['topListsOfRequests'];
  readonly requestRetentionMs?: number | undefined;
  /** Cache of merged windows. Default: none. */
  readonly mergedTopLists?: MergeCache<TopListsDigest, TopLists['bySource']>;
}

/** Reads top lists and unique clients. See `readTopListsFrom`. Throws a `StoreError`. */
export function readTopLists(
  reads: Reads,
  query: DashboardQuery,
  { dimensions, nowMs = Date.now() }: { dimensions: readonly TopDimension[]; nowMs?: number },
): Promise<TopLists> {
  const valuesMax = Math.max(listedValuesMax, query.limit ?? 0);
  return readTopListsFrom(reads, query, { dimensions, valuesMax, nowMs });
}

/**
 * Reads top lists and unique clients. Stored rows can be filtered by source, hourly and daily rows of unique clients
 * also by host. Other filters are computed from raw requests by the store. Without `dimensions` only unique clients are
 * counted.
 */
export async function readTopListsFrom(
  reader: TopListsReader,
  query: DashboardQuery,
  { dimensions, valuesMax, nowMs }: { dimensions: readonly TopDimension[]; valuesMax: number; nowMs: number },
): Promise<TopLists> {
  const { range, level, parts, kinds, filter, kindsOfRequests } = planTopLists(query, dimensions, nowMs);
  const [windows, listed] = await Promise.all([
    Promise.all(parts.map((part) => reader.readTopWindows({ level: part.level, kinds, filter }, part, nowMs))),
    kindsOfRequests.length === 0
      ? undefined
      : reader.topListsOfRequests({ ...range, filter: query.filter, kinds: kindsOfRequests, valuesMax }),
  ]);
  const digests = windows.flat().map(({ digest }) => digest);
  const merge = (): TopLists['bySource'] => mergeTopLists(digests, listed?.bySource ?? new Map());
  const key = JSON.stringify({ kinds, filter, dimensions, lengthMs: query.toMs - query.fromMs });
  return {
    bySource:
      listed !== undefined || reader.mergedTopLists === undefined
        ? merge()
        : reader.mergedTopLists.of(key, digests, merge),
    ofNewest: listed?.ofNewest,
    retainedFromMs:
      listed === undefined
        ? undefined
        : retainedFrom(reader.requestRetentionMs, query.fromMs, { windowMs: level * 1000, nowMs }),
  };
}

/** What answers a query: parts of its range with the kinds of stored rows to read, and the kinds of raw requests. */
interface TopListsPlan {
  readonly range: TimeRange;
  readonly level: TopLevel;
  /** Empty if stored rows answer nothing. */
  readonly parts: readonly (TimeRange & { readonly level: TopLevel })[];
  readonly kinds: readonly TopKind[];
  readonly filter: WindowTopListsQuery['filter'];
  /** Empty if stored rows answer everything. */
  readonly kindsOfRequests: readonly TopKind[];
}

function planTopLists(query: DashboardQuery, dimensions: readonly TopDimension[], nowMs: number): TopListsPlan {
  const { source, host, ...others } = query.filter;
  const { range, level } = topRange(query, nowMs);
  const hasClientRows = Object.keys(others).length === 0;
  const rowsTellClients = hasClientRows && (host === undefined || hostClientsLevels.includes(level));
  const rowsTellLists = !isOfRequests(query.filter);
  const clientKinds = ['unique_clients'] as const;
  const storedKinds: readonly TopKind[] =
    host === undefined ? clientKinds : host === '' ? ['host_clients'] : ['unique_clients', 'host_clients'];
  const kinds: TopKind[] = [...(rowsTellLists ? dimensions : []), ...(rowsTellClients ? storedKinds : [])];
  // DuckDB needs at least one list in the statement: see `valuesMax` there.
  const listsOfRequests = rowsTellLists
    ? []
    : dimensions.length > 0
      ? dimensions
      : hasClientRows && !rowsTellClients
        ? ['client' as const]
        : [];
  return {
    range,
    level,
    parts:
      kinds.length === 0
        ? []
        : coverRange(
            range,
            (host === undefined ? topLevels : hostClientsLevels).filter((each) => each >= level),
            nowMs - (host === undefined ? settledMs : hostSettledMs),
          ),
    kinds,
    filter: { ...(source !== undefined && { source }), ...(host !== undefined && { host }) },
    kindsOfRequests: listsOfRequests.length === 0 ? [] : [...listsOfRequests, ...(rowsTellClients ? [] : clientKinds)],
  };
}

/** The range of a query in whole windows of the finest level of top lists still retained. */
export function topRange(query: TimeRange, nowMs: number): { range: TimeRange; level: TopLevel } {
  const pageLevel = levelFor(query, nowMs);
  const level =
    topLevels.find((each) => each >= pageLevel && nowMs - query.fromMs <= (topListRetentionMs[each] ?? Infinity)) ??
    86_400;
  return { range: alignRange(query, level), level };
}

/** Whether lists under a filter are computed from raw requests. */
export function isOfRequests(filter: Filter): boolean {
  return Object.keys(filter).some((name) => name !== 'source');
}
