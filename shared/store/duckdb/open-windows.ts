/**
 * The rollup rows of open windows, at the finest levels only, held in memory by segment. Each batch also writes what it
 * adds to the table `rollup_journal`, in its own transaction, so that a kill loses nothing. Closing a segment writes
 * its rows to their tables and deletes its journal. Rows of coarser levels are made from these: see `rollup-folds.ts`.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { CellSet } from '../../rollup/cell-set.js';
import { byStatusClass } from '../../rollup/cells.js';
import { chooseClosing } from '../../rollup/closing.js';
import {
  levelsOf,
  retainedLevels,
  windowStart,
  type Aggregate,
  type RollupRow,
  type RowKey,
  type SeriesAggregate,
} from '../../rollup/rollup.js';
import { addHostCells, filteredRow, matchesCell, matchesRow, readsByClass, wholeWindows } from '../rollups-query.js';
import type { HostCounts, HostCountsQuery, RollupsQuery } from '../store.js';
import { coarserKeys } from './changed-keys.js';
import { RollupFolds, type Folded } from './rollup-folds.js';
import { aggregateLength, journalLines, loadJournal, type JournalEntry } from './rollup-journal.js';
import { hostCells, rowsOf, sourceCells, textOfKey, type Addition, type Segment, type SegmentKey } from './segment.js';

/** State that a read needs in addition to the tables: rows that are not in them, or not at their level yet. */
export interface OpenSnapshot {
  /** Open rows that match the query, at its level. */
  readonly rows: readonly RollupRow[];
  /** Stored rows with a greater `closed` are among the open ones, or made from others: skip them. */
  readonly closedMax: number;
  readonly folded: Folded;
}

/**
 * Time for which a segment stays open after its window ended and it last changed, in milliseconds. Later requests open
 * it again: rows with the same key add up.
 */
const graceMs = 30_000;

/** Maximum number of open cells, about 80 MB. Beyond it, the least recently changed segments are closed early. */
const cellsMaxDefault = 250_000;
const closeEveryMs = 10_000;

/**
 * A journal is rewritten when it is longer than this, in characters, and has grown by the factor `journalGrowthMax`
 * since the last time.
 */
const journalLengthMin = 4_000_000;
const journalGrowthMax = 4;

/** The open segments of an open file. */
export class OpenWindows {
  readonly #segments = new Map<string, Segment>();
  readonly #cellsMax: number;
  #closedMax: number;
  #cells = 0;
  #lookedMs = -Infinity;
  /** The start of the oldest window of the last batch. */
  #oldestMs = -Infinity;

  /** How far the levels of closed rows are folded. */
  readonly folds: RollupFolds;

  private constructor(closedMax: number, folds: RollupFolds, cellsMax: number) {
    this.#closedMax = closedMax;
    this.folds = folds;
    this.#cellsMax = cellsMax;
  }

  /**
   * Restores the open windows of a file from its journal. `cellsMax` is the maximum number of open cells. Default:
   * 250,000.
   */
  static async load(
    connection: Pick<DuckDBConnection, 'run'>,
    { cellsMax = cellsMaxDefault }: { cellsMax?: number | undefined } = {},
  ): Promise<OpenWindows> {
    const [row] = await (
      await connection.run(
        'SELECT greatest((SELECT max(closed) FROM request_rollup), (SELECT max(closed) FROM host_rollup), (SELECT max(closed) FROM rollup_fold), 0)',
      )
    ).getRows();
    const windows = new OpenWindows(Number(row![0]), await RollupFolds.load(connection), cellsMax);
    for await (const entry of loadJournal(connection)) windows.#replay(entry);
    return windows;
  }

  /** The greatest `closed` of all stored rows. */
  get closedMax(): number {
    return this.#closedMax;
  }

  /** Groups aggregates by their segment at `nowMs`. */
  place(aggregates: readonly SeriesAggregate[], importId: number, nowMs: number): Addition[] {
    const additions = new Map<string, Addition>();
    let last: Addition | undefined;
    for (const aggregate of aggregates) {
      const level =
        retainedLevels(nowMs - aggregate.windowMs, 'host').find((each) => each >= aggregate.level) ??
        levelsOf.host.at(-1)!;
      const windowMs = windowStart(aggregate.windowMs, level);
      if (last?.key.windowMs !== windowMs || last.key.level !== level) {
        const key = { importId, level, windowMs };
        last = additions.get(textOfKey(key)) ?? { key, aggregates: [] };
        additions.set(textOfKey(key), last);
      }
      last.aggregates.push(aggregate);
    }
    return [...additions.values()];
  }

  /** Adds to the open rows. Takes ownership of the aggregates. */
  merge(additions: readonly Addition[], nowMs: number): void {
    this.#oldestMs = additions.length > 0 ? Infinity : -Infinity;
    for (const { key, aggregates } of additions) {
      const segment = this.#segmentOf(key);
      segment.changedMs = Math.max(segment.changedMs, nowMs);
      for (const {
        series: { source, host, method, status },
        level,
        windowMs,
        aggregate,
      } of aggregates) {
        this.#oldestMs = Math.min(this.#oldestMs, windowMs);
        this.#add(segment, sourceCells(segment, source, level, windowMs), method, status, aggregate);
        this.#add(segment, hostCells(segment, source, host), method, status, aggregate, true);
      }
      segment.journalLength += aggregates.length * aggregateLength;
    }
  }

