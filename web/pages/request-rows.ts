/** Rows of raw requests. Each value links to the page filtered by it. */
import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import { rfc3339, type RequestEvent } from '../../shared/request-event.js';
import type { TimeRange } from '../../shared/store/store.js';
import { topValueOf } from '../../shared/top-list/top-row.js';
import { agentName } from '../stats/agents.js';
import { bytes, clientText, count, dayOf, duration, printable, signed, statusClass } from '../format.js';
import { filterHref, linkedValue, type Link } from './link.js';
import type { RequestPair, RequestPairs } from '../stats/request-pairs.js';

/** See `DashboardData`. */
interface Shown {
  readonly link: Link;
  readonly clientIp: ClientIpPolicy | undefined;
  readonly nowMs: number;
}

/** Returns the rows of the table of requests. */
export function requestRows(requests: readonly RequestEvent[], pairs: RequestPairs, range: TimeRange, shown: Shown) {
  return requests.map((request) => requestRow(request, pairs.get(request.requestId), range, shown));
}

function requestRow(
  request: RequestEvent,
  pair: RequestPair | undefined,
  { fromMs, toMs }: TimeRange,
  { link, clientIp, nowMs }: Shown,
) {
  const { source, host, method, uri, status, endpoint } = request;
  const value = (name: string, text: string, options?: { shown?: string; lengthMax?: number }) =>
    linkedValue(link, name, text, options);
  const path = topValueOf.path(request);
  return {
    iso: rfc3339(request),
    text: `${toMs - fromMs > 86_400_000 ? `${dayOf(request.timeMs, nowMs)} ` : ''}${new Date(request.timeMs).toISOString().slice(11, 23)}`,
    status: {
      text: status === 0 ? 'none' : String(status),
      class: statusClass(status),
      href: link({ status: String(status) }),
    },
    method: value('method', method, { lengthMax: 20 }),
    host: value('host', host),
    uri: { text: printable(uri, 120), full: printable(uri, 1000), href: filterHref(link, 'path', path) },
    duration: duration(request.durationMs),
    size: bytes(request.size),
    source: value('source', source),
    endpoint: printable(endpoint, 60),
    client: value('client', request.clientIp, { shown: clientText(request.clientIp, clientIp) }),
    agent: value('user_agent', request.userAgent, { shown: agentName(request.userAgent) }),
    pair: pair && {
      text: signed(pair.proxyOverheadMs),
      full: `Caddy ${duration(pair.edgeMs)}, app ${duration(pair.appMs)}`,
    },
    error: value('error', request.error, { lengthMax: 80 }),
    errorId: printable(request.errorId, 40),
    upstream: value('upstream', request.upstream, { lengthMax: 40 }),
    retries: request.retries === null || request.retries === 0 ? '' : count(request.retries),
    id: value('request_id', request.requestId, { lengthMax: 8 }),
    referrer: value('referrer', topValueOf.referrer(request), {
      shown: topValueOf.referrer(request).replace(/^https?:\/\//, ''),
      lengthMax: 40,
    }),
  };
}
