/** The top lists of a page and the API: which rows they need, and how these are merged. */
import { Histogram } from '../../shared/sketch/histogram.js';
import type { RequestList, RequestLists } from '../../shared/top-list/top-lists-of-requests.js';
import type { Filter, Store, TimeRange } from '../../shared/store/store.js';
import { retainedFrom } from '../../shared/store/retention.js';
import { alignRange, coverRange, levelFor } from '../../shared/time-range.js';
import { HyperLogLog } from '../../shared/sketch/hyperloglog.js';
import {
  hostClientsLevels,
  isOfClients,
  topListRetentionMs,
  topLevels,
  type TopDimension,
  type TopKind,
  type TopLevel,
  type TopRow,
} from '../../shared/top-list/top-row.js';
import { SpaceSaving, type TopEntry } from '../../shared/sketch/space-saving.js';
import { agentOf, type Agent } from '../stats/agents.js';
import { latencyOf, type Figures } from '../stats/figures.js';
import type { HostList } from '../stats/fold.js';
import { groupBy } from '../../shared/group-by.js';
import type { MergeCache } from './merged-windows.js';
import type { DashboardQuery } from './query.js';
import type { Window } from './window-cache.js';

/** The figures of one value of a list. */
export interface TopFigures extends Pick<Figures, 'requests' | 'errors' | 'bytes' | 'latencyMs'> {
  /** Maximum number of uncounted requests. */
  readonly missedMax: number;
}

/** A top list, most requests first. */
export interface TopList {
  /** Number of requests with any value of this dimension. */
  readonly total: number;
  /** Number of values. Default: the size of `values`. */
  readonly count?: number;
  readonly values: ReadonlyMap<string, TopFigures>;
}

/** The lists of one source. */
export interface SourceTopLists {
  readonly lists: Readonly<Record<TopDimension, RankedList>>;
  /** Derived from the list of user agents. Lazy and memoized, because that list is long. */
  readonly agents: Readonly<Record<(typeof agentDimensions)[number], () => TopList>>;
  /** Number of distinct client addresses; `null` if unknown. */
  readonly clients: number | null;
}

/** A list that ranks its values lazily. */
interface RankedList {
  readonly total: number;
  readonly entries: () => readonly TopEntry[];
}

/** The top lists of a range. */
export interface TopLists {
  readonly bySource: ReadonlyMap<string, SourceTopLists>;
  /** Number of raw requests read, newest first, if the read was truncated. */
  readonly ofNewest: number | undefined;
  /**
   * Start of the retained raw requests, in milliseconds since 1970, if the lists are computed from them and the range
   * starts earlier.
   */
  readonly retainedFromMs: number | undefined;
}

/** Dimensions derived from user agents. */
export const agentDimensions = ['browser', 'system', 'bot', 'who'] as const satisfies readonly (keyof Agent)[];
/** A dimension that has a list. */
export type ListedDimension = TopDimension | (typeof agentDimensions)[number];

/** Whether a list is derived from that of the user agents. */
export function isOfAgents(dimension: ListedDimension): dimension is (typeof agentDimensions)[number] {
  return agentDimensions.some((each) => each === dimension);
}

/** The range of a query in whole windows of the finest level of top lists still retained. */
export function topRange(query: TimeRange, nowMs: number): { range: TimeRange; level: TopLevel } {
  const pageLevel = levelFor(query, nowMs);
  const level =
    topLevels.find((each) => each >= pageLevel && nowMs - query.fromMs <= (topListRetentionMs[each] ?? Infinity)) ??
    86_400;
  return { range: alignRange(query, level), level };
}

/** Time until the rows of a closed window have been written, in milliseconds. */
const settledMs = 10_000;
/** The same for rows of kind `host_clients`. */
const hostSettledMs = 70_000;

/** Unpacked sketches of the rows of a window, by source. Immutable. */
export type TopListsDigest = ReadonlyMap<string, WindowTopLists>;

interface WindowTopLists {
  readonly lists: readonly (readonly [TopDimension, SpaceSaving])[];
  /** Of all hosts; `undefined` without rows of unique clients. */
  readonly clients: HyperLogLog | undefined;
}

/** The windows and kinds of rows to read. */
export interface WindowTopListsQuery {
  readonly level: TopLevel;
  readonly kinds: readonly TopKind[];
  readonly filter: { readonly source?: string; readonly host?: string };
  /** Allows use as a cache key. */
  readonly [restriction: string]: unknown;
}