  /** Returns the segments to close now. */
  closing(nowMs: number): Segment[] {
    if (this.#cells <= this.#cellsMax / 10 && Math.abs(nowMs - this.#lookedMs) < closeEveryMs) return [];
    this.#lookedMs = nowMs;
    return chooseClosing([...this.#segments.values()], ({ cells }) => cells, {
      open: this.#cells,
      openMax: this.#cellsMax,
      oldestMs: this.#oldestMs,
      nowMs,
      graceMs,
    });
  }

  /** Returns the segments whose journal has grown too long. */
  withLongJournal(): Segment[] {
    return [...this.#segments.values()].filter(
      ({ journalLength, rewrittenLength }) =>
        journalLength > Math.max(journalLengthMin, journalGrowthMax * rewrittenLength),
    );
  }

  /** Call after the commit of `rewriteJournal`. */
  onRewritten(segments: readonly Segment[]): void {
    for (const segment of segments) segment.journalLength = segment.rewrittenLength = segment.cells * aggregateLength;
  }

  /** Call after the commit of rows whose `closed` is `closedMax + 1`. Forgets the segments that were closed. */
  onClosed(segments: readonly Segment[]): void {
    this.#closedMax += 1;
    for (const segment of segments) this.#forget(segment);
  }

  /** Forgets the open rows of an import, whose rows and journal were deleted. */
  async forget(importId: number, connection: Pick<DuckDBConnection, 'run'>): Promise<void> {
    await this.folds.onDeleted(connection);
    for (const segment of [...this.#segments.values()]) if (segment.importId === importId) this.#forget(segment);
  }

  /** Returns the state that a read needs in addition to the tables. Without a query there are no rows. */
  snapshot(query?: RollupsQuery): OpenSnapshot {
    const rows: RollupRow[] = [];
    if (query !== undefined) {
      const queried = query.hosts && new Set(query.hosts);
      for (const row of this.#rowsIn(query)) {
        if (
          !matchesRow(query.filter, row) ||
          (queried !== undefined && !(row.host !== undefined && queried.has(row.host)))
        )
          continue;
        rows.push(
          ...filteredRow(
            { ...row, rowId: 0, cells: readsByClass(query) ? byStatusClass(row.cells) : row.cells.copy() },
            query.filter,
          ),
        );
      }
    }
    return { rows, closedMax: this.#closedMax, folded: this.folds.folded };
  }

  /** Adds the requests of each host in open windows to counts, by `hostKey`. */
  addHosts(counts: Map<string, HostCounts>, { parts, filter }: HostCountsQuery): void {
    for (const part of parts) {
      for (const row of this.#rowsIn({ ...part, scope: 'host' })) {
        if (matchesRow(filter, row))
          addHostCells(
            counts,
            row,
            [...row.cells].filter((cell) => matchesCell(filter, cell)),
          );
      }
    }
  }

  /** Returns the keys of all open rows of whole sources, at their own level and all coarser ones. */
  keys(): RowKey[] {
    return coarserKeys(
      [...this.#segments.values()].flatMap(({ all }) =>
        [...all].flatMap(([source, rows]) =>
          rows.map(({ level, windowMs }) => ({ level, windowMs, source, host: undefined })),
        ),
      ),
    );
  }

  /** Yields the rows of a level and scope whose window starts in a range. Finer rows count as rows of this level. */
  *#rowsIn({
    level,
    scope,
    ...range
  }: Pick<RollupsQuery, 'fromMs' | 'toMs' | 'level' | 'scope'>): Generator<RowKey & { readonly cells: CellSet }> {
    const { fromMs, toMs } = wholeWindows(range, level);
    for (const segment of this.#segments.values()) {
      if (segment.windowMs + segment.level * 1000 <= fromMs || segment.windowMs >= toMs) continue;
      for (const row of rowsOf(segment)) {
        if ((row.host === undefined) !== (scope === 'all') || row.level > level) continue;
        const windowMs = windowStart(row.windowMs, level);
        if (windowMs >= fromMs && windowMs < toMs) yield { ...row, level, windowMs };
      }
    }
  }

  #segmentOf(key: SegmentKey): Segment {
    const text = textOfKey(key);
    let segment = this.#segments.get(text);
    if (segment === undefined) {
      this.#segments.set(
        text,
        (segment = {
          ...key,
          all: new Map(),
          hosts: new Map(),
          cells: 0,
          changedMs: -Infinity,
          journalLength: 0,
          rewrittenLength: 0,
        }),
      );
    }
    return segment;
  }

  #add(segment: Segment, cells: CellSet, method: string, status: number, aggregate: Aggregate, isOwned = false): void {
    const before = cells.size;
    cells.add(method, status, aggregate, isOwned);
    segment.cells += cells.size - before;
    this.#cells += cells.size - before;
  }

  #forget(segment: Segment): void {
    if (this.#segments.delete(textOfKey(segment))) this.#cells -= segment.cells;
  }

  /** Does not change `changedMs`, so that ended windows close immediately. */
  #replay({ key, text }: JournalEntry): void {
    const segment = this.#segmentOf(key);
    segment.journalLength += text.length;
    for (const { kind, level, windowMs, source, host, cells } of journalLines(text)) {
      for (const { method, status, ...aggregate } of cells) {
        if (kind !== 'host')
          this.#add(segment, sourceCells(segment, source, level, windowMs), method, status, aggregate);
        if (kind !== 'all') this.#add(segment, hostCells(segment, source, host), method, status, aggregate, true);
      }
    }
  }
}
