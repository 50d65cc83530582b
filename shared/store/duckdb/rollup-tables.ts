/** The tables of closed rollup rows, and how rows of earlier versions become theirs. */
import { BIGINT, INTEGER, type DuckDBConnection } from '@duckdb/node-api';
import { Histogram } from '../../histogram.js';
import { addTally, emptyTally, importRowRange, keptLevels, levels, packCells, type Cell, type RollupRow, type Scope } from '../../rollup.js';
import { insertSql, writeRows, type Column } from './columns.js';

/** A row that is closed, with the import that it belongs to; 0 for none. */
export interface ClosedRow {
  readonly importId: number;
  readonly row: RollupRow;
}

interface ClosingRow extends ClosedRow {
  readonly closed: number;
  readonly requests: number;
  readonly errors: number;
  readonly clientErrors: number;
  readonly sampledOut: number;
  readonly sizeSum: number;
}

function countsOf({ row: { cells } }: ClosedRow): Omit<ClosingRow, 'closed' | keyof ClosedRow> {
  const counts = { requests: 0, errors: 0, clientErrors: 0, sampledOut: 0, sizeSum: 0 };
  for (const { status, count, sampledOut, sizeSum } of cells) {
    counts.requests += count;
    if (status >= 500 && status <= 599) counts.errors += count;
    if (status >= 400 && status <= 499) counts.clientErrors += count;
    counts.sampledOut += sampledOut;
    counts.sizeSum += sizeSum;
  }
  return counts;
}

function byWindow({ row: one }: ClosedRow, { row: other }: ClosedRow): number {
  return one.level - other.level || one.windowMs - other.windowMs;
}

const rollupColumns: readonly Column<ClosingRow>[] = [
  ['level', 'INTEGER', ({ row }) => row.level],
  ['window_ms', 'BIGINT', ({ row }) => row.windowMs],
  ['source', 'VARCHAR', ({ row }) => row.source],
  ['import_id', 'BIGINT', ({ importId }) => importId],
  ['requests', 'BIGINT', ({ requests }) => requests],
  ['errors', 'BIGINT', ({ errors }) => errors],
  ['client_errors', 'BIGINT', ({ clientErrors }) => clientErrors],
  ['sampled_out', 'BIGINT', ({ sampledOut }) => sampledOut],
  ['size_sum', 'DOUBLE', ({ sizeSum }) => sizeSum],
  ['cells', 'VARCHAR', ({ row }) => packCells(row.cells)],
  ['closed', 'BIGINT', ({ closed }) => closed],
];

const hostRollupColumns: readonly Column<ClosingRow>[] = [...rollupColumns, ['host', 'VARCHAR', ({ row }) => row.host!]];

/** Bounds the texts that are built at once. */
const rowsPerStatement = 5000;

/** Makes what writes closed rows. The connection must be in a transaction by then. */
export async function createRollupWriter(connection: DuckDBConnection): Promise<(rows: readonly ClosedRow[], closed: number) => Promise<void>> {
  const insert = await connection.prepare(insertSql('request_rollup', rollupColumns));
  const insertOfHosts = await connection.prepare(insertSql('host_rollup', hostRollupColumns));
  return async (rows, closed) => {
    const closing = rows.map((each): ClosingRow => ({ ...each, ...countsOf(each), closed })).sort(byWindow);
    await writeRows(insert, rollupColumns, closing.filter(({ row }) => row.host === undefined), rowsPerStatement);
    await writeRows(insertOfHosts, hostRollupColumns, closing.filter(({ row }) => row.host !== undefined), rowsPerStatement);
  };
}

/** Series of one page of a conversion. */
const seriesPerPage = 20_000;

/**
 * Converts the table `series_rollup`, which had a row for each host, method and status, and drops it. Rows of hosts that this version no longer keeps at a
 * level are left out; all totals stay. To be called in a transaction.
 */
export async function convertSeriesRollups(connection: DuckDBConnection, nowMs: number): Promise<void> {
  const write = await createRollupWriter(connection);
  const imports = (await (await connection.run('SELECT DISTINCT import_id FROM imported_request')).getRows()).map(([id]) => Number(id)).map((importId) => ({ importId, ...importRowRange(importId) }));
  for (const level of levels) {
    const windows = await (await connection.run('SELECT window_ms, count(*) FROM series_rollup WHERE level = $1 GROUP BY window_ms ORDER BY window_ms', [level], [INTEGER])).getRows() as [bigint, bigint][];
    for (let at = 0; at < windows.length;) {
      const from = at;
      for (let series = 0; at < windows.length && (at === from || series + Number(windows[at]![1]) <= seriesPerPage); at += 1) series += Number(windows[at]![1]);
      await convertPage([windows[from]![0], windows[at - 1]![0]]);
    }

    async function convertPage(page: [bigint, bigint]): Promise<void> {
      const rows = await (await connection.run(
        `SELECT window_ms, row_id, source, host, method, status_code, "count", sampled_out, duration_ms_sum, duration_ms_max, size_sum, histogram
         FROM series_rollup WHERE level = $1 AND window_ms BETWEEN $2 AND $3`, [level, ...page], [INTEGER, BIGINT, BIGINT],
      )).getRows() as [bigint, bigint, string, string, string, number, bigint, bigint, number, number, number, string][];
      const converted = new Map<string, { readonly importId: number; readonly row: RollupRow; readonly cells: Map<string, Cell> }>();
      for (const [window, rowId, source, host, method, status, count, sampledOut, durationSumMs, durationMaxMs, sizeSum, histogram] of rows) {
        const importId = imports.find(({ from: first, to }) => Number(rowId) >= first && Number(rowId) < to)?.importId ?? 0;
        const windowMs = Number(window);
        const tally = { count: Number(count), sampledOut: Number(sampledOut), durationSumMs, durationMaxMs, sizeSum, histogram: Histogram.unpack(histogram) };
        for (const scope of scopes) {
          if (scope === 'host' && !keptLevels(nowMs - windowMs, scope).includes(level)) continue;
          const ofHost = scope === 'host' ? host : undefined;
          const key = `${importId}\n${windowMs}\n${source}${ofHost === undefined ? '' : `\n${ofHost}`}`;
          let found = converted.get(key);
          if (found === undefined) {
            converted.set(key, found = { importId, row: { level, windowMs, rowId: 0, source, host: ofHost, cells: [] }, cells: new Map() });
          }
          const cellKey = `${status} ${method}`;
          const cell = found.cells.get(cellKey) ?? { method, status, ...emptyTally() };
          found.cells.set(cellKey, cell);
          addTally(cell, tally);
        }
      }
      await write([...converted.values()].map(({ importId, row, cells }) => ({ importId, row: { ...row, cells: [...cells.values()] } })), 0);
    }
  }
  await connection.run('DROP TABLE series_rollup');
}

const scopes: readonly Scope[] = ['all', 'host'];