/** Computes the digest of the rows of one window. */
export function topListsDigestOf(rows: readonly TopRow[]): TopListsDigest {
  return new Map(
    [...groupBy(rows, ({ source }) => source)].map(([source, ofSource]) => {
      const sketches = ofSource.filter(({ kind }) => isOfClients(kind)).map(({ packed }) => HyperLogLog.unpack(packed));
      const [clients, ...others] = sketches;
      for (const other of others) clients!.merge(other);
      return [
        source,
        {
          lists: ofSource.flatMap(({ kind, packed }) =>
            isOfClients(kind) ? [] : [[kind, SpaceSaving.unpack(packed)] as const],
          ),
          clients,
        },
      ];
    }),
  );
}

/** Estimated size of a digest, in units of about 3 kB. */
export function piecesIn(digest: TopListsDigest): number {
  return [...digest.values()].reduce(
    (sum, { lists, clients }) => sum + 15 * lists.length + (clients === undefined ? 0 : 3),
    0,
  );
}

/** The reads of a store that top lists need. They throw a `StoreError`. */
export interface TopListsReader {
  readTopWindows(query: WindowTopListsQuery, range: TimeRange, nowMs: number): Promise<Window<TopListsDigest>[]>;
  topListsOfRequests: Store['topListsOfRequests'];
  readonly requestRetentionMs?: number | undefined;
  /** Cache of merged windows. Default: none. */
  readonly merged?: MergeCache<TopListsDigest, TopLists['bySource']>;
}

/**
 * Reads top lists and unique clients. Stored rows can be filtered by source, hourly and daily rows of unique clients
 * also by host. Other filters are computed from raw requests by the store. Without
 * `dimensions` only unique clients are counted.
 */
export async function readTopListsFrom(
  store: TopListsReader,
  query: DashboardQuery,
  { dimensions, valuesMax, nowMs }: { dimensions: readonly TopDimension[]; valuesMax: number; nowMs: number },
): Promise<TopLists> {
  const { source, host, ...others } = query.filter;
  const { range, level } = topRange(query, nowMs);
  const hasClientRows = Object.keys(others).length === 0;
  const rowsTellClients = hasClientRows && (host === undefined || hostClientsLevels.includes(level));
  const rowsTellLists = !isOfRequests(query.filter);
  const clientKinds = ['unique_clients'] as const;
  const storedKinds: readonly TopKind[] =
    host === undefined ? clientKinds : host === '' ? ['host_clients'] : ['unique_clients', 'host_clients'];
  const kinds: TopKind[] = [...(rowsTellLists ? dimensions : []), ...(rowsTellClients ? storedKinds : [])];
  const filter = { ...(source !== undefined && { source }), ...(host !== undefined && { host }) };
  // DuckDB needs at least one list in the statement: see `valuesMax` there.
  const fromRequests = rowsTellLists
    ? []
    : dimensions.length > 0
      ? dimensions
      : hasClientRows && !rowsTellClients
        ? ['client' as const]
        : [];
  const [windows, listed] = await Promise.all([
    kinds.length === 0
      ? []
      : Promise.all(
          coverRange(
            range,
            (host === undefined ? topLevels : hostClientsLevels).filter((each) => each >= level),
            nowMs - (host === undefined ? settledMs : hostSettledMs),
          ).map((part) => store.readTopWindows({ level: part.level, kinds, filter }, part, nowMs)),
        ),
    fromRequests.length === 0
      ? undefined
      : store.topListsOfRequests({
          ...range,
          filter: query.filter,
          kinds: [...fromRequests, ...(rowsTellClients ? [] : clientKinds)],
          valuesMax,
        }),
  ]);
  const digests = windows.flat().map(({ digest }) => digest);
  const merge = (): TopLists['bySource'] => mergeTopLists(digests, listed?.bySource ?? new Map());
  return {
    bySource:
      listed !== undefined || store.merged === undefined
        ? merge()
        : store.merged.of(
            JSON.stringify({ kinds, filter, dimensions, lengthMs: query.toMs - query.fromMs }),
            digests,
            merge,
          ),
    ofNewest: listed?.ofNewest,
    retainedFromMs:
      listed === undefined
        ? undefined
        : retainedFrom(store.requestRetentionMs, query.fromMs, { windowMs: level * 1000, nowMs }),
  };
}

/** Whether lists under a filter are computed from raw requests. */
export function isOfRequests(filter: Filter): boolean {
  return Object.keys(filter).some((name) => name !== 'source');
}

