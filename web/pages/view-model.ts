/** The view model of the page: turns figures into the text, links and charts that the templates render. */
import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import { caddySource, dashboardSource, type RequestEvent } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import { needsRequests, type LedgerSnapshot, type TimeRange } from '../../shared/store/store.js';
import { chartRows, chartTables, drawingOf, pairPanels, pairTable } from './chart-panels.js';
import { collectorCards } from './collector-cards.js';
import { sumOf, withoutSource } from '../stats/fold.js';
import { clientText, clock, count, day, dayOf, duration, nbsp, printable, windowLength } from '../format.js';
import { linksOf, type Link } from './link.js';
import type { Pair } from '../stats/pair.js';
import { phrase, textOf, type Phrase, type Time } from './phrase.js';
import { defaults, filterNames, type DashboardQuery, type Parameter, type QueryError } from '../query/query.js';
import type { Traffic } from '../query/read-traffic.js';
import type { RequestPairs } from '../stats/request-pairs.js';
import { requestRows } from './request-rows.js';
import { sourceCard } from './source-cards.js';
import { placeOf, statusOf } from './status-line.js';
import { topPanels } from './top-panels.js';
import { isOfRequests } from '../query/read-top-lists.js';
import type { TopLists } from '../stats/top-lists.js';

/** The input of the page. */
export interface DashboardData {
  readonly query: DashboardQuery;
  readonly traffic: Traffic;
  readonly topLists: TopLists;
  readonly latest: readonly RequestEvent[];
  readonly pairs: RequestPairs;
  readonly nowMs: number;
  readonly connectHint: readonly string[];
  /** How client addresses are stored. Default: `full`. */
  readonly clientIp?: ClientIpPolicy | undefined;
  /** Unknown parameters, and the errors of invalid ones. `query` includes neither. */
  readonly ignored?: readonly string[];
  readonly problems?: readonly QueryError[];
  /** See `isOpenThroughProxy` in `guard.ts`. */
  readonly isOpenThroughProxy?: boolean;
}

/** Maximum number of sources with charts. The others only have figures. */
const chartSourcesMax = 4;
/** Minimum number of requests of a source with charts, as a share of those of the busiest source. */
const chartShareMin = 0.002;

const ranges = [
  ['15m', '15 min'],
  ['1h', '1 h'],
  ['6h', '6 h'],
  ['24h', '24 h'],
  ['7d', '7 d'],
  ['30d', '30 d'],
] as const;
const refreshes = [
  ['off', 'off'],
  ['5', '5 s'],
  ['15', '15 s'],
  ['60', '60 s'],
] as const;
const ticksPerWindow = 6;
/** Maximum number of unknown parameters to list. */
const ignoredMax = 5;

/**
 * Whether the page shows the dashboard's own requests: if the query asks for them, or if the dashboard is behind the
 * same Caddy, as in Compose, so that its host is among Caddy's.
 */
export function showsOwn({ filter }: Pick<DashboardQuery, 'filter'>, { pairs }: Pick<Traffic, 'pairs'>): boolean {
  return filter.source === dashboardSource || pairs.some(({ app }) => app === dashboardSource);
}

/**
 * Creates the view of the dashboard. Its clock ticks in parts of a window, so that a page without changes stays
 * equal.
 */
