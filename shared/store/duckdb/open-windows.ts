/**
 * The rollup rows of open windows, at the finest levels only, held in memory by segment. Each batch also writes what it
 * adds to the table `rollup_journal`, in its own transaction, so that a kill loses nothing. Closing a segment writes
 * its rows to their tables and deletes its journal. Rows of coarser levels are made from these: see `rollup-folds.ts`.
 */
import { deflateSync, inflateSync } from 'node:zlib';
import { BIGINT, BLOB, DuckDBBlobValue, INTEGER, type DuckDBConnection } from '@duckdb/node-api';
import { CellSet } from '../../rollup/cell-set.js';
import {
  byStatusClass,
  chooseClosing,
  retainedLevels,
  levelsOf,
  packCells,
  unpackCells,
  windowStart,
  type Cell,
  type Level,
  type RollupRow,
  type RowKey,
  type SeriesAggregate,
  type Aggregate,
} from '../../rollup/rollup.js';
import { addHostCells, filteredRow, readsByClass, matchesCell, matchesRow, wholeWindows } from '../rollups-query.js';
import type { HostCounts, HostCountsQuery, RollupsQuery } from '../store.js';
import { RollupFolds, type Folded } from './rollup-folds.js';
import { storedRow, type StoredRow } from './rollup-tables.js';
import { runCached } from './statements.js';

/** State that a read needs in addition to the tables: rows that are not in them, or not at their level yet. */
export interface OpenSnapshot {
  /** Open rows that match the query, at its level. */
  readonly rows: readonly RollupRow[];
  /** Stored rows with a greater `closed` are among the open ones, or made from others: skip them. */
  readonly closedMax: number;
  readonly folded: Folded;
}

interface OpenRow {
  readonly level: Level;
  readonly windowMs: number;
  readonly cells: CellSet;
}

/** Identifies a segment: a window of the finest level that hosts have at its age. */
interface SegmentKey {
  /** 0 if there is no import. */
  readonly importId: number;
  readonly level: Level;
  readonly windowMs: number;
}

/** All open rows of a segment: of hosts at its level, and of whole sources at this and finer levels. */
export interface Segment extends SegmentKey {
  /** Rows of whole sources: by source, then by level and window. */
  readonly all: Map<string, OpenRow[]>;
  /** By source, then by host. */
  readonly hosts: Map<string, Map<string, CellSet>>;
  cells: number;
  changedMs: number;
  /** Length of its journal, in characters: now, and right after the last rewrite. */
  journalLength: number;
  rewrittenLength: number;
}

/** The aggregates that a batch adds to one segment. */
export interface Addition {
  readonly key: SegmentKey;
  readonly aggregates: SeriesAggregate[];
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
    const entries = await (
      await connection.run('SELECT import_id, level, window_ms, packed FROM rollup_journal')
    ).getRows();
    for (const [importId, level, windowMs, packed] of entries as [
      bigint,
      Level,
      bigint,
      { readonly bytes: Uint8Array },
    ][]) {
      windows.#replay(
        { importId: Number(importId), level, windowMs: Number(windowMs) },
        inflateSync(packed.bytes).toString('utf8'),
      );
    }
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
        last = additions.get(textOf(key)) ?? { key, aggregates: [] };
        additions.set(textOf(key), last);
      }
      last.aggregates.push(aggregate);
    }
    return [...additions.values()];
  }

  /** Writes additions to the journal. Call it in the transaction of their batch, and `merge` after its commit. */
  async journal(connection: DuckDBConnection, additions: readonly Addition[]): Promise<void> {
    for (const { key, aggregates } of additions) {
      for (let from = 0; from < aggregates.length; from += linesPerEntry)
        await writeEntry(connection, key, aggregates.slice(from, from + linesPerEntry).map(aggregateLine));
    }
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

  /** Deletes the journals of segments. Call it in the transaction that writes their rows. */
  async deleteJournals(connection: DuckDBConnection, segments: readonly Segment[]): Promise<void> {
    for (const segment of segments) await deleteEntries(connection, segment);
  }

  /** Returns the segments whose journal has grown too long. */
  withLongJournal(): Segment[] {
    return [...this.#segments.values()].filter(
      ({ journalLength, rewrittenLength }) =>
        journalLength > Math.max(journalLengthMin, journalGrowthMax * rewrittenLength),
    );
  }

  /** Replaces the journal of a segment by its rows. Call `onRewritten` after the commit. */
  async rewriteJournal(connection: DuckDBConnection, segment: Segment): Promise<void> {
    await deleteEntries(connection, segment);
    let lines: string[] = [];
    for (const row of rowsOf(segment)) {
      if (lines.push(rowLine(row)) < linesPerEntry) continue;
      await writeEntry(connection, segment, lines);
      lines = [];
    }
    if (lines.length > 0) await writeEntry(connection, segment, lines);
  }

  /** See `rewriteJournal`. */
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
    const text = textOf(key);
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
    if (this.#segments.delete(textOf(segment))) this.#cells -= segment.cells;
  }

  /** Does not change `changedMs`, so that ended windows close immediately. */
  #replay(key: SegmentKey, packed: string): void {
    const segment = this.#segmentOf(key);
    segment.journalLength += packed.length;
    for (const line of packed.split('\n')) {
      const [kind, levelText, windowText, source, host, packedCells] = line.split('\t') as [
        string,
        string,
        string,
        string,
        string,
        string,
      ];
      for (const { method, status, ...aggregate } of unpackCells(packedCells)) {
        if (kind !== 'host')
          this.#add(
            segment,
            sourceCells(segment, source, Number(levelText) as Level, Number(windowText)),
            method,
            status,
            aggregate,
          );
        if (kind !== 'all') this.#add(segment, hostCells(segment, source, host), method, status, aggregate, true);
      }
    }
  }
}

