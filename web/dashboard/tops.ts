/** The top lists of a page: which rows they need, and what is made of them. */
import type { RequestEvent } from '../../shared/request-event.js';
import { addTally, emptyTally, type Tally } from '../../shared/rollup.js';
import type { Store, TimeRange, TopsQuery } from '../../shared/store/store.js';
import { alignRange, levelFor } from '../../shared/time-range.js';
import { DistinctSketch } from '../../shared/distinct.js';
import { topKeptMs, topLevels, topValueOf, type TopDimension, type TopKind, type TopLevel, type TopRow } from '../../shared/top-row.js';
import { TopSummary, type TopEntry } from '../../shared/top.js';
import { agentOf, type Agent } from './agents.js';
import { latencyOf, type Figures } from './fold.js';
import type { DashboardQuery } from './query.js';

/** What a list tells of one value. */
export interface TopFigures extends Pick<Figures, 'requests' | 'errors' | 'bytes' | 'latencyMs'> {
  /** How many more requests there may have been. */
  readonly missedMax: number;
}

/** The first values of one list, most requests first. */
export interface TopList {
  /** All requests of which the value is known. */
  readonly total: number;
  /** How many values there are. */
  readonly size: number;
  readonly values: ReadonlyMap<string, TopFigures>;
}

/** The values of a list as they were read, most requests first. */
export interface RankedList {
  readonly total: number;
  readonly entries: readonly TopEntry[];
}

/** The lists of one source. */
export interface SourceTops {
  readonly lists: Readonly<Record<TopDimension, RankedList>>;
  /** How many different client addresses there were; `null` where none is known. */
  readonly clients: number | null;
}

/** What was read of lists. */
export interface Tops {
  readonly bySource: ReadonlyMap<string, SourceTops>;
  /** How many raw requests, the newest, they were made from, where that is not all; `undefined` where it is. */
  readonly ofNewest: number | undefined;
}

/** What a list can be made by, besides what the rollups know. */
export const agentDimensions = ['browser', 'system', 'bot', 'who'] as const satisfies readonly (keyof Agent)[];
/** One of them. */
export type ListedDimension = TopDimension | (typeof agentDimensions)[number];

/** Whether a list is made from that of the user agents. */
export function isOfAgents(dimension: ListedDimension): dimension is (typeof agentDimensions)[number] {
  return agentDimensions.some((each) => each === dimension);
}

/** The range of a query as lists have it: in whole windows of the finest level that is kept. */
export function topRange(query: TimeRange, nowMs: number): { range: TimeRange; level: TopLevel } {
  const pageLevel = levelFor(query, nowMs);
  const level = topLevels.find((each) => each >= pageLevel && nowMs - query.fromMs <= (topKeptMs[each] ?? Infinity)) ?? 86_400;
  return { range: alignRange(query, level), level };
}

/**
 * The fewest windows that cover a range of whole windows of `finest`: a day is read as one row and not as 1,440. Coarse windows are read
 * when they have ended some time ago, since they are written less often while they are open.
 */
export function coverRange({ fromMs, toMs }: TimeRange, { finest, nowMs }: { finest: TopLevel; nowMs: number }): (TimeRange & { level: TopLevel })[] {
  const cover = (startMs: number, endMs: number, from: readonly TopLevel[]): (TimeRange & { level: TopLevel })[] => {
    const [level, ...finer] = from;
    if (level === undefined || startMs >= endMs) return [];
    if (finer.length === 0) return [{ level, fromMs: startMs, toMs: endMs }];
    const lengthMs = level * 1000;
    const first = Math.ceil(startMs / lengthMs) * lengthMs;
    const end = Math.floor(Math.min(endMs, nowMs - settledMs) / lengthMs) * lengthMs;
    if (first >= end) return cover(startMs, endMs, finer);
    return [...cover(startMs, first, finer), { level, fromMs: first, toMs: end }, ...cover(end, endMs, finer)];
  };
  return cover(fromMs, toMs, topLevels.filter((level) => level >= finest).toReversed());
}

/** By then the rows of a window that has ended are written, in milliseconds. */
const settledMs = 10_000;

/** Reads of a store, which throw a `StoreError`. */
export interface TopsReader {
  readTops(query: TopsQuery): Promise<TopRow[]>;
  readRequests(query: Parameters<Store['readRequests']>[0]): Promise<RequestEvent[]>;
}

/**
 * Reads lists. Their rows know the source alone (and unique clients the host); under any other filter they are made from raw requests,
 * the newest `requestsMax` of them. With no dimension, raw requests are not read for the sake of the clients.
 */
