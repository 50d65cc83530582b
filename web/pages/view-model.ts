/** The view model of the page: turns figures into the text, links and charts that the templates render. */
import type { EventRow } from '../../shared/record/event-folder.js';
import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import { dashboardSource, type RequestEvent } from '../../shared/request-event.js';
import { count, duration, printable, windowLength } from '../format.js';
import type { DashboardQuery, QueryError } from '../query/query.js';
import type { Traffic } from '../query/read-traffic.js';
import { withoutSource } from '../stats/fold.js';
import type { Pair } from '../stats/pair.js';
import type { RequestPairs } from '../stats/request-pairs.js';
import { caddyStartsIn } from '../stats/caddy-starts.js';
import { leadingReason, type TopLists } from '../stats/top-lists.js';
import { chartRows, chartTables, drawingOf, pairPanels, pairTable } from './chart-panels.js';
import { collectorCards } from './collector-cards.js';
import { controlsView, type PageClock } from './controls.js';
import { eventPanels, startMarkers, startsSentence } from './event-panels.js';
import { linksOf } from './link.js';
import { notesView, ownView } from './notes.js';
import { requestRows } from './request-rows.js';
import { sourceCard } from './source-cards.js';
import { placeOf, statusOf } from './status-line.js';
import { topPanels } from './top-panels.js';

/** The input of the page. */
export interface DashboardData {
  readonly query: DashboardQuery;
  readonly traffic: Traffic;
  readonly topLists: TopLists;
  readonly latest: readonly RequestEvent[];
  readonly pairs: RequestPairs;
  /** What Caddy logged besides requests in the range, newest first. Default: nothing. */
  readonly events?: readonly EventRow[];
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

/** Ticks of the clock of the page. */
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
  events = [],
  nowMs: exactMs,
  connectHint,
  clientIp,
  ignored = [],
  problems = [],
  isOpenThroughProxy = false,
}: DashboardData) {
  const traffic = showsOwn(query, all) ? all : withoutSource(all, dashboardSource);
  const clock = pageClock(traffic, exactMs);
  const { nowMs } = clock;
  const lastRequestMs = lastOf(latest);
  const status = statusOf(traffic, {
    lastRequestMs,
    nowMs,
    exactMs,
    isFiltered: Object.keys(query.filter).length > 0,
    includesOwn: query.filter.source === dashboardSource,
    leadingReasonOf: (source) => leadingReason(topLists.bySource.get(source)),
  });
  const sources = [...traffic.sources.keys()];
  const link = linksOf(query);
  const starts = caddyStartsIn(events);
  const drawing = drawingOf(traffic, exactMs, link, startMarkers(starts, nowMs));
  const drawn = chartedNames(traffic);
  return {
    title: status.title,
    status,
    refreshSeconds: problems.length > 0 ? undefined : query.refreshSeconds,
    problems: problems.map(({ message }) => printable(message, 500)),
    ignored: ignoredText(ignored),
    isOpenThroughProxy,
    ...controlsView(query, traffic, clock, { link, clientIp }),
    ...notesView(query, traffic, topLists, { connectHint, link, nowMs, exactMs }),
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
    latest: requestRows(latest, pairs, query, { link, clientIp, nowMs }),
    latestHaveErrors: latest.some(({ error, errorId }) => error !== '' || errorId !== ''),
    latestHaveUpstreams: latest.some(({ upstream }) => upstream !== ''),
    latestHaveIds: latest.some(({ requestId }) => requestId !== ''),
    latestCsvHref: link({}, '/api/requests.csv'),
    ...eventPanels(events, { link, nowMs }),
    starts: startsSentence(starts, nowMs),
    collectors: collectorCards(traffic.ledgers, nowMs, exactMs),
  };
}

/** The clock of the page, which is never in the future. */
function pageClock({ range, stepMs }: Traffic, exactMs: number): PageClock {
  const tickMs = stepMs / ticksPerWindow;
  const nowMs = Math.min(exactMs, Math.max(range.fromMs + tickMs, Math.floor(exactMs / tickMs) * tickMs));
  return { nowMs, tickMs };
}

function ignoredText(ignored: readonly string[]): string {
  const names = ignored.slice(0, ignoredMax).map((name) => printable(name, 40));
  return names.join(', ') + (ignored.length > ignoredMax ? ', …' : '');
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
