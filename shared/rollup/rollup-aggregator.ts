import { CellSet } from './cell-set.js';
import { chooseClosing } from './closing.js';
import {
  addEvent,
  emptyAggregate,
  retainedLevels,
  latencyBucketOf,
  levels,
  randomRowIds,
  scopes,
  seriesKey,
  windowStart,
  type Level,
  type RollupRow,
  type RowIds,
  type RowKey,
  type Scope,
  type Series,
  type SeriesAggregate,
} from './rollup.js';
import type { RequestEvent } from '../request-event.js';

/** Counts the requests of a batch by series and window, at the finest level that retains rows of their age. */
export class BatchAggregates {
  readonly #now: () => number;
  #nowMs: number;
  /** By `seriesKey`. */
  #bySeries = new Map<string, { readonly series: Series; readonly windows: Map<number, SeriesAggregate> }>();
  #size = 0;

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#nowMs = now();
  }

  /** Number of aggregates. */
  get size(): number {
    return this.#size;
  }

  /**
   * Counts a request. Pass its `seriesKey` and latency bucket if they are already known. `isSampled` as in
   * `addEvent`.
   */
  add(event: RequestEvent, key = seriesKey(event), bucket = latencyBucketOf(event), isSampled = true): void {
    const level =
      this.#nowMs - event.timeMs < recentMs ? levels[0] : retainedLevels(this.#nowMs - event.timeMs, 'all')[0]!;
    const windowMs = windowStart(event.timeMs, level);
    let ofSeries = this.#bySeries.get(key);
    if (ofSeries === undefined) {
      const { source, host, method, status } = event;
      this.#bySeries.set(key, (ofSeries = { series: { source, host, method, status }, windows: new Map() }));
    }
    let found = ofSeries.windows.get(windowMs);
    if (found === undefined) {
      ofSeries.windows.set(
        windowMs,
        (found = { series: ofSeries.series, level, windowMs, aggregate: emptyAggregate() }),
      );
      this.#size += 1;
    }
    addEvent(found.aggregate, event, bucket, isSampled);
  }

  /** Returns all aggregates and starts over. */
  take(): SeriesAggregate[] {
    const taken = [...this.#bySeries.values()].flatMap(({ windows }) => [...windows.values()]);
    this.#bySeries = new Map();
    this.#size = 0;
    this.#nowMs = this.#now();
    return taken;
  }
}

/** Age up to which requests always have the finest level, in milliseconds. Saves the lookup. */
const recentMs = 3_600_000;

interface OpenRow extends RowKey {
  readonly rowId: number;
  readonly cells: CellSet;
  changedMs: number;
  isChanged: boolean;
}

/** The open rows of one source: for all its requests, and by host. The inner maps are keyed by `windowKey`. */
interface SourceRows {
  readonly all: Map<number, OpenRow>;
  readonly hosts: Map<string, Map<number, OpenRow>>;
}

/** Interval between searches for rows to close, in milliseconds. */
const checkEveryMs = 10_000;

/** The rollup rows of open windows, at every level and scope, for a store with cumulative rows. */
export class OpenRollups {
  readonly #cellsMax: number;
  readonly #rowIds: RowIds;
  readonly #bySource = new Map<string, SourceRows>();
  #cells = 0;
  #checkedMs = -Infinity;
  #oldestMs = -Infinity;

  /**
   * `cellsMax` limits the memory. Default: 200,000. Beyond it, the least recently changed rows are closed early; later
   * requests of their windows open further rows.
   */
  constructor({ cellsMax = 200_000, rowIds = randomRowIds() }: { cellsMax?: number; rowIds?: RowIds } = {}) {
    this.#cellsMax = cellsMax;
    this.#rowIds = rowIds;
  }

  /** Number of their cells. */
  get cells(): number {
    return this.#cells;
  }

