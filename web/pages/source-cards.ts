/** Source cards: figures with their changes, and status codes. */
import { STATUS_CODES } from 'node:http';
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import type { TimeRange } from '../../shared/store/store.js';
import { changeOf, pointsOf, type Change } from './change.js';
import { p99RequestsMin } from './chart-kinds.js';
import { shareOf, type Figures } from '../stats/figures.js';
import {
  barOf,
  bytes,
  count,
  covered,
  duration,
  moment,
  nbsp,
  percent,
  printable,
  rate,
  statusClass,
} from '../format.js';
import { errorShares, healthRequestsMin } from '../stats/health.js';
import type { Link } from './link.js';
import type { Traffic } from '../query/read-traffic.js';
import type { TopLists } from '../stats/top-lists.js';

/** Returns the card of a source. */
export function sourceCard(
  source: string,
  { sources, range, firstMs, previous: before }: Traffic,
  { bySource, ofNewest }: TopLists,
  { nowMs, link, lastMs }: { nowMs: number; link: Link; lastMs: number | undefined },
) {
  const clients = bySource.get(source)?.clients ?? null;
  const figures = sources.get(source)!;
  const { latencyMs, requests, errors, clientErrors } = figures;
  const previous = before?.sources.get(source);
  const soFar = covered(range, { firstMs, nowMs });
  const perMs = (sum: number, { fromMs, toMs }: TimeRange): number => sum / (toMs - fromMs);
  const evaluated = requests >= healthRequestsMin && previous !== undefined && previous.requests >= healthRequestsMin;
  // Sums are compared as rates, because the current period may not have ended.
  const sumChange = (sum: number, sumBefore: number | undefined): Change | undefined =>
    changeOf(perMs(sum, soFar), sumBefore === undefined ? undefined : perMs(sumBefore, range), false);
  const latency = (name: string, value: number | null, valueBefore: number | null | undefined, note?: string) => ({
    name,
    value: duration(value),
    change: changeOf(value, valueBefore, evaluated),
    note,
  });
  const share = (status: string, part: number, partBefore: number | undefined, alarm = false) => ({
    name: status,
    href: part > 0 ? link({ status, source }) : undefined,
    value: percent(shareOf(part, requests)),
    note: `${count(part)} ${part === 1 ? 'request' : 'requests'}`,
    alarm,
    change: pointsOf(
      shareOf(part, requests),
      previous === undefined || partBefore === undefined ? null : shareOf(partBefore, previous.requests),
      evaluated,
    ),
  });
  const p99Before = previous === undefined ? null : p99(previous);
  return {
    source: printable(source, 60),
    role:
      source === caddySource
        ? 'access log'
        : source === dashboardSource
          ? 'this page and its API'
          : 'measured in the app',
    href: link({ source }),
    last: lastMs === undefined ? undefined : { iso: isoTime(lastMs), text: moment(lastMs, nowMs) },
    figures: [
      { name: 'Requests', value: count(requests), change: sumChange(requests, previous?.requests) },
      { name: 'Rate', value: rate(requests, soFar) },
      ...(clients === null
        ? []
        : [
            {
              name: 'Clients',
              value: count(clients),
              note:
                ofNewest === undefined ? (clients === 1 ? 'address' : 'addresses') : `in the newest ${count(ofNewest)}`,
            },
          ]),
      share(
        '5xx',
        errors,
        previous?.errors,
        requests >= healthRequestsMin && errors / requests > errorShares.degraded.enter,
      ),
      share('4xx', clientErrors, previous?.clientErrors),
      latency(
        'Mean',
        latencyMs.mean,
        previous?.latencyMs.mean,
        latencyMs.max === null ? 'no latency' : `max${nbsp}${duration(latencyMs.max)}`,
      ),
      latency('p50', latencyMs.p50, previous?.latencyMs.p50),
      latency('p95', latencyMs.p95, previous?.latencyMs.p95),
      latency(
        'p99',
        p99(figures),
        p99Before,
        requests < p99RequestsMin ? `needs ${p99RequestsMin} requests` : undefined,
      ),
      {
        name: 'Sent',
        value: bytes(figures.bytes),
        note: `${bytes(shareOf(figures.bytes, requests))} per request`,
        change: sumChange(figures.bytes, previous?.bytes),
      },
    ],
    statuses: statusesView(figures, link, source),
  };
}

function statusesView({ requests, statuses }: Figures, link: Link, source: string) {
  return [...statuses].map(([status, requestsOfStatus]) => ({
    status: status === 0 ? 'none' : String(status),
    reason: status === 0 ? 'no response' : (STATUS_CODES[status] ?? ''),
    class: statusClass(status),
    count: count(requestsOfStatus),
    share: percent(shareOf(requestsOfStatus, requests)),
    bar: barOf(shareOf(requestsOfStatus, requests)),
    href: link({ status: String(status), source }),
  }));
}

/** The p99; `null` for too few requests. */
export function p99({ requests, latencyMs }: Figures): number | null {
  return requests < p99RequestsMin ? null : latencyMs.p99;
}