export function dashboardView({
  query,
  traffic: all,
  topLists,
  latest,
  pairs,
  nowMs: exactMs,
  connectHint,
  clientIp,
  ignored = [],
  problems = [],
  isOpenThroughProxy = false,
}: DashboardData) {
  const traffic = showsOwn(query, all) ? all : withoutSource(all, dashboardSource);
  const tickMs = traffic.stepMs / ticksPerWindow;
  const nowMs = Math.min(exactMs, Math.max(traffic.range.fromMs + tickMs, Math.floor(exactMs / tickMs) * tickMs)); // never in the future
  const lastRequestMs = lastOf(latest);
  const status = statusOf(traffic, {
    lastRequestMs,
    nowMs,
    exactMs,
    isFiltered: Object.keys(query.filter).length > 0,
    includesOwn: query.filter.source === dashboardSource,
  });
  const sources = [...traffic.sources.keys()];
  const link = linksOf(query);
  const drawing = drawingOf(traffic, exactMs, link);
  const drawn = chartedNames(traffic);
  return {
    title: status.title,
    status,
    refreshSeconds: problems.length > 0 ? undefined : query.refreshSeconds,
    problems: problems.map(({ message }) => printable(message, 500)),
    ignored:
      ignored
        .slice(0, ignoredMax)
        .map((name) => printable(name, 40))
        .join(', ') + (ignored.length > ignoredMax ? ', …' : ''),
    isOpenThroughProxy,
    range: {
      ...rangeView(query, traffic.range, nowMs, tickMs),
      href: link({ from: isoTime(traffic.range.fromMs), to: isoTime(traffic.range.toMs) }),
    },
    ranges: ranges.map(([name, label]) => ({
      label,
      href: link({ from: `now-${name}`, to: undefined }),
      current: (query.given.to ?? defaults.to) === defaults.to && (query.given.from ?? defaults.from) === `now-${name}`,
    })),
    steps: stepsView(query, nowMs, tickMs, link),
    compare: {
      label: query.compare ? 'on' : 'off',
      note: query.compare ? missingPeriod(traffic, nowMs) : undefined,
      href: link({ compare: query.compare ? 'off' : undefined }),
    },
    form: formView(query, sources, link),
    refreshes: refreshes.map(([name, label]) => ({
      label,
      href: link({ refresh: name }),
      current: name === (query.refreshSeconds?.toString() ?? 'off'),
    })),
    filters: filterNames
      .filter((name) => query.given[name] !== undefined)
      .map((name) => ({
        name: name.replace('_', ' '),
        value: printable(
          name === 'client' ? clientText(query.filter.client ?? '', clientIp) : (query.given[name] ?? ''),
          80,
        ),
        href: link({ [name]: undefined }),
      })),
    incomplete: incompleteReasons(query, traffic, nowMs),
    connect: needsConnecting(query, traffic)
      ? {
          lines: connectHint.join('\n'),
          rejected: traffic.ledgers.reduce((sum, ledger) => sum + sumOf(ledger.rejected), 0),
        }
      : undefined,
    empty: sources.length === 0,
    elsewhere: sources.length === 0 ? elsewhere(query, traffic, link, exactMs) : undefined,
    own: traffic === all ? undefined : ownView(all, link),
    sources: sources.map((source) =>
      sourceCard(source, traffic, topLists, { ...drawing, lastMs: lastRequestMs.get(source) }),
    ),
    charts: chartRows(drawn, drawing),
    sourcesWithoutChart: sources.length - drawn.length,
    windowLength: windowLength(traffic.stepMs),
    tables: chartTables(drawn, drawing),
    pairs: traffic.pairs.map((pair, index) => ({
      ...pairCard(pair),
      panels: pairPanels(index, drawing),
      table: pairTable(pair, drawing),
    })),
    topLists: topPanels(traffic, topLists, link, clientIp),
    topListsOf: sources.length > 1 ? placeOf(sources[0]!) : undefined,
    topListsNote: topListsNote(topLists, nowMs),
    topListsOfSampled: isOfRequests(query.filter) ? sampledText(traffic) : undefined,
    latest: requestRows(latest, pairs, query, { link, clientIp, nowMs }),
    latestHaveIds: latest.some(({ requestId }) => requestId !== ''),
    latestSampled: sampledText(traffic),
    latestOrders: latestOrders(query, link),
    latestCsvHref: link({}, '/api/requests.csv'),
    collectors: collectorCards(traffic.ledgers, nowMs, exactMs),
  };
}

/** Time of the last request of each source among the latest requests. */
function lastOf(latest: readonly RequestEvent[]): Map<string, number> {
  const last = new Map<string, number>();
  for (const { source, timeMs } of latest) last.set(source, Math.max(last.get(source) ?? 0, timeMs));
  return last;
}

function chartedNames({ sources }: Traffic): string[] {
  const busiest = Math.max(...[...sources.values()].map(({ requests }) => requests));
  return [...sources]
    .filter(([, { requests }]) => requests >= busiest * chartShareMin)
    .slice(0, chartSourcesMax)
    .map(([source]) => source);
}

function rangeView(query: DashboardQuery, aligned: TimeRange, nowMs: number, tickMs: number) {
  const live = (query.given.to ?? defaults.to) === 'now';
  const fromMs = live ? Math.floor(query.fromMs / tickMs) * tickMs : query.fromMs;
  const toMs = live ? nowMs : query.toMs;
  const sameDay = dayOf(fromMs, nowMs) === dayOf(toMs, nowMs) && dayOf(toMs, nowMs) === day(nowMs);
  const text = (timeMs: number): string => (sameDay ? '' : `${dayOf(timeMs, nowMs)} `) + clock(timeMs);
  return {
    from: { iso: isoTime(aligned.fromMs), text: text(fromMs) },
    to: { iso: isoTime(aligned.toMs), text: text(toMs) },
  };
}

/** Links to the previous and next range, and to half and twice the range. Ranges that end at about now stay live. */
function stepsView(query: DashboardQuery, nowMs: number, tickMs: number, link: Link) {
  const [fromMs, toMs] = [query.fromMs, query.toMs].map((timeMs) => Math.floor(timeMs / tickMs) * tickMs) as [
    number,
    number,
  ];
  const lengthMs = Math.max(tickMs, toMs - fromMs);
  const live = (query.given.to ?? defaults.to) === 'now';
  const to = (startMs: number, endMs: number): string | undefined => {
    if (endMs - startMs < 1000 || startMs < 0) return undefined;
    return endMs >= nowMs - lengthMs / 20
      ? link({ from: `now-${relative(endMs - startMs)}`, to: undefined })
      : link({ from: isoTime(startMs), to: isoTime(endMs) });
  };
  return [
    { label: '‹', words: 'Earlier', href: to(fromMs - lengthMs, toMs - lengthMs) },
    { label: '›', words: 'Later', href: live ? undefined : to(fromMs + lengthMs, toMs + lengthMs) },
    {
      label: '−',
      words: 'Zoom out',
      href: live ? to(nowMs - 2 * lengthMs, nowMs) : to(fromMs - lengthMs / 2, toMs + lengthMs / 2),
    },
    {
      label: '+',
      words: 'Zoom in',
      href: live ? to(nowMs - lengthMs / 2, nowMs) : to(fromMs + lengthMs / 4, toMs - lengthMs / 4),
    },
  ].filter(({ href }) => href !== undefined);
}