  /**
   * Adds aggregates to the rows of their windows, at every level that retains rows of their age at `nowMs`. Returns
   * the keys of the changed rows.
   */
  merge(aggregates: readonly SeriesAggregate[], nowMs: number): RowKey[] {
    const changed: OpenRow[] = [];
    this.#oldestMs = aggregates.length > 0 ? Infinity : -Infinity;
    for (const { series, level: finest, windowMs, aggregate } of aggregates) {
      this.#oldestMs = Math.min(this.#oldestMs, windowMs);
      for (const scope of scopes) {
        const host = scope === 'all' ? undefined : series.host;
        const rows = this.#rowsOf(series.source, host);
        for (const level of retainedLevels(nowMs - windowMs, scope)) {
          if (level < finest) continue;
          const row = this.#rowAt(rows, {
            level,
            windowMs: windowStart(windowMs, level),
            source: series.source,
            host,
          });
          const before = row.cells.size;
          row.cells.add(series.method, series.status, aggregate);
          this.#cells += row.cells.size - before;
          row.changedMs = Math.max(row.changedMs, nowMs);
          if (row.isChanged) continue;
          row.isChanged = true;
          changed.push(row);
        }
      }
    }
    for (const row of changed) row.isChanged = false;
    return changed.map(({ level, windowMs, source, host }) => ({ level, windowMs, source, host }));
  }

  /** Copies of the open rows of these keys. */
  copiesOf(keys: readonly RowKey[]): RollupRow[] {
    return keys.flatMap(({ level, windowMs, source, host }) => {
      const row = this.#rowsOf(source, host).get(windowKey(level, windowMs));
      return row === undefined ? [] : [copyOf(row)];
    });
  }

  /** Returns copies of the rows to close now: see `chooseClosing`. Remove them with `close`. */
  closing(nowMs: number): RollupRow[] {
    const isFull = this.#cells > this.#cellsMax / 10;
    if (!isFull && Math.abs(nowMs - this.#checkedMs) < checkEveryMs) return [];
    this.#checkedMs = nowMs;
    return chooseClosing([...this.#all()], ({ cells }) => cells.size, {
      open: this.#cells,
      openMax: this.#cellsMax,
      oldestMs: this.#oldestMs,
      nowMs,
    }).map(copyOf);
  }

  /** Closes rows. Later requests of their windows open further rows. */
  close(keys: readonly RowKey[]): void {
    for (const { level, windowMs, source, host } of keys) {
      const ofSource = this.#bySource.get(source);
      const rows = host === undefined ? ofSource?.all : ofSource?.hosts.get(host);
      const row = rows?.get(windowKey(level, windowMs));
      if (ofSource === undefined || rows === undefined || row === undefined) continue;
      rows.delete(windowKey(level, windowMs));
      if (host !== undefined && rows.size === 0) ofSource.hosts.delete(host);
      this.#cells -= row.cells.size;
    }
    if (keys.length > 0) this.#rowIds.onClosed();
  }

  /** Closes all rows. */
  clear(): void {
    this.#bySource.clear();
    this.#cells = 0;
    this.#rowIds.onClosed();
  }

  *#all(): Generator<OpenRow> {
    for (const { all, hosts } of this.#bySource.values()) {
      yield* all.values();
      for (const rows of hosts.values()) yield* rows.values();
    }
  }

  #rowsOf(source: string, host: string | undefined): Map<number, OpenRow> {
    let ofSource = this.#bySource.get(source);
    if (ofSource === undefined) this.#bySource.set(source, (ofSource = { all: new Map(), hosts: new Map() }));
    if (host === undefined) return ofSource.all;
    let rows = ofSource.hosts.get(host);
    if (rows === undefined) ofSource.hosts.set(host, (rows = new Map<number, OpenRow>()));
    return rows;
  }

  #rowAt(rows: Map<number, OpenRow>, key: RowKey): OpenRow {
    const id = windowKey(key.level, key.windowMs);
    let row = rows.get(id);
    if (row === undefined) {
      rows.set(
        id,
        (row = { ...key, rowId: this.#rowIds.draw(), cells: new CellSet(), changedMs: -Infinity, isChanged: false }),
      );
    }
    return row;
  }
}

/** A unique number for a level and a window. */
function windowKey(level: Level, windowMs: number): number {
  return windowMs * 8 + levels.indexOf(level);
}

function copyOf({ level, windowMs, source, host, rowId, cells }: OpenRow): RollupRow {
  return { level, windowMs, source, host, rowId, cells: cells.copy() };
}

/** Returns the rollup rows of raw requests, as the recorder would create them. */
export function rollUp(requests: readonly RequestEvent[], level: Level, scope: Scope = 'all'): RollupRow[] {
  const rows = new Map<string, RowKey & { readonly cells: CellSet }>();
  for (const request of requests) {
    const { source, method, status } = request;
    const host = scope === 'all' ? undefined : request.host;
    const windowMs = windowStart(request.timeMs, level);
    const key = `${windowMs}\n${source}\n${host}`;
    let row = rows.get(key);
    if (row === undefined) rows.set(key, (row = { level, windowMs, source, host, cells: new CellSet() }));
    addEvent(row.cells.at(method, status), request);
  }
  return [...rows.values()].map(({ cells, ...row }) => ({ ...row, rowId: 0, cells: [...cells] }));
}
