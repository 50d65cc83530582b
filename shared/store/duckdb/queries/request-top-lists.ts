import { BIGINT, type DuckDBValue } from '@duckdb/node-api';
import { Histogram } from '../../../sketch/histogram.js';
import { byCount, shortValue, valueLengthMax, type TopEntry } from '../../../sketch/space-saving.js';
import { serverErrors } from '../../../status.js';
import type { RequestLists } from '../../../top-list/top-lists-of-requests.js';
import { requestDimensions, type RequestDimension } from '../../../top-list/top-row.js';
import type { Filter, Store, TimeRange } from '../../store.js';
import { texts } from '../columns.js';
import type { Query } from '../read-pool.js';
import { BoundValues } from './bound-values.js';
import { nsPerMs, requestConditions } from './conditions.js';
import { aggregateSql } from './request-rollups.js';

/** Maximum number of requests listed: about a second of work. */
const listedMax = 500_000;

/**
 * See `Store.topListsOfRequests`. DuckDB counts by value and bucket. Of more than `requestsMax` requests it counts the
 * newest, to the nearest thousandth of the range.
 */
export async function topListsOfRequests(
  query: Query,
  { fromMs, toMs, filter, kinds, valuesMax }: Parameters<Store['topListsOfRequests']>[0],
  requestsMax = listedMax,
): ReturnType<Store['topListsOfRequests']> {
  const newest = await newestPart(query, { fromMs, toMs, filter }, requestsMax);
  const values = new BoundValues();
  const where = requestConditions({ fromMs: newest.fromMs, toMs, filter }, values);
  const dimensions = requestDimensions.filter((dimension) => kinds.includes(dimension));
  const rowsMax = values.add(BigInt(valuesMax), BIGINT);
  const parts = [
    ...dimensions.map((dimension) => listSql(dimension, rowsMax)),
    ...(kinds.includes('unique_clients')
      ? [
          `SELECT 'unique_clients', source, '', count(DISTINCT client)::DOUBLE, 0, 0, 0, 0, 0, '' FROM matching WHERE client <> '' GROUP BY source`,
        ]
      : []),
  ];
  if (parts.length === 0) return { bySource: new Map(), ofNewest: newest.requests };
  const columns = await values.columnsOf(
    query,
    `WITH matching AS MATERIALIZED (
       SELECT source, method, status_code, duration_ms, size, ${requestDimensions.map((dimension) => `${shortSql(valueSql[dimension])} AS ${dimension}`).join(', ')} FROM request_metrics WHERE ${where}
     )
     SELECT kind, ${texts('source', 'value')}, total, requests, errors, size_sum, duration_ms_sum, duration_ms_max, buckets
     FROM (${parts.join(' UNION ALL ')}) AS parts (kind, source, value, total, requests, errors, size_sum, duration_ms_sum, duration_ms_max, buckets)`,
  );
  return { bySource: listsOf(columns), ofNewest: newest.requests };
}

function listsOf(columns: readonly DuckDBValue[][]): ReadonlyMap<string, RequestLists> {
  const [kind, source, value, total, count, errors, sizeSum, durationSumMs, durationMaxMs, buckets] = columns as [
    (RequestDimension | 'unique_clients')[],
    string[],
    string[],
    number[],
    number[],
    number[],
    number[],
    number[],
    number[],
    string[],
  ];
  const bySource = new Map<
    string,
    { readonly lists: Map<RequestDimension, { readonly total: number; readonly entries: TopEntry[] }>; clients: number }
  >();
  for (const [at, name] of kind.entries()) {
    let ofSource = bySource.get(source[at]!);
    if (ofSource === undefined) bySource.set(source[at]!, (ofSource = { lists: new Map(), clients: 0 }));
    if (name === 'unique_clients') {
      ofSource.clients = total[at]!;
      continue;
    }
    let list = ofSource.lists.get(name);
    if (list === undefined) ofSource.lists.set(name, (list = { total: total[at]!, entries: [] }));
    list.entries.push({
      value: shortValue(value[at]!),
      missedMax: 0,
      count: count[at]!,
      errors: errors[at]!,
      sizeSum: sizeSum[at]!,
      durationSumMs: durationSumMs[at]!,
      durationMaxMs: durationMaxMs[at]!,
      // Decoded on demand: of a thousand values, ten are shown.
      get histogram() {
        return histogramOf(buckets[at]!);
      },
    });
  }
  for (const { lists } of bySource.values()) for (const { entries } of lists.values()) entries.sort(byCount);
  return bySource;
}

