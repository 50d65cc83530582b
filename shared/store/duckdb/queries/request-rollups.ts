import { emptyAggregate, type Cell, type RollupRow } from '../../../rollup/rollup.js';
import { bucketOfDurationSql } from '../../../sketch/histogram.js';
import { methodWithoutLatency, statusesWithoutLatency } from '../../../status.js';
import type { RollupsQuery } from '../../store.js';
import { texts } from '../columns.js';
import type { Query } from '../read-pool.js';
import { BoundValues } from './bound-values.js';
import { nsPerMs, requestConditions } from './conditions.js';

/**
 * See `Store.rollUpRequests`. DuckDB aggregates by window, series and bucket, so all requests are counted and none is
 * returned.
 */
export async function rollUpRequests(
  query: Query,
  { fromMs, toMs, level, scope, filter }: RollupsQuery,
): Promise<{ rows: RollupRow[]; isBounded: boolean }> {
  const values = new BoundValues();
  const lengthMs = BigInt(level) * 1000n;
  const host = scope === 'host' ? 'host, ' : '';
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, ${texts('source', 'method')}, status_code, bucket, "count", duration_ms_sum, duration_ms_max, size_sum${scope === 'host' ? `, ${texts('host')}` : ''} FROM (
       SELECT time_ns // ${lengthMs * nsPerMs} * ${lengthMs} AS window_ms, source, ${host}method, status_code, ${aggregateSql}
       FROM request_metrics WHERE ${requestConditions({ fromMs, toMs, filter }, values)} GROUP BY ALL
     )`,
  );
  const [windowMs, source, method, status, bucket, count, durationSumMs, durationMaxMs, sizeSum, hosts] = columns as [
    bigint[],
    string[],
    string[],
    number[],
    (number | null)[],
    bigint[],
    number[],
    number[],
    number[],
    string[]?,
  ];
  const rows = new Map<string, RollupRow & { readonly cells: Cell[] }>();
  const cells = new Map<string, Cell>();
  for (const [at, start] of windowMs.entries()) {
    const rowKey = `${start}\n${source[at]!}\n${hosts?.[at]}`;
    const cellKey = `${rowKey}\n${status[at]!}\n${method[at]!}`;
    let cell = cells.get(cellKey);
    if (cell === undefined) {
      cells.set(cellKey, (cell = { method: method[at]!, status: status[at]!, ...emptyAggregate() }));
      let row = rows.get(rowKey);
      if (row === undefined)
        rows.set(
          rowKey,
          (row = { level, windowMs: Number(start), rowId: 0, source: source[at]!, host: hosts?.[at], cells: [] }),
        );
      row.cells.push(cell);
    }
    cell.count += Number(count[at]!);
    cell.sizeSum += sizeSum[at]!;
    if (bucket[at] === null) continue;
    cell.durationSumMs += durationSumMs[at]!;
    cell.durationMaxMs = Math.max(cell.durationMaxMs, durationMaxMs[at]!);
    cell.histogram.addBucket(bucket[at]!, Number(count[at]!));
  }
  return { rows: [...rows.values()], isBounded: false };
}

/** Columns that aggregate a group of requests. Group by bucket as well. */
export const aggregateSql = `CASE WHEN status_code NOT IN (${statusesWithoutLatency.join(', ')}) AND method <> '${methodWithoutLatency}' THEN ${bucketOfDurationSql('duration_ms')} END AS bucket,
  count(*) AS "count", sum(duration_ms) AS duration_ms_sum, max(duration_ms) AS duration_ms_max, sum(size)::DOUBLE AS size_sum`;