/** `6h`, `90m`, `45s`. */
function relative(lengthMs: number): string {
  const seconds = Math.round(lengthMs / 1000);
  if (seconds % 86_400 === 0) return `${seconds / 86_400}d`;
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** The form: its fields, and hidden fields that preserve the other parameters. */
function formView(query: DashboardQuery, sources: readonly string[], link: Link) {
  const { given } = query;
  const local = (timeMs: number): string => new Date(timeMs).toISOString().slice(0, 16);
  const absolute = !(given.to ?? defaults.to).startsWith('now');
  return {
    open: query.editing,
    openHref: link({ edit: 'on' }),
    fields: [
      { name: 'source', label: 'Source', value: given.source, hint: 'caddy', options: sources },
      { name: 'host', label: 'Host', value: given.host, hint: 'shop.example' },
      {
        name: 'method',
        label: 'Method',
        value: given.method,
        hint: 'GET',
        options: ['GET', 'POST', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
      },
      {
        name: 'status',
        label: 'Status',
        value: given.status,
        hint: '5xx or 404',
        options: ['2xx', '3xx', '4xx', '5xx'],
      },
      { name: 'path', label: 'Path', value: given.path, hint: '/checkout' },
      { name: 'client', label: 'Client', value: given.client, hint: '198.51.100.0' },
      { name: 'user_agent', label: 'User agent', value: given.user_agent, hint: 'curl/8.14.1' },
      { name: 'referrer', label: 'Referrer', value: given.referrer, hint: 'https://example.com/' },
      { name: 'request_id', label: 'Request id', value: given.request_id, hint: 'as logged' },
    ],
    hidden: hiddenFields(given, ['from', 'to', 'refresh', 'compare', 'limit', 'errors']),
    hiddenWithRange: hiddenFields(given, [...filterNames, 'compare', 'limit', 'errors']),
    from: absolute ? local(query.fromMs) : undefined,
    to: absolute ? local(query.toMs) : undefined,
  };
}

function hiddenFields(given: DashboardQuery['given'], names: readonly Parameter[]) {
  return names.flatMap((name) => (given[name] === undefined ? [] : [{ name, value: given[name] }]));
}

function pairCard({ app, proxyOverheadMeanMs, edgeOnlyErrors, bypassedEdge }: Pair) {
  return {
    app: printable(app, 60),
    figures: [
      {
        name: 'Proxy overhead',
        value: duration(proxyOverheadMeanMs),
        note: 'mean latency at Caddy − mean latency in the app',
      },
      { name: '5xx generated by Caddy', value: count(edgeOnlyErrors), alarm: edgeOnlyErrors > 0 },
      { name: 'Bypassed Caddy', value: count(bypassedEdge), note: 'requests', alarm: bypassedEdge > 0 },
    ],
  };
}

/** Links to the orders of the latest requests, and to errors only. */
function latestOrders({ errorsFirst, given }: DashboardQuery, link: Link) {
  if (given.status !== undefined) return [];
  return [
    { label: 'Newest first', href: link({ errors: undefined }), current: !errorsFirst },
    { label: 'Errors first', href: link({ errors: 'first' }), current: errorsFirst },
    { label: 'Errors only', href: link({ errors: undefined, status: '5xx' }), current: false },
  ];
}

/** Why there is no previous period to compare with; `undefined` if there is one. */
function missingPeriod(
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

/** A time to the minute. More precision would change the ETag with every request. */
function dayAndClock(timeMs: number, nowMs: number): Time {
  return { iso: isoTime(Math.floor(timeMs / 60_000) * 60_000), text: `${dayOf(timeMs, nowMs)}${nbsp}${clock(timeMs)}` };
}

/** The dashboard's own requests, which the page excludes; `undefined` if there are none. */
function ownView({ sources }: Traffic, link: Link) {
  const own = sources.get(dashboardSource);
  return own === undefined
    ? undefined
    : { count: own.requests, text: count(own.requests), href: link({ source: dashboardSource }) };
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

/** Whether Caddy is probably not connected yet: without filters, no requests of Caddy are stored or accepted. */
function needsConnecting({ filter }: DashboardQuery, { sources, ledgers, recent }: Traffic): boolean {
  return (
    Object.keys(filter).length === 0 &&
    !sources.has(caddySource) &&
    recent?.caddyNewestMs === undefined &&
    ledgers.every(({ accepted }) => accepted === 0)
  );
}