function mergeTopLists(
  digests: readonly TopListsDigest[],
  listed: ReadonlyMap<string, RequestLists>,
): TopLists['bySource'] {
  const parts = new Map<string, { lists: Record<TopDimension, SpaceSaving>; clients: HyperLogLog }>();
  const partOf = (of: string) => {
    let part = parts.get(of);
    if (part === undefined) parts.set(of, (part = { lists: emptyLists(), clients: new HyperLogLog() }));
    return part;
  };
  for (const digest of digests) {
    for (const [of, { lists, clients }] of digest) {
      const part = partOf(of);
      for (const [dimension, summary] of lists) part.lists[dimension].merge(summary);
      if (clients !== undefined) part.clients.merge(clients);
    }
  }
  for (const of of listed.keys()) partOf(of);
  return new Map(
    [...parts].map(([of, { lists, clients }]) => {
      const fromRequests = listed.get(of);
      // One of the two counts is 0.
      const ranked = rankedLists(lists, fromRequests?.lists);
      return [
        of,
        {
          lists: ranked,
          agents: agentLists(ranked.user_agent),
          clients: clients.count() + (fromRequests?.clients ?? 0) || null,
        },
      ];
    }),
  );
}

/** Returns the list of a dimension. */
export function listOf(topLists: SourceTopLists | undefined, dimension: ListedDimension): TopList {
  if (topLists === undefined) return { total: 0, values: new Map() };
  if (isOfAgents(dimension)) return topLists.agents[dimension]();
  const list = topLists.lists[dimension];
  return { total: list.total, values: new Map(list.entries().map((entry) => [entry.value, figuresOf(entry)])) };
}

function agentLists({ total, entries }: RankedList): SourceTopLists['agents'] {
  const listBy = (dimension: (typeof agentDimensions)[number]): TopList => {
    const byAgent = groupBy(entries(), ({ value }) => agentOf(value)[dimension]);
    byAgent.delete('');
    return {
      total,
      values: new Map(
        [...byAgent]
          .map(([value, some]) => [value, figuresOfAll(some)] as const)
          .sort(([, a], [, b]) => b.requests - a.requests),
      ),
    };
  };
  return Object.fromEntries(
    agentDimensions.map((dimension) => [dimension, once(() => listBy(dimension))]),
  ) as SourceTopLists['agents'];
}

/** Returns an exact list of hosts or methods, from rollups. `all` includes hosts without figures. */
export function exactList(figures: ReadonlyMap<string, Figures>, all?: Pick<HostList, 'count' | 'requests'>): TopList {
  return {
    total: all?.requests ?? [...figures.values()].reduce((sum, { requests }) => sum + requests, 0),
    count: all?.count ?? figures.size,
    values: new Map(
      [...figures].map(([value, each]) => [
        value,
        {
          requests: each.requests,
          errors: each.errors,
          bytes: each.bytes,
          get latencyMs() {
            return each.latencyMs;
          },
          missedMax: 0,
        },
      ]),
    ),
  };
}

/** Percentiles are computed lazily: a page shows ten of thousands of values. */
function figuresOf(entry: TopEntry): TopFigures {
  return {
    requests: entry.count,
    errors: entry.errors,
    bytes: entry.sizeSum,
    get latencyMs() {
      return latencyOf(entry);
    },
    missedMax: entry.missedMax,
  };
}

function figuresOfAll(entries: readonly TopEntry[]): TopFigures {
  const sum = (valueOf: (entry: TopEntry) => number): number => entries.reduce((all, entry) => all + valueOf(entry), 0);
  const latency = once(() => {
    const histogram = new Histogram();
    for (const entry of entries) histogram.merge(entry.histogram);
    return latencyOf({
      histogram,
      durationSumMs: sum(({ durationSumMs }) => durationSumMs),
      durationMaxMs: Math.max(...entries.map(({ durationMaxMs }) => durationMaxMs)),
    });
  });
  return {
    requests: sum(({ count }) => count),
    errors: sum(({ errors }) => errors),
    bytes: sum(({ sizeSum }) => sizeSum),
    missedMax: sum(({ missedMax }) => missedMax),
    get latencyMs() {
      return latency();
    },
  };
}

function rankedLists(
  lists: Readonly<Record<TopDimension, SpaceSaving>>,
  listed: ReadonlyMap<string, RequestList> = new Map(),
): Record<TopDimension, RankedList> {
  return Object.fromEntries(
    Object.entries(lists).map(([dimension, list]) => {
      const counted = listed.get(dimension);
      if (counted !== undefined) return [dimension, { total: counted.total, entries: () => counted.entries }];
      return [dimension, { total: list.total, entries: once(() => list.entries()) }];
    }),
  ) as Record<TopDimension, RankedList>;
}

/** Returns a lazy, memoized `make`. */
function once<Value extends object>(make: () => Value): () => Value {
  let value: Value | undefined;
  return () => (value ??= make());
}

function emptyLists(): Record<TopDimension, SpaceSaving> {
  const all = (): SpaceSaving => new SpaceSaving({ entriesMax: Infinity });
  return { path: all(), referrer: all(), user_agent: all(), client: all(), country: all() };
}