/**
 * Start of the newest part of a range that has at most `requestsMax` requests, and their number; `undefined` if that is
 * the whole range.
 */
async function newestPart(
  query: Query,
  { fromMs, toMs, filter }: TimeRange & { filter: Filter },
  requestsMax: number,
): Promise<{ fromMs: number; requests: number | undefined }> {
  const sliceMs = Math.max(1, Math.ceil((toMs - fromMs) / 1000));
  const values = new BoundValues();
  const [slices, counts] = (await values.columnsOf(
    query,
    `SELECT time_ns // ${BigInt(sliceMs) * nsPerMs} AS slice, count(*) FROM request_metrics WHERE ${requestConditions({ fromMs, toMs, filter }, values)} GROUP BY slice ORDER BY slice DESC`,
  )) as [bigint[], bigint[]];
  let requests = 0;
  for (const [at, slice] of slices.entries()) {
    const more = Number(counts[at]!);
    // Always include the newest slice: otherwise there would be nothing to show.
    if (at > 0 && requests + more > requestsMax) return { fromMs: (Number(slice) + 1) * sliceMs, requests };
    requests += more;
  }
  return { fromMs, requests: undefined };
}

/** `topValueOf` as SQL. */
const valueSql: Readonly<Record<RequestDimension, string>> = {
  path: `split_part(uri, '?', 1)`,
  referrer: `split_part(split_part(referrer, '?', 1), '#', 1)`,
  user_agent: 'user_agent',
  client: 'client_ip',
  error: 'error',
  upstream: 'upstream',
};

/** `shortValue` as SQL. Counts code points; values that are longer in UTF-16 are truncated when read. */
function shortSql(expression: string): string {
  return `CASE WHEN length(${expression}) > ${valueLengthMax} THEN left(${expression}, ${valueLengthMax - 1}) || '…' ELSE ${expression} END`;
}

/**
 * The top list of each source over `matching`. Ranks values before it counts them by bucket: of hundreds of thousands,
 * only a few are needed.
 */
function listSql(dimension: RequestDimension, rowsMax: string): string {
  return `SELECT '${dimension}', source, ${dimension}, total::DOUBLE, sum("count")::DOUBLE, sum(errors)::DOUBLE, sum(size_sum),
      coalesce(sum(duration_ms_sum) FILTER (bucket IS NOT NULL), 0), coalesce(max(duration_ms_max) FILTER (bucket IS NOT NULL), 0), coalesce(string_agg(bucket || ' ' || "count", ','), '')
    FROM (
      SELECT source, ${dimension}, total, ${aggregateSql}, count(*) FILTER (status_code BETWEEN ${serverErrors.min} AND ${serverErrors.max}) AS errors FROM matching JOIN (
        SELECT source, ${dimension}, sum(count(*)) OVER (PARTITION BY source) AS total FROM matching WHERE ${dimension} <> '' GROUP BY source, ${dimension}
        QUALIFY row_number() OVER (PARTITION BY source ORDER BY count(*) DESC, ${dimension}) <= ${rowsMax}
      ) USING (source, ${dimension}) GROUP BY ALL
    ) GROUP BY source, ${dimension}, total`;
}

/** Parses `-12 3,40 1`: three requests in bucket -12, one in bucket 40. */
function histogramOf(buckets: string): Histogram {
  const histogram = new Histogram();
  for (const [, bucket, count] of buckets.matchAll(/(-?\d+) (\d+)/g))
    histogram.addBucket(Number(bucket), Number(count));
  return histogram;
}
