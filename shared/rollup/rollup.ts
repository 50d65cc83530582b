import type { RequestEvent } from '../request-event.js';
import { bucketOfDuration, Histogram } from '../sketch/histogram.js';
import { hasLatency } from '../status.js';

/** Lengths of rollup windows in seconds, finest first. Each divides the next, and all divide a day. */
export const levels = [10, 60, 600, 3600, 86_400] as const;

/** The length of a window, in seconds. */
export type Level = (typeof levels)[number];

const dayMs = 86_400_000;

/**
 * What a row counts: all requests of a source, or those of one host. Rows of scope `all` answer a page without a host
 * filter, so that its cost does not depend on the number of hosts.
 */
export type Scope = (typeof scopes)[number];

/** All scopes. */
export const scopes = ['all', 'host'] as const;

/** The levels of each scope. Hosts have no windows of ten seconds: most would have a single request. */
export const levelsOf: Readonly<Record<Scope, readonly Level[]>> = {
  all: levels,
  host: levels.filter((level) => level >= 60),
};

/**
 * Retention of fine levels, in milliseconds: longer than any page reads them, see `levelFor`. Older requests get no
 * row at that level. Only the settings limit the other levels.
 */
const retentionMsOf: Readonly<Record<Scope, Readonly<Partial<Record<Level, number>>>>> = {
  all: { 10: dayMs / 4, 60: 14 * dayMs, 600: 60 * dayMs },
  host: { 60: dayMs / 6, 600: 7 * dayMs, 3600: 60 * dayMs },
};

/** Maximum retention of a level, in milliseconds. `Infinity` if only the settings limit it. */
export function levelRetentionMsMax(level: Level, scope: Scope = 'all'): number {
  return retentionMsOf[scope][level] ?? Infinity;
}

/** Retention of rows, in milliseconds. */
export interface Retention {
  /** Raw requests. */
  readonly requestsMs: number;
  /** Daily rollups. Finer windows may have a shorter retention: see `levelRetentionMs`. */
  readonly rollupsMs: number;
  /** Events of Caddy. Default: 30 days. */
  readonly eventsMs?: number | undefined;
}

/** Default of `Retention.eventsMs`. */
export const eventsRetentionMsDefault = 30 * 86_400_000;

/** Retention of a level in milliseconds, if that of daily rollups is `rollupsMs`. */
export function levelRetentionMs(level: Level, rollupsMs: number, scope: Scope = 'all'): number {
  return Math.min(levelRetentionMsMax(level, scope), rollupsMs);
}

/** The next coarser level of a scope; `undefined` for the coarsest. */
export function coarserLevel(level: Level, scope: Scope): Level | undefined {
  return levelsOf[scope][levelsOf[scope].indexOf(level) + 1];
}

/** Levels that retain rows of this age in milliseconds, finest first. */
export function retainedLevels(ageMs: number, scope: Scope): readonly Level[] {
  return levelsOf[scope].filter((level) => ageMs < levelRetentionMsMax(level, scope));
}

/** The labels of an aggregate. */
export interface Series {
  readonly source: string;
  readonly host: string;
  readonly method: string;
  readonly status: number;
}

/** Counts and sums of the requests of one series in one window. Aggregates can be merged. */
export interface Aggregate {
  /** Requests, including those without a latency. */
  count: number;
  /** Requests that are counted but not stored: see `request-sample.ts`. */
  sampledOut: number;
  /** Sum of the latencies in milliseconds, over the requests in the histogram. */
  durationSumMs: number;
  durationMaxMs: number;
  /** Sum of the response body sizes, in bytes. */
  sizeSum: number;
  readonly histogram: Histogram;
}

/** The requests of one method and status in a row. */
export interface Cell extends Aggregate {
  readonly method: string;
  readonly status: number;
}

/** Identifies a rollup row, together with its `rowId`. */
export interface RowKey {
  readonly level: Level;
  /** Start of the window in milliseconds since 1970, a multiple of the level. */
  readonly windowMs: number;
  readonly source: string;
  /** The host whose requests it counts; `undefined` for all hosts. */
  readonly host: string | undefined;
}

/**
 * A stored rollup row. Rows with the same key and different ids add up. Rows in InfluxDB are cumulative: one with the
 * same key and id replaces the earlier one. DuckDB writes each row once, when its window closes.
 */
export interface RollupRow extends RowKey {
  /**
   * Distinguishes rows with the same key: see `RowIds`. InfluxDB adds it to the start of the window, in nanoseconds:
   * all ids are less than the finest window.
   */
  readonly rowId: number;
  /** At most one for each method and status. */
  readonly cells: readonly Cell[];
}

/** The requests of one series and window in a batch. */
export interface SeriesAggregate {
  readonly series: Series;
  /** The finest level that retains rows of their age. */
  readonly level: Level;
  readonly windowMs: number;
  readonly aggregate: Aggregate;
}

/** Upper bound (exclusive) of the `rowId` of rows that are not from an import: 2^33 ns are 8.6 s. */
export const rowIdEnd = 2 ** 33;

/** Assigns ids to the rows of one recorder. */
export interface RowIds {
  /** Returns the id of a new row, unique among the rows of its window and series. */
  draw(): number;
  /** Call when rows were closed: if they are opened again, they need new ids. */
  onClosed(): void;
}

