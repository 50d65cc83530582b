import { BIGINT } from '@duckdb/node-api';
import type { RequestEvent } from '../../../request-event.js';
import type { Filter, TimeRange } from '../../store.js';
import { texts } from '../columns.js';
import type { Query, Read } from '../read-pool.js';
import { requestOf } from '../request-appender.js';
import { BoundValues } from './bound-values.js';
import { filterConditions, requestConditions } from './conditions.js';
import { inTurns } from './in-turns.js';

/** Target size of a page of requests: sixteen concurrent answers with URIs of 8 kB then take about 10 MB. */
const requestPageCharactersMax = 262_144;
/** Rows in the first page of requests, when their length is still unknown. */
const firstRequests = 64;
const requestsPerPageMax = 1024;
/** Up to this limit, DuckDB sorts before it reads the other columns: its default of `late_materialization_max_rows`. */
const lateRowsMax = 50;

/**
 * See `Store.streamRequests`. Reads the times of the newest `limit` requests first, then the rows page by page: sorting
 * whole rows, of up to 20 kB each, would exhaust DuckDB's memory.
 */
export async function* streamRequests(
  read: Read,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
  rowsPerPageMax = requestsPerPageMax,
): AsyncGenerator<RequestEvent[]> {
  if (limit <= lateRowsMax) {
    yield await read((query) =>
      newestRequests(query, limit, (values) => requestConditions({ fromMs, toMs, filter }, values)),
    );
    return;
  }
  const times = await read((query) => newestTimes(query, { fromMs, toMs, filter, limit }));
  let rowsPerPage = Math.min(firstRequests, rowsPerPageMax);
  for (let from = 0; from < times.length; ) {
    let to = Math.min(from + rowsPerPage, times.length);
    while (to < times.length && times[to] === times[to - 1]) to += 1; // requests with equal times stay together
    const [newestNs, oldestNs] = [times[from]!, times[to - 1]!];
    const whereOf = (values: BoundValues): string =>
      filterConditions(
        filter,
        [`time_ns BETWEEN ${values.add(oldestNs, BIGINT)} AND ${values.add(newestNs, BIGINT)}`],
        values,
      );
    const rows = to - from;
    const page = await read((query) => newestRequests(query, rows, whereOf));
    rowsPerPage = nextPageRows(page, rowsPerPageMax);
    yield page;
    from = to;
  }
}

/** Estimates the rows of the next page from the length of these. At most doubles: the next requests may be longer. */
function nextPageRows(page: readonly RequestEvent[], rowsMax: number): number {
  if (page.length === 0) return rowsMax; // all were deleted in the meantime
  const characters = page.reduce(
    (sum, { uri, endpoint, userAgent, referrer }) =>
      sum + uri.length + endpoint.length + userAgent.length + referrer.length,
    0,
  );
  const fitting = Math.floor(requestPageCharactersMax / Math.max(1, characters / page.length));
  return Math.max(1, Math.min(fitting, 2 * page.length, rowsMax));
}

async function newestTimes(
  query: Query,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<bigint[]> {
  const values = new BoundValues();
  const where = requestConditions({ fromMs, toMs, filter }, values);
  const [times] = await values.columnsOf(
    query,
    `SELECT time_ns FROM request_metrics WHERE ${where} ORDER BY time_ns DESC LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  return times as bigint[];
}

async function newestRequests(
  query: Query,
  limit: number,
  whereOf: (values: BoundValues) => string,
): Promise<RequestEvent[]> {
  const values = new BoundValues();
  const where = whereOf(values);
  const columns = await values.columnsOf(
    query,
    // In the order of the table's columns: see `requestOf`.
    `SELECT time_ns, ${texts('source', 'host', 'method')}, status_code, ${texts('endpoint')}, duration_ms, size, bytes_read,
       ${texts('uri', 'client_ip', 'user_agent', 'referrer', 'protocol', 'tls')}, upstream_ms, ${texts('request_id', 'error', 'error_id', 'upstream')}, retries, ${texts('content_type')}
     FROM request_metrics WHERE ${where} ORDER BY time_ns DESC LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  const [times = []] = columns;
  return await inTurns(times, (_, at) => requestOf(columns.map((column) => column[at]!)));
}
