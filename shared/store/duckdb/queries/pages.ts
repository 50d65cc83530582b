import { BIGINT } from '@duckdb/node-api';
import type { TimeRange } from '../../store.js';
import type { Query, Read } from '../read-pool.js';
import { BoundValues } from './bound-values.js';
import { windowsIn } from './conditions.js';

/** Adds the conditions of a read besides its time range. */
export type ConditionsOf = (values: BoundValues) => string[];

/** A table whose rows belong to windows. */
export type PagedTable = 'request_rollup' | 'host_rollup' | 'request_top';

/** How to read a range page by page. */
export interface Paging<Row> {
  /** The level of the windows that a page has whole. */
  readonly level: number;
  readonly conditionsOf: ConditionsOf;
  readonly rowsPerPage: number;
  /** Reads up to `rowsMax` rows of a range from the table. */
  readonly readPage: (query: Query, range: TimeRange, rowsMax: number) => Promise<Page<Row>>;
}

/** Rows of whole windows. */
export interface Page<Row> {
  readonly rows: Row[];
  /** Number of rows read from the table: a filter by cells drops some of them, and open windows add others. */
  readonly rowsRead: number;
}

/** Reads a range page by page. Most ranges fit in one page and take a single query. */
export async function* inPages<Row>(
  read: Read,
  table: PagedTable,
  range: TimeRange,
  paging: Paging<Row>,
): AsyncGenerator<Row[]> {
  const { rows, rowsRead } = await read((query) => paging.readPage(query, range, paging.rowsPerPage + 1));
  if (rowsRead <= paging.rowsPerPage) {
    yield rows;
    return;
  }
  rows.length = 0; // free them while the pages are read
  for (const page of await pagesOfWindows(read, table, range, paging))
    yield (await read((query) => paging.readPage(query, page, Infinity))).rows;
}

/** Splits a range into pages of whole windows, with at most `rowsPerPage` rows each unless a single window has more. */
async function pagesOfWindows(
  read: Read,
  table: PagedTable,
  range: TimeRange,
  { level, conditionsOf, rowsPerPage }: Pick<Paging<unknown>, 'level' | 'conditionsOf' | 'rowsPerPage'>,
): Promise<TimeRange[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const [windows, counts] = (await read((query) =>
    values.columnsOf(
      query,
      `SELECT window_ms - window_ms % ${level * 1000} AS start, count(*) FROM ${table} WHERE ${where.join(' AND ')} GROUP BY start ORDER BY start`,
    ),
  )) as [bigint[], bigint[]];
  const pages: TimeRange[] = [];
  let { fromMs } = range;
  let rows = 0;
  for (const [at, window] of windows.entries()) {
    const count = Number(counts[at]!);
    if (rows > 0 && rows + count > rowsPerPage) {
      pages.push({ fromMs, toMs: Number(window) });
      fromMs = Number(window);
      rows = 0;
    }
    rows += count;
  }
  return [...pages, { fromMs, toMs: range.toMs }];
}

/** The `LIMIT` of a statement; empty for `Infinity`. */
export function limitSql(rowsMax: number, values: BoundValues): string {
  return rowsMax === Infinity ? '' : `LIMIT ${values.add(BigInt(rowsMax), BIGINT)}`;
}
