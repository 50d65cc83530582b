/** The bodies of the API's answers: names and shapes that users depend on. */
import type { EventRow } from '../../shared/record/event-folder.js';
import { rfc3339, type RequestEvent } from '../../shared/request-event.js';
import { ledgerJson } from '../../shared/store/ledger-json.js';
import { isoTime } from '../../shared/time-range.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';
import { shareOf, type Latency, type WindowFigures } from '../stats/figures.js';
import type { Traffic } from '../query/read-traffic.js';
import type { Site, SiteWindow } from '../query/read-sites.js';
import type { RequestPairs } from '../stats/request-pairs.js';
import type { TopList, TopLists } from '../stats/top-lists.js';

/** `/api/summary` */
export function summaryAnswer({ range, complete, sampled, sources }: Traffic, { bySource }: TopLists) {
  return {
    from: isoTime(range.fromMs),
    to: isoTime(range.toMs),
    complete,
    ...(sampled !== undefined && { sampled }),
    sources: Object.fromEntries(
      [...sources].map(([source, { requests, errors, bytes, latencyMs, statuses }]) => [
        source,
        {
          requests,
          errors,
          bytes,
          clients: bySource.get(source)?.clients ?? null,
          duration_ms: { ...percentiles(latencyMs), max: rounded(latencyMs.max) },
          statuses: Object.fromEntries(statuses),
        },
      ]),
    ),
  };
}

/** A row of `/api/series`: one source in one window. A window without requests of a source has no row. */
export function seriesAnswer({ timeMs, source, requests, errors, bytes, latencyMs, statuses }: WindowFigures) {
  return {
    time: isoTime(timeMs),
    source,
    requests,
    errors,
    bytes,
    duration_ms: percentiles(latencyMs),
    statuses: Object.fromEntries(statuses),
  };
}

/** A row of `/api/series?by=host`: one site in one window. */
export function siteSeriesAnswer({
  timeMs,
  source,
  host,
  figures: { requests, errors, bytes, latencyMs, statuses },
}: SiteWindow) {
  return {
    time: isoTime(timeMs),
    source,
    host,
    requests,
    errors,
    bytes,
    duration_ms: percentiles(latencyMs),
    statuses: Object.fromEntries(statuses),
  };
}

/**
 * A row of `/api/sites`. `spark` has the requests of each window of the range, and `last_request` is the start of the
 * last window with any.
 */
export function siteAnswer({
  source,
  host,
  figures: { requests, errors, clientErrors, bytes, latencyMs },
  spark,
  lastWindowMs,
}: Site) {
  return {
    source,
    host,
    requests,
    errors,
    client_errors: clientErrors,
    bytes,
    duration_ms: percentiles(latencyMs),
    last_request: isoTime(lastWindowMs),
    spark,
  };
}

/**
 * The rows of `/api/top/…`, most requests first. All numbers are of the `count` requests that were counted; there were
 * `count_max` at most.
 */
export function topAnswer({ total, values }: TopList, rowsMax: number) {
  return [...values].slice(0, rowsMax).map(([value, { requests, errors, bytes, latencyMs, missedMax }]) => ({
    value,
    count: requests,
    share: rounded(shareOf(requests, total)),
    errors,
    bytes,
    duration_ms: { mean: rounded(latencyMs.mean), p95: rounded(latencyMs.p95) },
    count_max: requests + missedMax,
  }));
}

/**
 * The rows of `/api/requests`. What is not known is an empty string. `pair` is there where edge and app have logged one
 * id.
 */
export function requestsAnswer(requests: readonly RequestEvent[], pairs: RequestPairs) {
  return requests.map((request) => {
    const pair = pairs.get(request.requestId);
    return {
      ...requestAnswer(request),
      pair: pair === undefined ? null : { edge_ms: pair.edgeMs, app_ms: pair.appMs, outside_ms: pair.proxyOverheadMs },
    };
  });
}

function requestAnswer(request: RequestEvent) {
  return {
    time: rfc3339(request),
    source: request.source,
    method: request.method,
    host: request.host,
    uri: request.uri,
    status: request.status,
    duration_ms: request.durationMs,
    size: request.size,
    bytes_read: request.bytesRead,
    endpoint: request.endpoint,
    client_ip: request.clientIp,
    user_agent: request.userAgent,
    referrer: request.referrer,
    protocol: request.protocol,
    tls: request.tls,
    upstream_ms: request.upstreamMs,
    request_id: request.requestId,
    error: request.error,
    error_id: request.errorId,
    upstream: request.upstream,
    retries: request.retries,
    content_type: request.contentType,
  };
}

/**
 * A row of `/api/events`: the first of `count` identical events of a minute, and when the last one was. `fields` has Caddy's
 * other fields.
 */
export function eventAnswer({ event, count, lastMs }: EventRow) {
  return {
    time: rfc3339(event),
    last: isoTime(lastMs),
    count,
    level: event.level,
    logger: event.logger,
    message: event.message,
    error: event.error,
    reason: event.reason,
    host: event.host,
    method: event.method,
    uri: event.uri,
    status: event.status === 0 ? null : event.status,
    error_id: event.errorId,
    upstream: event.upstream,
    fields: (event.fields === '' ? {} : JSON.parse(event.fields)) as Readonly<Record<string, unknown>>,
  };
}

/** A row of `/api/events.csv`. */
export function eventCsvRow(row: EventRow) {
  return { ...eventAnswer(row), fields: row.event.fields };
}

/** `/api/ledger` */
export function ledgerAnswer(ledgers: readonly LedgerSnapshot[]) {
  return { collectors: Object.fromEntries(ledgers.map((ledger) => [ledger.collector, ledgerJson(ledger)])) };
}

/** A row of `/api/ledger.csv`. */
export function ledgerCsvRow(ledger: LedgerSnapshot) {
  return { collector: ledger.collector, ...ledgerJson(ledger) };
}

function percentiles({ mean, p50, p95, p99 }: Latency) {
  return { mean: rounded(mean), p50: rounded(p50), p95: rounded(p95), p99: rounded(p99) };
}

/** Six digits: more than a percentile is worth, and enough for a mean. */
function rounded(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(6));
}
