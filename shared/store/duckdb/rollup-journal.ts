/**
 * The journal of open windows, in the table `rollup_journal`. An entry has the lines of one segment, compressed: what a
 * batch added to it, or after a rewrite the rows that it had then.
 */
import { deflateSync, inflateSync } from 'node:zlib';
import { BIGINT, BLOB, DuckDBBlobValue, INTEGER, type DuckDBConnection } from '@duckdb/node-api';
import { packCells, unpackCells } from '../../rollup/cells.js';
import type { Cell, Level, RowKey, SeriesAggregate } from '../../rollup/rollup.js';
import { rowsOf, type Addition, type Segment, type SegmentKey } from './segment.js';
import { runCached } from './statements.js';

/** An entry of the journal: lines of one segment. */
export interface JournalEntry {
  readonly key: SegmentKey;
  readonly text: string;
}

/** A line of the journal: the cells of a row, or of a series of both scopes (`tally`). */
export interface JournalLine {
  readonly kind: 'tally' | 'all' | 'host';
  readonly level: Level;
  readonly windowMs: number;
  readonly source: string;
  readonly host: string;
  readonly cells: readonly Cell[];
}

/** Lines in one entry of the journal. */
const linesPerEntry = 5000;
/** Typical length of a line of the journal, in characters. */
export const aggregateLength = 80;

/** Reads all entries of the journal. Inflates one at a time. */
export async function* loadJournal(connection: Pick<DuckDBConnection, 'run'>): AsyncGenerator<JournalEntry> {
  const entries = await (
    await connection.run('SELECT import_id, level, window_ms, packed FROM rollup_journal')
  ).getRows();
  for (const [importId, level, windowMs, { bytes }] of entries as [
    bigint,
    Level,
    bigint,
    { readonly bytes: Uint8Array },
  ][]) {
    yield {
      key: { importId: Number(importId), level, windowMs: Number(windowMs) },
      text: inflateSync(bytes).toString('utf8'),
    };
  }
}

/** Parses the lines of an entry. */
export function* journalLines(text: string): Generator<JournalLine> {
  for (const line of text.split('\n')) {
    const [kind, level, windowMs, source, host, cells] = line.split('\t') as [
      JournalLine['kind'],
      string,
      string,
      string,
      string,
      string,
    ];
    yield { kind, level: Number(level) as Level, windowMs: Number(windowMs), source, host, cells: unpackCells(cells) };
  }
}

/** Writes additions to the journal. Call it in the transaction of their batch, and `merge` after its commit. */
export async function writeJournal(connection: DuckDBConnection, additions: readonly Addition[]): Promise<void> {
  for (const { key, aggregates } of additions) {
    for (let from = 0; from < aggregates.length; from += linesPerEntry)
      await writeEntry(connection, key, aggregates.slice(from, from + linesPerEntry).map(aggregateLine));
  }
}

/** Deletes the journals of segments. Call it in the transaction that writes their rows. */
export async function deleteJournals(connection: DuckDBConnection, segments: readonly Segment[]): Promise<void> {
  for (const segment of segments) await deleteEntries(connection, segment);
}

/** Replaces the journal of a segment by its rows. Call `onRewritten` after the commit. */
export async function rewriteJournal(connection: DuckDBConnection, segment: Segment): Promise<void> {
  await deleteEntries(connection, segment);
  let lines: string[] = [];
  for (const row of rowsOf(segment)) {
    if (lines.push(rowLine(row)) < linesPerEntry) continue;
    await writeEntry(connection, segment, lines);
    lines = [];
  }
  if (lines.length > 0) await writeEntry(connection, segment, lines);
}

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
