/** The tables of closed rollup rows, and the conversion from earlier versions. */
import { BIGINT, INTEGER, type DuckDBConnection } from '@duckdb/node-api';
import { Histogram } from '../../sketch/histogram.js';
import { CellSet } from '../../rollup/cell-set.js';
import type { Log } from '../../log.js';
import { nextTurn } from '../../next-turn.js';
import { byStatusClass, countsOf, packCells, type CellCounts } from '../../rollup/cells.js';
import { importRowRange, retainedLevels, levels, scopes, type RowKey, type Scope } from '../../rollup/rollup.js';
import { insertSql, texts, writeRows, type Column } from './columns.js';

/** A row of either table, without its column `closed`. */
export interface StoredRow extends RowKey, CellCounts {
  /** The import that it belongs to; 0 if there is none. */
  readonly importId: number;
  /** See `packCells`. */
  readonly cells: string;
  /** The cells merged by status class, if there are more than a few; otherwise `''`. Always `''` for scope `all`. */
  readonly classes: string;
}

/** Maximum number of cells that are not merged by class: it would hardly save anything. */
const fewCells = 4;

/** The tables of each scope. */
export const rollupTables: Readonly<Record<Scope, 'request_rollup' | 'host_rollup'>> = {
  all: 'request_rollup',
  host: 'host_rollup',
};

/** Creates a row with the counts of its cells. */
export function storedRow({ level, windowMs, source, host }: RowKey, cells: CellSet, importId: number): StoredRow {
  return {
    level,
    windowMs,
    source,
    host,
    importId,
    ...countsOf(cells),
    cells: packCells(cells),
    classes: host === undefined || cells.size <= fewCells ? '' : packCells(byStatusClass(cells)),
  };
}

function compareRows(one: RowKey, other: RowKey): number {
  return one.level - other.level || one.windowMs - other.windowMs;
}

const rollupColumns: readonly Column<StoredRow>[] = [
  ['level', 'INTEGER', ({ level }) => level],
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['source', 'VARCHAR', ({ source }) => source],
  ['import_id', 'BIGINT', ({ importId }) => importId],
  ['requests', 'BIGINT', ({ requests }) => requests],
  ['errors', 'BIGINT', ({ errors }) => errors],
  ['client_errors', 'BIGINT', ({ clientErrors }) => clientErrors],
  ['sampled_out', 'BIGINT', ({ sampledOut }) => sampledOut],
  ['size_sum', 'DOUBLE', ({ sizeSum }) => sizeSum],
  ['cells', 'VARCHAR', ({ cells }) => cells],
];

const hostRollupColumns: typeof rollupColumns = [
  ...rollupColumns,
  ['host', 'VARCHAR', ({ host }) => host!],
  ['classes', 'VARCHAR', ({ classes }) => classes],
];

/** Rows per statement: limits the size of the bound texts. */
const rowsPerStatement = 5000;

/**
 * Prepares the statements, and returns a function that writes rows with a value of `closed`. Call that in a
 * transaction.
 */
export async function createRollupWriter(
  connection: DuckDBConnection,
): Promise<(rows: readonly StoredRow[], closed: number) => Promise<void>> {
  let closed = 0;
  const closedColumn: Column<StoredRow> = ['closed', 'BIGINT', () => closed];
  const [columns, columnsOfHosts] = [
    [...rollupColumns, closedColumn],
    [...hostRollupColumns, closedColumn],
  ];
  const insert = await connection.prepare(insertSql('request_rollup', columns));
  const insertOfHosts = await connection.prepare(insertSql('host_rollup', columnsOfHosts));
  return async (rows, closedOfRows) => {
    closed = closedOfRows;
    const sorted = rows.toSorted(compareRows);
    await writeRows(
      insert,
      columns,
      sorted.filter(({ host }) => host === undefined),
      rowsPerStatement,
    );
    await writeRows(
      insertOfHosts,
      columnsOfHosts,
      sorted.filter(({ host }) => host !== undefined),
      rowsPerStatement,
    );
  };
}

/** Series of one page of a conversion, and of one turn of the event loop. */
const seriesPerPage = 20_000;
const rowsPerTurn = 2000;
/** Interval between two messages about the progress of a conversion, in milliseconds. */
const progressEveryMs = 5000;

