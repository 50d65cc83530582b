import { CellSet } from '../../rollup/cell-set.js';
import type { Level, RowKey, SeriesAggregate } from '../../rollup/rollup.js';
import { storedRow, type StoredRow } from './rollup-tables.js';

/** Identifies a segment: a window of the finest level that hosts have at its age. */
export interface SegmentKey {
  /** 0 if there is no import. */
  readonly importId: number;
  readonly level: Level;
  readonly windowMs: number;
}

/** An open row of a whole source. */
export interface OpenRow {
  readonly level: Level;
  readonly windowMs: number;
  readonly cells: CellSet;
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

/** Returns the rows of segments as they are stored. */
export function closedRows(segments: readonly Segment[]): StoredRow[] {
  return segments.flatMap((segment) =>
    Array.from(rowsOf(segment), ({ cells, ...key }) => storedRow(key, cells, segment.importId)),
  );
}

/** Yields the open rows of a segment. */
export function* rowsOf({ level, windowMs, all, hosts }: Segment): Generator<RowKey & { readonly cells: CellSet }> {
  for (const [source, rows] of all) for (const row of rows) yield { ...row, source, host: undefined };
  for (const [source, ofSource] of hosts)
    for (const [host, cells] of ofSource) yield { level, windowMs, source, host, cells };
}

/** Returns the cells of a source in a window; new ones if there is no row yet. */
export function sourceCells({ all }: Segment, source: string, level: Level, windowMs: number): CellSet {
  let rows = all.get(source);
  if (rows === undefined) all.set(source, (rows = []));
  let row = rows.at(-1);
  if (row?.windowMs !== windowMs || row.level !== level)
    row = rows.find((each) => each.windowMs === windowMs && each.level === level);
  if (row === undefined) rows.push((row = { level, windowMs, cells: new CellSet() }));
  return row.cells;
}

/** Returns the cells of a host; new ones if there is no row yet. */
export function hostCells({ hosts }: Segment, source: string, host: string): CellSet {
  let ofSource = hosts.get(source);
  if (ofSource === undefined) hosts.set(source, (ofSource = new Map<string, CellSet>()));
  let cells = ofSource.get(host);
  if (cells === undefined) ofSource.set(host, (cells = new CellSet()));
  return cells;
}

/** A text that no two segments share. */
export function textOfKey({ importId, level, windowMs }: SegmentKey): string {
  return `${importId} ${level} ${windowMs}`;
}