/** Returns the rows of segments as they are stored. */
export function closedRows(segments: readonly Segment[]): StoredRow[] {
  return segments.flatMap((segment) =>
    Array.from(rowsOf(segment), ({ cells, ...key }) => storedRow(key, cells, segment.importId)),
  );
}

function* rowsOf({ level, windowMs, all, hosts }: Segment): Generator<RowKey & { readonly cells: CellSet }> {
  for (const [source, rows] of all) for (const row of rows) yield { ...row, source, host: undefined };
  for (const [source, ofSource] of hosts)
    for (const [host, cells] of ofSource) yield { level, windowMs, source, host, cells };
}

function sourceCells({ all }: Segment, source: string, level: Level, windowMs: number): CellSet {
  let rows = all.get(source);
  if (rows === undefined) all.set(source, (rows = []));
  let row = rows.at(-1);
  if (row?.windowMs !== windowMs || row.level !== level)
    row = rows.find((each) => each.windowMs === windowMs && each.level === level);
  if (row === undefined) rows.push((row = { level, windowMs, cells: new CellSet() }));
  return row.cells;
}

function hostCells({ hosts }: Segment, source: string, host: string): CellSet {
  let ofSource = hosts.get(source);
  if (ofSource === undefined) hosts.set(source, (ofSource = new Map<string, CellSet>()));
  let cells = ofSource.get(host);
  if (cells === undefined) ofSource.set(host, (cells = new CellSet()));
  return cells;
}

/**
 * Returns the keys of rows of whole sources that aggregates change, at all levels. Rows of their hosts change in the
 * same windows.
 */
export function changedKeys(aggregates: readonly SeriesAggregate[]): RowKey[] {
  const keys = new Map<string, RowKey>();
  for (const {
    series: { source },
    level,
    windowMs,
  } of aggregates) {
    const text = `${source}\n${level}\n${windowMs}`;
    if (!keys.has(text)) keys.set(text, { level, windowMs, source, host: undefined });
  }
  return coarserKeys([...keys.values()]);
}

/** Distinct keys at the given levels and all coarser ones. */
function coarserKeys(keys: readonly RowKey[]): RowKey[] {
  const all = new Map<string, RowKey>();
  for (const { source, level: finest, windowMs } of keys) {
    for (const level of levelsOf.all) {
      if (level < finest) continue;
      const key = { level, windowMs: windowStart(windowMs, level), source, host: undefined };
      all.set(`${source}\n${level}\n${key.windowMs}`, key);
    }
  }
  return [...all.values()];
}

function textOf({ importId, level, windowMs }: SegmentKey): string {
  return `${importId} ${level} ${windowMs}`;
}

/** Lines in one entry of the journal. */
const linesPerEntry = 5000;
/** Typical length of a line of the journal, in characters. */
const aggregateLength = 80;

async function writeEntry(
  connection: DuckDBConnection,
  { importId, level, windowMs }: SegmentKey,
  lines: readonly string[],
): Promise<void> {
  const packed = new DuckDBBlobValue(deflateSync(lines.join('\n'), { level: 1 }));
  await runCached(
    connection,
    'INSERT INTO rollup_journal (import_id, level, window_ms, packed) VALUES ($1, $2, $3, $4)',
    [BigInt(importId), level, BigInt(windowMs), packed],
    [BIGINT, INTEGER, BIGINT, BLOB],
  );
}

async function deleteEntries(connection: DuckDBConnection, { importId, level, windowMs }: SegmentKey): Promise<void> {
  await runCached(
    connection,
    'DELETE FROM rollup_journal WHERE import_id = $1 AND level = $2 AND window_ms = $3',
    [BigInt(importId), level, BigInt(windowMs)],
    [BIGINT, INTEGER, BIGINT],
  );
}

/** No source or host has a control character: see `contract.ts`. */
function aggregateLine({
  series: { source, host, method, status },
  level,
  windowMs,
  aggregate,
}: SeriesAggregate): string {
  return `tally\t${level}\t${windowMs}\t${source}\t${host}\t${packCells([{ ...aggregate, method, status }])}`;
}

function rowLine({ level, windowMs, source, host, cells }: RowKey & { readonly cells: Iterable<Cell> }): string {
  return `${host === undefined ? 'all' : 'host'}\t${level}\t${windowMs}\t${source}\t${host ?? ''}\t${packCells(cells)}`;
}
