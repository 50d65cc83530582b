/**
 * The rollup rows of windows that still change. They are in memory; what a kill would take of them is in the table `rollup_journal`, written in the
 * transaction of each batch. A row goes to its table once, when its window is closed.
 */
import { BIGINT, VARCHAR, type DuckDBConnection } from '@duckdb/node-api';
import { OpenRollups } from '../../rollup-ladder.js';
import { packCells, unpackCells, type Cell, type Level, type RollupRow, type RowKey, type SeriesTally } from '../../rollup.js';
import type { RollupsQuery } from '../store.js';
import type { ClosedRow } from './rollup-tables.js';
import { runKept } from './statements.js';

/** What a read takes of the open windows. */
export interface OpenSnapshot {
  /** Open rows that the query asks for, with all their cells. */
  readonly rows: readonly RollupRow[];
  /** Rows that are closed later than this are among the open ones: see the column `closed`. */
  readonly closedMax: number;
}

/** Rows to close at once, unless time or the journal's length calls for it. */
const closingMin = 2000;
/** Length of the journal that calls for closing what can be closed, in characters. */
const journalLengthMax = 8_000_000;
/** Time after which windows that can be closed are, however few, in milliseconds. */
const closeEveryMs = 10_000;
/** Rows in one row of the journal. */
const rowsPerEntry = 500;

/** The open windows of one open file. */
export class OpenWindows {
  readonly #byImport = new Map<number, OpenRollups>();
  #closedMax: number;
  #journalLength = 0;
  #foldedMs = -Infinity;

  private constructor(closedMax: number) {
    this.#closedMax = closedMax;
  }

  /** Reads the journal of a file, as its last process left it. */
  static async load(connection: Pick<DuckDBConnection, 'run'>): Promise<OpenWindows> {
    const [row] = await (await connection.run('SELECT greatest((SELECT coalesce(max(closed), 0) FROM request_rollup), (SELECT coalesce(max(closed), 0) FROM host_rollup))')).getRows();
    const windows = new OpenWindows(Number(row![0]));
    const entries = await (await connection.run('SELECT import_id, packed FROM rollup_journal')).getRows();
    for (const [importId, packed] of entries as [bigint, string][]) {
      windows.#journalLength += packed.length;
      windows.#replay(Number(importId), packed);
    }
    return windows;
  }

  /** Writes what tallies add to the journal. To be called in the transaction of their batch, and `merge` once it is committed. */
  async journal(connection: DuckDBConnection, tallies: readonly SeriesTally[], importId: number, nowMs: number): Promise<void> {
    for (let from = 0; from < tallies.length; from += tallyLines) await this.#addEntry(connection, importId, [`at\t${nowMs}`, ...tallies.slice(from, from + tallyLines).map(tallyLine)]);
  }

  /** Adds tallies to the open rows. Returns the keys of those that changed. */
  merge(tallies: readonly SeriesTally[], importId: number, nowMs: number): RowKey[] {
    return this.#openOf(importId).merge(tallies, nowMs);
  }

