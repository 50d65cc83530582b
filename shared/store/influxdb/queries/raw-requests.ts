import { flux, fluxDateTime, type ParameterizedQuery } from '@influxdata/influxdb-client';
import type { RequestEvent } from '../../../request-event.js';
import type { Filter, TimeRange } from '../../store.js';
import { fluxText } from '../flux-text.js';
import { parseTimestamp, textOfTag, textOfUri } from '../line-values.js';
import { andFields, andSeries, havingFields } from './conditions.js';
import type { ReadCells } from './read-cells.js';

const sliceMsFirst = 1000;
const sliceGrowth = 60;

/**
 * See `Store.readRequests`. Sorting a long range would read all of it. So the range is searched from its end for the
 * times of the newest requests, first a second, then sixty times as much in each step. Only their rows are read.
 */
export async function readRequests(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<RequestEvent[]> {
  const rows: RequestEvent[] = [];
  for (
    let endMs = toMs, lengthMs = sliceMsFirst;
    endMs > fromMs && rows.length < limit;
    endMs -= lengthMs, lengthMs *= sliceGrowth
  ) {
    const slice = { fromMs: Math.max(fromMs, endMs - lengthMs), toMs: endMs };
    rows.push(...(await readNewest(read, bucket, { ...slice, filter, limit: limit - rows.length })));
  }
  return rows;
}

async function readNewest(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<RequestEvent[]> {
  const requestsSince = (start: unknown): ParameterizedQuery => flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${start}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_metrics"${andSeries(filter)})`;
  let oldest: string | undefined;
  const oldestQuery = flux`${requestsSince(new Date(fromMs))}${havingFields(filter)}
  |> keep(columns: ["_time"])
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: ${limit})
  |> tail(n: 1)`;
  await read(oldestQuery, ['_time'], ([time]) => {
    oldest = time;
  });
  if (oldest === undefined) return [];

  const rows: RequestEvent[] = [];
  // A row that lacks a field is still being written. One JSON text per row, because InfluxDB's CSV drops every CR and
  // inserts one before every LF.
  const rowsQuery = flux`import "json"
${requestsSince(fluxDateTime(oldest))}
  |> drop(columns: ["_start", "_stop", "_measurement"])
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.uri and exists r.size and exists r.bytes_read${andFields(filter)})
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: ${limit})
  |> map(fn: (r) => ({json: string(v: json.encode(v: r))}))`;
  await read(rowsQuery, ['json'], ([json]) => {
    rows.push(requestOf(JSON.parse(json!) as StoredRequest));
  });
  return rows;
}

/**
 * A row of `request_metrics` from `json.encode`. A field that only some rows have is `null`; one that no row has is
 * missing.
 */
interface StoredRequest {
  _time: string;
  source?: string | null;
  host?: string | null;
  method?: string | null;
  status_code: string;
  endpoint?: string | null;
  uri: string;
  duration_ms?: number | null;
  size: number;
  bytes_read: number;
  client_ip?: string | null;
  user_agent?: string | null;
  referrer?: string | null;
  protocol?: string | null;
  tls?: string | null;
  upstream_ms?: number | null;
  request_id?: string | null;
  error?: string | null;
  error_id?: string | null;
  upstream?: string | null;
  retries?: number | null;
  content_type?: string | null;
}

function requestOf(row: StoredRequest): RequestEvent {
  return {
    source: textOfTag(row.source),
    ...parseTimestamp(row._time),
    host: textOfTag(row.host),
    method: textOfTag(row.method),
    status: Number(row.status_code),
    durationMs: row.duration_ms ?? null,
    size: row.size,
    bytesRead: row.bytes_read,
    uri: textOfUri(row.uri),
    endpoint: textOfTag(row.endpoint),
    clientIp: row.client_ip ?? '',
    userAgent: row.user_agent ?? '',
    referrer: row.referrer ?? '',
    protocol: row.protocol ?? '',
    tls: row.tls ?? '',
    upstreamMs: row.upstream_ms ?? null,
    requestId: row.request_id ?? '',
    error: row.error ?? '',
    errorId: row.error_id ?? '',
    upstream: row.upstream ?? '',
    retries: row.retries ?? null,
    contentType: row.content_type ?? '',
  };
}
