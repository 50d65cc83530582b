/** Which reads an answer needs. They run at the same time, and none takes longer than `readMsMax`. */
import { StoreError } from '../../shared/errors.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { addEvent, emptyTally, fineLevelKeptMs, seriesKey, windowStart, type Level, type RollupRow } from '../../shared/rollup.js';
import type { Filter, LedgerSnapshot, Store, TimeRange } from '../../shared/store/store.js';
import { alignRange, levelFor, windowsMax } from '../../shared/time-range.js';
import { fold, isComplete, type Fold } from './fold.js';
import type { DashboardQuery } from './query.js';
import { readTopsFrom, type Tops } from './tops.js';
import type { TopDimension } from '../../shared/top-row.js';

/** How many raw requests are read, at most, where rollups cannot answer (a filter by path). */
const rawRequestsMax = 20_000;
/** A store that has not answered by then counts as down, in milliseconds. */
const readMsMax = 10_000;

/** The figures of a query. */
export interface Traffic extends Fold {
  /** The range of the query, widened to whole windows of the level that was read. */
  readonly range: TimeRange;
  /** The length of a window: the level's, or a multiple of it where there would be more than `windowsMax` of them. */
  readonly stepMs: number;
  /** The same of the period of the same length before; `undefined` where it was not asked for, or is not kept whole. */
  readonly previous: Fold | undefined;
  /** Newest ledgers of the collectors that reported since the range began. */
  readonly ledgers: readonly LedgerSnapshot[];
  /** Whether a read stopped at `rawRequestsMax`. */
  readonly bounded: boolean;
  /** See `isComplete`. */
  readonly complete: boolean;
}

/** Reads what the figures of a query need, and on demand those of the period before, and folds it. Throws a `StoreError`. */
export async function readTraffic(store: Store, query: DashboardQuery, { requestsMax = rawRequestsMax, nowMs = Date.now(), withPrevious = false } = {}): Promise<Traffic> {
  const level = levelFor(query, nowMs);
  const range = alignRange(query, level);
  const stepMs = level * 1000 * Math.ceil((range.toMs - range.fromMs) / (level * 1000) / (windowsMax + 1));
  const before = { fromMs: 2 * range.fromMs - range.toMs, toMs: range.fromMs };
  const isKept = nowMs - before.fromMs <= (fineLevelKeptMs[level] ?? Infinity);
  const [{ rows, bounded }, ledgers, previous] = await Promise.all([
    readRows(store, { ...range, level, filter: query.filter }, requestsMax),
    readLedgers(store, query),
    withPrevious && isKept ? readRows(store, { ...before, level, filter: query.filter }, requestsMax) : undefined,
  ]);
  return {
    range, stepMs, ledgers, bounded,
    complete: isComplete(ledgers, { bounded }),
    previous: previous === undefined || previous.bounded ? undefined : fold(previous.rows, { fromMs: before.fromMs, stepMs }),
    ...fold(rows, { fromMs: range.fromMs, stepMs }),
  };
}

/** Reads top lists and unique clients: see `readTopsFrom`. Throws a `StoreError`. */
export function readTops(store: Store, query: DashboardQuery, { dimensions, requestsMax = rawRequestsMax, nowMs = Date.now() }: { dimensions: readonly TopDimension[]; requestsMax?: number; nowMs?: number }): Promise<Tops> {
  return inTime(store, readTopsFrom(store, query, { dimensions, requestsMax, nowMs }));
}

/** Reads the latest requests of a query, newest first; on demand before them as many of the latest errors (5xx). Throws a `StoreError`. */
export async function readLatest(store: Store, { fromMs, toMs, filter, limit: limitGiven, errorsFirst }: DashboardQuery, limitDefault: number): Promise<RequestEvent[]> {
  const limit = limitGiven ?? limitDefault;
  const read = (of: Filter): Promise<RequestEvent[]> => inTime(store, store.readRequests({ fromMs, toMs, filter: of, limit }));
  // Under a filter by status all are errors, or none is.
  if (!errorsFirst || filter.status !== undefined) return read(filter);
  const [errors, latest] = await Promise.all([read({ ...filter, status: { min: 500, max: 599 } }), read(filter)]);
  return [...errors, ...latest.filter(({ status }) => status < 500 || status > 599)];
}

/** Reads the newest ledgers of the collectors that reported since the query's range began. Throws a `StoreError`. */
export function readLedgers(store: Store, { fromMs }: TimeRange): Promise<LedgerSnapshot[]> {
  return inTime(store, store.readLedgers({ sinceMs: fromMs }));
}

/** Resolves when the store can be read. Throws a `StoreError`. */
export function pingStore(store: Store): Promise<void> {
  return inTime(store, store.ping());
}

type RowsQuery = Parameters<Store['readRollups']>[0];

async function readRows(store: Store, query: RowsQuery, requestsMax: number): Promise<{ rows: readonly RollupRow[]; bounded: boolean }> {
  if (query.filter.path === undefined) return { rows: await inTime(store, store.readRollups(query)), bounded: false };
  const requests = await inTime(store, store.readRequests({ ...query, limit: requestsMax + 1 }));
  return { rows: rollUp(requests.slice(0, requestsMax), query.level), bounded: requests.length > requestsMax };
}

/** The rollup rows of raw requests, as the recorder would have made them. */
export function rollUp(requests: readonly RequestEvent[], level: Level): RollupRow[] {
  const rows = new Map<string, RollupRow>();
  for (const request of requests) {
    const { source, host, method, status } = request;
    const series = { source, host, method, status };
    const windowMs = windowStart(request.timeMs, level);
    const key = `${windowMs}\n${seriesKey(series)}`;
    let row = rows.get(key);
    if (row === undefined) rows.set(key, row = { level, windowMs, rowId: 0, series, ...emptyTally() });
    addEvent(row, request);
  }
  return [...rows.values()];
}

async function inTime<T>(store: Store, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new StoreError('retry', `Cannot read ${store.description}: no answer within ${readMsMax / 1000} s. Check that it is running and not overloaded.`)), readMsMax);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