/**
 * Converts and drops the table `series_rollup`, which had a row per host, method and status. Rows of hosts beyond the
 * retention of this version are dropped; rows of sources are complete. Logs its progress. Call it in a transaction.
 */
export async function convertSeriesRollups(
  connection: DuckDBConnection,
  { nowMs, log }: { nowMs: number; log: Pick<Log, 'info'> },
): Promise<void> {
  const [all] = (await (await connection.run('SELECT count(*) FROM series_rollup')).getRows())[0] as [bigint];
  let done = 0;
  let loggedMs = performance.now();
  if (all > seriesPerPage)
    log.info(
      'Converting rollups of an earlier version. Until this is done, no lines are accepted and no pages are served.',
      { rows: Number(all) },
    );
  const write = await createRollupWriter(connection);
  const imports = (await (await connection.run('SELECT DISTINCT import_id FROM imported_request')).getRows())
    .map(([id]) => Number(id))
    .map((importId) => ({ importId, ...importRowRange(importId) }));
  for (const level of levels) {
    const windows = (await (
      await connection.run(
        'SELECT window_ms, count(*) FROM series_rollup WHERE level = $1 GROUP BY window_ms ORDER BY window_ms',
        [level],
        [INTEGER],
      )
    ).getRows()) as [bigint, bigint][];
    for (let at = 0; at < windows.length; ) {
      const from = at;
      for (
        let series = 0;
        at < windows.length && (at === from || series + Number(windows[at]![1]) <= seriesPerPage);
        at += 1
      )
        series += Number(windows[at]![1]);
      await convertPage([windows[from]![0], windows[at - 1]![0]]);
    }

    async function convertPage(page: [bigint, bigint]): Promise<void> {
      const rows = (await (
        await connection.run(
          `SELECT window_ms, row_id, ${texts('source', 'host', 'method')}, status_code, "count", sampled_out, duration_ms_sum, duration_ms_max, size_sum, histogram
         FROM series_rollup WHERE level = $1 AND window_ms BETWEEN $2 AND $3`,
          [level, ...page],
          [INTEGER, BIGINT, BIGINT],
        )
      ).getRows()) as [
        bigint,
        bigint,
        string,
        string,
        string,
        number,
        bigint,
        bigint,
        number,
        number,
        number,
        string,
      ][];
      const converted = new Map<string, { readonly importId: number; readonly row: RowKey; readonly cells: CellSet }>();
      for (const [
        window,
        rowId,
        source,
        host,
        method,
        status,
        count,
        sampledOut,
        durationSumMs,
        durationMaxMs,
        sizeSum,
        histogram,
      ] of rows) {
        done += 1;
        if (done % rowsPerTurn === 0) await nextTurn();
        const importId =
          imports.find(({ from: first, to }) => Number(rowId) >= first && Number(rowId) < to)?.importId ?? 0;
        const windowMs = Number(window);
        const aggregate = {
          count: Number(count),
          sampledOut: Number(sampledOut),
          durationSumMs,
          durationMaxMs,
          sizeSum,
          histogram: Histogram.unpack(histogram),
        };
        for (const scope of scopes) {
          if (scope === 'host' && !retainedLevels(nowMs - windowMs, scope).includes(level)) continue;
          const ofHost = scope === 'host' ? host : undefined;
          const key = `${importId}\n${windowMs}\n${source}${ofHost === undefined ? '' : `\n${ofHost}`}`;
          let found = converted.get(key);
          if (found === undefined) {
            converted.set(
              key,
              (found = { importId, row: { level, windowMs, source, host: ofHost }, cells: new CellSet() }),
            );
          }
          found.cells.add(method, status, aggregate);
        }
      }
      await write(
        [...converted.values()].map(({ importId, row, cells }) => storedRow(row, cells, importId)),
        0,
      );
      if (performance.now() - loggedMs < progressEveryMs) return;
      loggedMs = performance.now();
      log.info('Converting rollups of an earlier version.', { done: `${Math.floor((100 * done) / Number(all))}%` });
    }
  }
  await connection.run('DROP TABLE series_rollup');
}
