import { inflateSync } from 'node:zlib';
import { INTEGER, VARCHAR, type DuckDBBlobValue } from '@duckdb/node-api';
import type { TopKind, TopLevel, TopRow } from '../../../top-list/top-row.js';
import type { TimeRange, TopListsQuery } from '../../store.js';
import { texts } from '../columns.js';
import type { Query, Read } from '../read-pool.js';
import { BoundValues } from './bound-values.js';
import { seriesConditions, windowsIn } from './conditions.js';
import { inTurns, topRowsPerTurn } from './in-turns.js';
import { inPages, limitSql, type ConditionsOf, type Page } from './pages.js';

/** Top lists per page. One takes 5 to 15 kB. */
const topRowsPerPage = 2000;

/** See `Store.streamTopLists`. */
export async function* streamTopLists(
  read: Read,
  { level, kinds, filter, ...range }: TopListsQuery,
  rowsPerPage = topRowsPerPage,
): AsyncGenerator<TopRow[]> {
  if (kinds.length === 0) return;
  const conditionsOf = (values: BoundValues): string[] => [
    `level = ${values.add(level, INTEGER)}`,
    `kind IN (${kinds.map((kind) => values.add(kind, VARCHAR)).join(', ')})`,
    ...seriesConditions(filter, values),
  ];
  const readPage = async (query: Query, page: TimeRange, rowsMax: number): Promise<Page<TopRow>> => {
    const rows = await topListsBetween(query, { ...page, level }, conditionsOf, rowsMax);
    return { rows, rowsRead: rows.length };
  };
  yield* inPages(read, 'request_top', range, { level, conditionsOf, rowsPerPage, readPage });
}

async function topListsBetween(
  query: Query,
  { level, ...range }: TimeRange & { level: TopLevel },
  conditionsOf: ConditionsOf,
  rowsMax: number,
): Promise<TopRow[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, row_id, ${texts('source', 'host')}, kind, packed FROM request_top WHERE ${where.join(' AND ')} ${limitSql(rowsMax, values)}`,
  );
  const [windowMs, rowId, source, host, kind, packed] = columns as [
    bigint[],
    bigint[],
    string[],
    string[],
    TopKind[],
    DuckDBBlobValue[],
  ];
  return await inTurns(
    windowMs,
    (start, at) => ({
      level,
      windowMs: Number(start),
      rowId: Number(rowId[at]!),
      source: source[at]!,
      host: host[at]!,
      kind: kind[at]!,
      packed: textOf(packed[at]!),
    }),
    topRowsPerTurn,
  );
}

/** Decodes a stored list or sketch: see `schema.ts`. */
function textOf({ bytes }: DuckDBBlobValue): string {
  return (bytes[0] === zlibFirstByte ? inflateSync(bytes) : Buffer.from(bytes)).toString('utf8');
}

const zlibFirstByte = 0x78;
