/** What the page says about requests that its figures exclude, and instead of figures if there are none. */
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import { needsRequests, type LedgerSnapshot } from '../../shared/store/store.js';
import { clock, count, dayOf, nbsp } from '../format.js';
import { filterNames, type DashboardQuery } from '../query/query.js';
import { isOfRequests } from '../query/read-top-lists.js';
import type { Traffic } from '../query/read-traffic.js';
import { sumOf } from '../stats/fold.js';
import type { TopLists } from '../stats/top-lists.js';
import type { Link } from './link.js';
import { phrase, textOf, type Phrase, type Time } from './phrase.js';

/** Returns the notes. `nowMs` is the clock of the page, and `exactMs` the exact time. */
export function notesView(
  query: DashboardQuery,
  traffic: Traffic,
  topLists: TopLists,
  { connectHint, link, nowMs, exactMs }: { connectHint: readonly string[]; link: Link; nowMs: number; exactMs: number },
) {
  const isEmpty = traffic.sources.size === 0;
  return {
    incomplete: incompleteReasons(query, traffic, nowMs),
    connect: needsConnecting(query, traffic)
      ? {
          lines: connectHint.join('\n'),
          rejected: traffic.ledgers.reduce((sum, ledger) => sum + sumOf(ledger.rejected), 0),
        }
      : undefined,
    empty: isEmpty,
    elsewhere: isEmpty ? elsewhere(query, traffic, link, exactMs) : undefined,
    topListsNote: topListsNote(topLists, nowMs),
    topListsOfSampled: isOfRequests(query.filter) ? sampledText(traffic) : undefined,
    latestSampled: sampledText(traffic),
  };
}

/** Filters for which `needsRequests` is true. */
const requestsFilters = 'filters by path, client, user agent, referrer or request id';

function incompleteReasons(query: DashboardQuery, traffic: Traffic, nowMs: number): Phrase[] {
  const { bounded, retainedFromMs, rollupsFromMs, ledgers, complete } = traffic;
  if (complete) return [];
  const sampled = needsRequests(query.filter) ? sampledText(traffic) : undefined;
  const total = (of: (ledger: LedgerSnapshot) => number): number =>
    ledgers.reduce((sum, ledger) => sum + of(ledger), 0);
  const dropped = total((ledger) => sumOf(ledger.dropped));
  const spooled = total((ledger) => ledger.spooled);
  const deadLettered = total((ledger) => ledger.deadLettered);
  const earlier = total((ledger) => ledger.warnings['earlier-spooled'] ?? 0);
  const datagrams = total((ledger) => ledger.warnings['datagrams-lost'] ?? 0);
  return [
    ...(bounded
      ? [phrase`${requestsFilters} read raw requests, and the read was truncated: choose a shorter range`]
      : []),
    ...(retainedFromMs === undefined
      ? []
      : [
          phrase`${requestsFilters} read raw requests, and those before ${dayAndClock(retainedFromMs, nowMs)} UTC have been deleted (RETENTION_REQUESTS)`,
        ]),
    ...(rollupsFromMs === undefined
      ? []
      : [phrase`rollups before ${dayAndClock(rollupsFromMs, nowMs)} UTC have been deleted (RETENTION_ROLLUPS)`]),
    ...(sampled === undefined ? [] : [phrase`${requestsFilters} count only sampled requests: ${sampled}`]),
    ...(dropped > 0 ? [phrase`${count(dropped)} lines were dropped`] : []),
    ...(spooled > 0 ? [phrase`${count(spooled)} requests are spooled on disk`] : []),
    ...(deadLettered > 0 ? [phrase`${count(deadLettered)} requests were refused by the store`] : []),
    ...(earlier > 0 ? [phrase`${count(earlier)} requests of a previous run are spooled on disk`] : []),
    ...(datagrams > 0 ? [phrase`${count(datagrams)} UDP lines were lost in the kernel`] : []),
  ];
}

/** Whether Caddy is probably not connected yet: without filters, no requests of Caddy are stored or accepted. */
function needsConnecting({ filter }: DashboardQuery, { sources, ledgers, recent }: Traffic): boolean {
  return (
    Object.keys(filter).length === 0 &&
    !sources.has(caddySource) &&
    recent?.caddyNewestMs === undefined &&
    ledgers.every(({ accepted }) => accepted === 0)
  );
}

/** A link to the latest data for a range without any; `undefined` if the store is empty. */
function elsewhere(
  { fromMs, filter }: DashboardQuery,
  { recent, newestMs, stepMs }: Traffic,
  link: Link,
  nowMs: number,
) {
  const lastMs = recent?.caddyNewestMs ?? newestMs;
  if (lastMs === undefined) return undefined;
  const hourMs = 3_600_000;
  const isFiltered = Object.keys(filter).length > 0;
  return {
    text:
      fromMs >= nowMs
        ? 'This range is in the future.'
        : isFiltered
          ? 'No requests in this range match the filters.'
          : 'There are no requests in this range.',
    label: isFiltered ? 'Show the latest requests without filters:' : 'Show the latest requests:',
    last: dayAndClock(lastMs, nowMs),
    href: link({
      ...Object.fromEntries(filterNames.map((name) => [name, undefined])),
      from: isoTime(lastMs - hourMs),
      to: isoTime(Math.min(lastMs + hourMs, Math.max(nowMs, lastMs + stepMs))),
    }),
  };
}

/** The dashboard's own requests, which the page excludes; `undefined` if there are none. */
export function ownView({ sources }: Traffic, link: Link) {
  const own = sources.get(dashboardSource);
  return own === undefined
    ? undefined
    : { count: own.requests, text: count(own.requests), href: link({ source: dashboardSource }) };
}

/** Note about requests that the lists of raw requests exclude. */
function topListsNote({ ofNewest, retainedFromMs }: TopLists, nowMs: number): Phrase | undefined {
  const reasons = [
    ...(ofNewest === undefined ? [] : [phrase`cover only the newest ${count(ofNewest)}`]),
    ...(retainedFromMs === undefined
      ? []
      : [phrase`start at ${dayAndClock(retainedFromMs, nowMs)} UTC (RETENTION_REQUESTS)`]),
  ];
  const [first, second] = reasons;
  return first === undefined
    ? undefined
    : phrase`With this filter, lists of raw requests ${second === undefined ? first : phrase`${first}, and ${second}`}.`;
}

/** Why there is no previous period to compare with; `undefined` if there is one. */
export function missingPeriod(
  { previous, sources, range: { fromMs, toMs }, firstMs }: Traffic,
  nowMs: number,
): string | undefined {
  if (previous !== undefined || sources.size === 0) return undefined;
  return firstMs !== undefined && 2 * fromMs - toMs < firstMs
    ? `(not available: data starts at ${textOf([dayAndClock(firstMs, nowMs)])} UTC)`
    : '(not available: the previous period exceeds the retention)';
}

/** Text about the number of sampled requests; `undefined` if all are stored. */
function sampledText({ sampled }: Traffic): string | undefined {
  if (sampled === undefined) return undefined;
  return `${count(sampled.kept)} of ${count(sampled.of)} requests are stored`;
}

/** A time to the minute. More precision would change the ETag with every request. */
function dayAndClock(timeMs: number, nowMs: number): Time {
  return { iso: isoTime(Math.floor(timeMs / 60_000) * 60_000), text: `${dayOf(timeMs, nowMs)}${nbsp}${clock(timeMs)}` };
}