/** Random ids, for rows of windows to which other processes write as well. `random` returns numbers from 0 to 1. */
export function randomRowIds(random = Math.random): RowIds {
  return { draw: () => Math.floor(random() * rowIdEnd), onClosed: () => undefined };
}

/** Number of ids per import. It uses one each time it closes rows. */
const idsPerImport = 2 ** 16;
/** Number of imports with separate ids, above `rowIdEnd` and below the 10^10 ns of the finest window. */
const importSlots = Math.floor((1e10 - rowIdEnd) / idsPerImport);
/** Id of imports for which no range of row ids is left. They cannot be undone. */
export const sharedImportId = 0;

/** Returns an id for an import started at `nowMs`, whose row ids do not overlap those of the imports in `taken`. */
export function newImportId(nowMs: number, taken: readonly number[]): number {
  const takenSlots = new Set(taken.map((id) => id % importSlots));
  for (let id = Math.floor(nowMs); id < nowMs + importSlots; id += 1) if (!takenSlots.has(id % importSlots)) return id;
  return sharedImportId;
}

/** Range of row ids of an import, `to` excluded. They identify its rows when it is undone. `importId` is an integer. */
export function importRowRange(importId: number): { readonly from: number; readonly to: number } {
  const from = rowIdEnd + (importId % importSlots) * idsPerImport;
  return { from, to: from + idsPerImport };
}

/** Ids for the rows of an import. */
export function importRowIds(importId: number): RowIds {
  if (importId === sharedImportId) return randomRowIds();
  const { from, to } = importRowRange(importId);
  let next = from;
  return {
    draw: () => next,
    onClosed: () => {
      next = Math.min(next + 1, to - 1);
    },
  };
}

/** Returns an empty aggregate. */
export function emptyAggregate(): Aggregate {
  return { count: 0, sampledOut: 0, durationSumMs: 0, durationMaxMs: 0, sizeSum: 0, histogram: new Histogram() };
}

/**
 * Counts a request. Pass the bucket of its latency if it is already known: see `latencyBucketOf`. `isSampled` says
 * whether the request is also stored.
 */
export function addEvent(
  aggregate: Aggregate,
  event: Measured,
  bucket = latencyBucketOf(event),
  isSampled = true,
): void {
  aggregate.count += 1;
  if (!isSampled) aggregate.sampledOut += 1;
  aggregate.sizeSum += event.size;
  if (bucket === undefined || event.durationMs === null) return;
  aggregate.durationSumMs += event.durationMs;
  if (event.durationMs > aggregate.durationMaxMs) aggregate.durationMaxMs = event.durationMs;
  aggregate.histogram.addBucket(bucket);
}

/** The fields of a request that an aggregate uses. */
export type Measured = Pick<RequestEvent, 'method' | 'status' | 'durationMs' | 'size'>;

/** Histogram bucket of a request's latency; `undefined` if it has none. */
export function latencyBucketOf({ method, status, durationMs }: Measured): number | undefined {
  return durationMs !== null && hasLatency({ status, method }) ? bucketOfDuration(durationMs) : undefined;
}

/** Adds `other` to `aggregate`. */
export function mergeAggregate(aggregate: Aggregate, other: Aggregate): void {
  aggregate.count += other.count;
  aggregate.sampledOut += other.sampledOut;
  aggregate.durationSumMs += other.durationSumMs;
  aggregate.durationMaxMs = Math.max(aggregate.durationMaxMs, other.durationMaxMs);
  aggregate.sizeSum += other.sizeSum;
  aggregate.histogram.merge(other.histogram);
}

/** Returns a copy. */
export function copyAggregate(aggregate: Aggregate): Aggregate {
  return { ...aggregate, histogram: aggregate.histogram.clone() };
}

/** Start of the window that contains a time, both in milliseconds since 1970. */
export function windowStart(timeMs: number, level: Level): number {
  const lengthMs = level * 1000;
  return Math.floor(timeMs / lengthMs) * lengthMs;
}

/** Returns a unique key of a series. Host and method are chosen by clients, but cannot contain a newline. */
export function seriesKey(series: Series): string {
  return `${series.status}\n${series.source}\n${series.method}\n${series.host}`;
}

/**
 * Caches the keys of `seriesKey`: a lookup is cheaper than building and hashing a new string for each request. Beyond
 * `seriesMax`, the cache is cleared.
 */
export function createSeriesKeys({ seriesMax = 20_000 } = {}): (series: Series) => string {
  const bySource = new Map<string, Map<string, Map<string, Map<number, string>>>>();
  let known = 0;
  return (series) => {
    const found = bySource.get(series.source)?.get(series.host)?.get(series.method)?.get(series.status);
    if (found !== undefined) return found;
    if (known >= seriesMax) {
      bySource.clear();
      known = 0;
    }
    known += 1;
    const key = seriesKey(series);
    within(within(within(bySource, series.source), series.host), series.method).set(series.status, key);
    return key;
  };
}

function within<Key, InnerKey, Value>(outer: Map<Key, Map<InnerKey, Value>>, key: Key): Map<InnerKey, Value> {
  let inner = outer.get(key);
  if (inner === undefined) outer.set(key, (inner = new Map<InnerKey, Value>()));
  return inner;
}
