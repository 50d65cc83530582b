import { BIGINT, VARCHAR } from '@duckdb/node-api';
import { unpackCells } from '../../../rollup/cells.js';
import { levels, windowStart, type Level, type RollupRow, type RowKey } from '../../../rollup/rollup.js';
import { filteredRow, readsByClass, refuseRollups, rowFilter, wholeWindows } from '../../rollups-query.js';
import type { RollupsQuery, StoredWindows, TimeRange } from '../../store.js';
import { texts } from '../columns.js';
import type { OpenSnapshot } from '../open-windows.js';
import type { Query, Read } from '../read-pool.js';
import { levelSql } from '../rollup-folds.js';
import { rollupTables } from '../rollup-tables.js';
import { BoundValues } from './bound-values.js';
import { seriesConditions, windowsIn } from './conditions.js';
import { inTurns } from './in-turns.js';
import { inPages, limitSql, type ConditionsOf, type Page } from './pages.js';

/** Maximum number of rows per page. Bounds the memory of a read, however many windows and series its range has. */
const rollupRowsPerPage = 20_000;

/** See `Store.streamRollups`. `open` has the rows of open windows. */
export async function* streamRollups(
  read: Read,
  rollupsQuery: RollupsQuery,
  open: OpenSnapshot,
  rowsPerPage = rollupRowsPerPage,
): AsyncGenerator<RollupRow[]> {
  const { level, scope, filter, hosts } = rollupsQuery;
  refuseRollups(rollupsQuery);
  const { fromMs, toMs } = wholeWindows(rollupsQuery, level);
  const conditionsOf = (values: BoundValues): string[] => [
    levelSql({ scope, level }, open.folded, values),
    `closed <= ${values.add(BigInt(open.closedMax), BIGINT)}`,
    ...seriesConditions(rowFilter(filter), values),
    ...(hosts === undefined
      ? []
      : [`host IN (${[...hosts.map((host) => values.add(host, VARCHAR)), 'NULL'].join(', ')})`]),
  ];
  const readPage = async (query: Query, page: TimeRange, rowsMax: number): Promise<Page<RollupRow>> => {
    const closed = await rollupsBetween(
      query,
      { ...page, level, scope, byClass: readsByClass(rollupsQuery) },
      conditionsOf,
      rowsMax,
    );
    const rows = [
      ...closed.flatMap((row) => filteredRow(row, filter)),
      ...open.rows.filter(({ windowMs }) => windowMs >= page.fromMs && windowMs < page.toMs),
    ];
    return { rows, rowsRead: closed.length };
  };
  yield* inPages(read, rollupTables[scope], { fromMs, toMs }, { level, conditionsOf, rowsPerPage, readPage });
}

async function rollupsBetween(
  query: Query,
  { level, scope, byClass = false, ...range }: TimeRange & Pick<RollupsQuery, 'level' | 'scope' | 'byClass'>,
  conditionsOf: ConditionsOf,
  rowsMax: number,
): Promise<RollupRow[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, ${texts('source')}, ${byClass ? "CASE WHEN classes = '' THEN cells ELSE classes END" : 'cells'}${scope === 'host' ? `, ${texts('host')}` : ''} FROM ${rollupTables[scope]} WHERE ${where.join(' AND ')} ${limitSql(rowsMax, values)}`,
  );
  const [windowMs, source, cells, host] = columns as [bigint[], string[], string[], string[]?];
  return await inTurns(windowMs, (start, at) => ({
    level,
    windowMs: windowStart(Number(start), level),
    rowId: 0,
    source: source[at]!,
    host: host?.[at],
    cells: unpackCells(cells[at]!),
  }));
}

/** See `Store.readStoredWindows`. `open` are the keys of open windows. */
export async function readStoredWindows(
  query: Query,
  open: readonly RowKey[],
): Promise<ReadonlyMap<string, StoredWindows>> {
  const values = new BoundValues();
  const oldestSql = levels.map((level) => `min(window_ms) FILTER (level = ${level})`).join(', ');
  // Bind a value: DuckDB 1.5.5 does not plan a statement without one again, then groups by outdated statistics, and
  // returns wrong sources.
  const all = `window_ms >= ${values.add(0n, BIGINT)}`;
  const [source = [], newestMs = [], ...oldestMs] = (await values.columnsOf(
    query,
    `SELECT ${texts('source')}, max(window_ms), ${oldestSql} FROM request_rollup WHERE ${all} GROUP BY source`,
  )) as [string[]?, bigint[]?, ...(bigint | null)[][]];
  const found = new Map<string, { oldest: Map<Level, number>; newestMs: number }>();
  const add = (name: string, level: Level, windowMs: number): void => {
    let ofSource = found.get(name);
    if (ofSource === undefined) found.set(name, (ofSource = { oldest: new Map(), newestMs: -Infinity }));
    ofSource.oldest.set(level, Math.min(ofSource.oldest.get(level) ?? Infinity, windowMs));
    ofSource.newestMs = Math.max(ofSource.newestMs, windowMs);
  };
  for (const [at, name] of source.entries()) {
    for (const [index, level] of levels.entries()) {
      const windowMs = oldestMs[index]![at];
      if (typeof windowMs === 'bigint') add(name, level, Number(windowMs));
    }
    found.get(name)!.newestMs = Number(newestMs[at]!);
  }
  for (const { source: name, level, windowMs } of open) add(name, level, windowMs);
  // Rows that are not folded yet count at coarser levels, too.
  for (const { oldest } of found.values()) {
    for (const [at, level] of levels.entries()) {
      const finer = oldest.get(levels[at - 1]!);
      if (finer !== undefined) oldest.set(level, Math.min(oldest.get(level) ?? Infinity, windowStart(finer, level)));
    }
  }
  return found;
}