export async function readTopsFrom(store: TopsReader, query: DashboardQuery, { dimensions, requestsMax, nowMs }: { dimensions: readonly TopDimension[]; requestsMax: number; nowMs: number }): Promise<Tops> {
  const { source, host, ...others } = query.filter;
  const { range, level } = topRange(query, nowMs);
  const rowsTellClients = Object.keys(others).length === 0;
  const rowsTellLists = rowsTellClients && host === undefined;
  const kinds: TopKind[] = [...(rowsTellLists ? dimensions : []), ...(rowsTellClients ? ['unique_clients' as const] : [])];
  const filter = { ...(source !== undefined && { source }), ...(host !== undefined && { host }) };
  const [rows, requests] = await Promise.all([
    kinds.length === 0 ? [] : Promise.all(coverRange(range, { finest: level, nowMs }).map((part) => store.readTops({ ...part, kinds, filter }))),
    rowsTellLists || dimensions.length === 0 ? [] : store.readRequests({ ...range, filter: query.filter, limit: requestsMax + 1 }),
  ]);
  const parts = new Map<string, { lists: Record<TopDimension, TopSummary>; clients: DistinctSketch }>();
  const partOf = (of: string) => {
    let part = parts.get(of);
    if (part === undefined) parts.set(of, part = { lists: emptyLists(), clients: new DistinctSketch() });
    return part;
  };
  for (const row of rows.flat()) {
    const part = partOf(row.source);
    if (row.kind === 'unique_clients') part.clients.merge(DistinctSketch.unpack(row.packed));
    else part.lists[row.kind].merge(TopSummary.unpack(row.packed));
  }
  for (const request of requests.slice(0, requestsMax)) {
    const part = partOf(request.source);
    for (const dimension of dimensions) {
      const value = topValueOf[dimension](request);
      if (value !== '') part.lists[dimension].add(value, request);
    }
    if (!rowsTellClients && request.clientIp !== '') part.clients.add(request.clientIp);
  }
  return {
    bySource: new Map([...parts].map(([of, { lists, clients }]) => [of, { lists: mapLists((dimension) => ({ total: lists[dimension].total, entries: lists[dimension].entries() })), clients: clients.count() || null }])),
    ofNewest: requests.length > requestsMax ? requestsMax : undefined,
  };
}

/** A list as the page and the API show it: `rowsMax` values of it. */
export function listOf(tops: SourceTops | undefined, dimension: ListedDimension, rowsMax: number): TopList {
  if (tops === undefined) return { total: 0, size: 0, values: new Map() };
  if (!isOfAgents(dimension)) {
    const { total, entries } = tops.lists[dimension];
    return { total, size: entries.length, values: firstOf(entries, rowsMax) };
  }
  const sums = new Map<string, Tally & { value: string; errors: number; missedMax: number }>();
  for (const entry of tops.lists.user_agent.entries) {
    const value = agentOf(entry.value)[dimension];
    if (value === '') continue;
    let sum = sums.get(value);
    if (sum === undefined) sums.set(value, sum = { ...emptyTally(), value, errors: 0, missedMax: 0 });
    addTally(sum, entry);
    sum.errors += entry.errors;
    sum.missedMax += entry.missedMax;
  }
  return { total: tops.lists.user_agent.total, size: sums.size, values: firstOf([...sums.values()].sort((a, b) => b.count - a.count), rowsMax) };
}

/** A list of what rollups know exactly: hosts or methods. */
export function exactList(figures: ReadonlyMap<string, Figures>, rowsMax: number): TopList {
  return {
    total: [...figures.values()].reduce((sum, { requests }) => sum + requests, 0),
    size: figures.size,
    values: new Map([...figures].slice(0, rowsMax).map(([value, each]) => [value, { ...each, missedMax: 0 }])),
  };
}

/** Latencies are made of these alone: a list has hundreds of values, and ten are shown. */
function firstOf(entries: readonly TopEntry[], rowsMax: number): Map<string, TopFigures> {
  return new Map(entries.slice(0, rowsMax).map((entry) => [entry.value, { requests: entry.count, errors: entry.errors, bytes: entry.sizeSum, latencyMs: latencyOf(entry), missedMax: entry.missedMax }]));
}

function emptyLists(): Record<TopDimension, TopSummary> {
  return mapLists(() => new TopSummary({ entriesMax: Infinity }));
}

function mapLists<List>(make: (dimension: TopDimension) => List): Record<TopDimension, List> {
  return { path: make('path'), referrer: make('referrer'), user_agent: make('user_agent'), client: make('client') };
}