  /** The rows that are to be closed now; none as long as it is not worth a transaction. */
  closing(nowMs: number): ClosedRow[] {
    const closing = [...this.#byImport].flatMap(([importId, open]) => open.closing(nowMs).map((row) => ({ importId, row })));
    const isDue = closing.length >= closingMin || this.#journalLength > journalLengthMax || Math.abs(nowMs - this.#foldedMs) >= closeEveryMs;
    return isDue ? closing : [];
  }

  /** Whether the journal is so long that it is to be written anew, even if no row is closed. */
  get isLong(): boolean { return this.#journalLength > 2 * journalLengthMax; }

  /** The number that closed rows get. */
  get nextClosed(): number { return this.#closedMax + 1; }

  /** Writes the journal anew, without the rows that are closed in the same transaction. */
  async rewriteJournal(connection: DuckDBConnection, closing: readonly ClosedRow[]): Promise<void> {
    await connection.run('DELETE FROM rollup_journal');
    this.#journalLength = 0;
    const closed = new Set(closing.map(({ importId, row }) => `${importId}\n${keyText(row)}`));
    for (const [importId, open] of this.#byImport) {
      let lines: string[] = [];
      for (const row of open.rows()) {
        if (closed.has(`${importId}\n${keyText(row)}`)) continue;
        if (lines.push(rowLine(row)) < rowsPerEntry) continue;
        await this.#addEntry(connection, importId, lines);
        lines = [];
      }
      if (lines.length > 0) await this.#addEntry(connection, importId, lines);
    }
  }

  /** Forgets rows, once the transaction that closed them is committed. */
  onClosed(closing: readonly ClosedRow[], nowMs: number): void {
    this.#foldedMs = nowMs;
    this.#closedMax += 1;
    const byImport = new Map<number, RollupRow[]>();
    for (const { importId, row } of closing) byImport.set(importId, [...byImport.get(importId) ?? [], row]);
    for (const [importId, rows] of byImport) {
      const open = this.#openOf(importId);
      open.close(rows);
      if (importId !== 0 && open.size === 0) this.#byImport.delete(importId);
    }
  }

  /** Forgets the open rows of an import that is taken back. */
  forget(importId: number): void {
    this.#byImport.delete(importId);
  }

  /** What a read needs of them. */
  snapshot(...queries: readonly RollupsQuery[]): OpenSnapshot {
    const rows = queries.flatMap(({ level, scope, filter: { source, host }, hosts, fromMs, toMs }) => {
      const wanted = hosts && new Set(hosts);
      const found = [...this.#byImport.values()].flatMap((open) => open.rowsIn({ level, scope, source, host, fromMs, toMs }));
      return wanted === undefined ? found : found.filter((row) => row.host !== undefined && wanted.has(row.host));
    });
    return { rows, closedMax: this.#closedMax };
  }

  /** The keys of all open rows. */
  keys(): RowKey[] {
    return [...this.#byImport.values()].flatMap((open) => open.keys());
  }

  #openOf(importId: number): OpenRollups {
    let open = this.#byImport.get(importId);
    if (open === undefined) this.#byImport.set(importId, open = new OpenRollups());
    return open;
  }

  async #addEntry(connection: DuckDBConnection, importId: number, lines: readonly string[]): Promise<void> {
    const packed = lines.join('\n');
    this.#journalLength += packed.length;
    await runKept(connection, 'INSERT INTO rollup_journal (import_id, packed) VALUES ($1, $2)', [BigInt(importId), packed], [BIGINT, VARCHAR]);
  }

  /** What it adds counts as unchanged for long: windows that are over are closed at once. */
  #replay(importId: number, packed: string): void {
    const open = this.#openOf(importId);
    const tallies: SeriesTally[] = [];
    let atMs = 0;
    for (const line of packed.split('\n')) {
      const [kind, levelText, windowText, source, host, cells] = line.split('\t') as [string, string, string, string, string, string];
      const [level, windowMs] = [Number(levelText) as Level, Number(windowText)];
      if (kind === 'at') atMs = Number(levelText);
      else if (kind === 'tally') tallies.push(...unpackCells(cells).map(({ method, status, ...tally }) => ({ series: { source, host, method, status }, level, windowMs, tally })));
      else open.mergeRow({ level, windowMs, rowId: 0, source, host: kind === 'host' ? host : undefined, cells: unpackCells(cells) }, -Infinity);
    }
    open.merge(tallies, atMs, -Infinity);
  }
}

/** Tallies in one row of the journal. */
const tallyLines = 5000;

/** No source or host has a control character: see `contract.ts`. */
function tallyLine({ series: { source, host, method, status }, level, windowMs, tally }: SeriesTally): string {
  return `tally\t${level}\t${windowMs}\t${source}\t${host}\t${packCells([{ ...tally, method, status }])}`;
}

function rowLine({ level, windowMs, source, host, cells }: RowKey & { readonly cells: Iterable<Cell> }): string {
  return `${host === undefined ? 'all' : 'host'}\t${level}\t${windowMs}\t${source}\t${host ?? ''}\t${packCells(cells)}`;
}

function keyText({ level, windowMs, source, host }: RowKey): string {
  return `${level}\n${windowMs}\n${source}\n${host === undefined ? '' : `\n${host}`}`;
}
