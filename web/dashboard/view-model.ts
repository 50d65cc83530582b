/** All formatting of the page: from figures to the text, links and charts that the templates only loop over. */
import { STATUS_CODES } from 'node:http';
import { timeChart, valueMaxOf } from '../chart/time-chart.js';
import { caddySource, rfc3339, type RequestEvent } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import { isCut } from '../../shared/top.js';
import { ledgerWarnings, type LedgerSnapshot, type LedgerWarning, type TimeRange } from '../../shared/store/store.js';
import { chartKinds, chartOf, p99RequestsMin } from './charts.js';
import { sumOf, type Figures } from './fold.js';
import { bytes, clock, clockOrDay, count, day, duration, moment, nbsp, number, percent, printable, rate, windowLength } from './format.js';
import { errorShares, judge, judgedRequestsMin, type State, type Verdict } from './judge.js';
import { defaults, type DashboardQuery, type Parameter } from './query.js';
import type { Pair } from './pair.js';
import type { Traffic } from './read.js';
import { exactList, listOf, type ListedDimension, type TopList, type Tops } from './tops.js';

/** What the page is made from. */
export interface DashboardData {
  readonly query: DashboardQuery;
  readonly traffic: Traffic;
  readonly tops: Tops;
  readonly latest: readonly RequestEvent[];
  readonly nowMs: number;
  readonly connectHint: readonly string[];
}

/** So many sources have charts; the others have figures. */
const chartSourcesMax = 4;
/** Latencies that rise by more than this share, and shares of errors that rise by more than `risenPoints`, are marked. */
const risenShare = 0.25;
const risenPoints = 0.005;

const ranges = [['15m', '15 min'], ['1h', '1 h'], ['6h', '6 h'], ['24h', '24 h'], ['7d', '7 d'], ['30d', '30 d']] as const;
const refreshes = [['off', 'off'], ['5', '5 s'], ['15', '15 s'], ['60', '60 s']] as const;
const filters: readonly Parameter[] = ['source', 'host', 'method', 'status', 'path'];
/** A collector reports every few seconds: one that is silent for this long has stopped or is cut off. */
const reportSilenceMsMax = 60_000;
const ticksPerWindow = 6;

/** Makes the view of the dashboard. Its clock ticks in parts of a window, so that a page on which nothing happens stays the same. */
export function dashboardView({ query, traffic, tops, latest, nowMs: exactMs, connectHint }: DashboardData) {
  const tickMs = traffic.stepMs / ticksPerWindow;
  const nowMs = Math.max(traffic.range.fromMs + tickMs, Math.floor(exactMs / tickMs) * tickMs);
  const status = statusOf(traffic, nowMs);
  const sources = [...traffic.sources.keys()];
  const link = linksOf(query);
  return {
    title: status.title,
    status,
    refreshSeconds: query.refreshSeconds,
    range: rangeView(query, traffic.range, nowMs, tickMs),
    ranges: ranges.map(([name, label]) => ({ label, href: link({ from: `now-${name}`, to: undefined }), current: (query.given.to ?? defaults.to) === defaults.to && (query.given.from ?? defaults.from) === `now-${name}` })),
    steps: stepsView(query, nowMs, tickMs, link),
    compare: { label: query.compare ? 'on' : 'off', href: link({ compare: query.compare ? 'off' : undefined }) },
    form: formView(query, sources, link),
    refreshes: refreshes.map(([name, label]) => ({ label, href: link({ refresh: name }), current: name === (query.refreshSeconds?.toString() ?? 'off') })),
    filters: filters.filter((name) => query.given[name] !== undefined).map((name) => ({ name, value: printable(query.given[name] ?? '', 80), href: link({ [name]: undefined }) })),
    incomplete: incompleteReasons(traffic),
    connect: needsConnecting(query, traffic) ? { lines: connectHint.join('\n'), rejected: traffic.ledgers.reduce((sum, ledger) => sum + sumOf(ledger.rejected), 0) } : undefined,
    empty: sources.length === 0,
    sources: sources.map((source) => sourceView(source, traffic, tops, nowMs, link)),
    charts: chartsView(traffic, nowMs, link),
    sourcesWithoutChart: Math.max(0, sources.length - chartSourcesMax),
    windowLength: windowLength(traffic.stepMs),
    tables: sources.slice(0, chartSourcesMax).map((source) => windowsTable(source, traffic, link)),
    pairs: traffic.pairs.map((pair, index) => pairView(pair, index, traffic)),
    tops: topsView(traffic, tops, link),
    topsOfNewest: tops.ofNewest === undefined ? undefined : count(tops.ofNewest),
    latest: latest.map((request) => requestView(request, query, link)),
    errorsHref: query.given.status === '5xx' ? undefined : link({ status: '5xx' }),
    latestCsvHref: link({}, '/api/requests.csv'),
    ledger: ledgerView(traffic.ledgers, nowMs),
  };
}

interface Status {
  readonly state: State | 'quiet';
  readonly word: string;
  readonly detail: string;
  /** What else is not well. */
  readonly more: readonly string[];
  readonly title: string;
}

/** The sentence at the top: the gravest that is found of any source, or how the edge does (the first app, where no edge is seen). */
function statusOf({ sources, windows, range, stepMs, previous }: Traffic, nowMs: number): Status {
  const [first] = sources;
  if (first === undefined) return { state: 'quiet', word: 'Quiet', detail: 'no requests in this range', more: [], title: 'Quiet' };
  const [firstSource, figures] = first;
  const facts = [
    rate(figures.requests, elapsed(range, nowMs)),
    ...(figures.latencyMs.p95 === null ? [] : [`p95 ${duration(figures.latencyMs.p95)}`]),
    `${percent(figures.errors / figures.requests)} errors`,
  ].join(', ');
  const liveMs = nowMs < range.toMs + stepMs ? nowMs : undefined;
  const verdicts = [...sources.keys()].map((source) => ({
    source,
    verdict: judge(windows.filter((window) => window.source === source), { stepMs, previous: previous?.get(source), liveMs }),
  }));
  const found = verdicts.flatMap(({ source, verdict }) => findingOf(source, verdict, nowMs) ?? []);
  const [worst, ...rest] = [...found.filter(({ state }) => state === 'failing'), ...found.filter(({ state }) => state === 'troubled')];
  if (worst !== undefined) {
    return { state: worst.state, word: worst.word, detail: worst.detail, more: rest.map(({ word, detail }) => `${word} ${detail}`), title: `${worst.word} ${worst.detail}` };
  }
  const judged = verdicts.some(({ verdict }) => verdict.kind !== 'unjudged');
  const word = judged ? 'All well' : 'Too little traffic to judge';
  return { state: judged ? 'well' : 'quiet', word: `${word}:`, detail: `${facts} at ${placeOf(firstSource)}`, more: [], title: `${word}: ${facts}` };
}

function findingOf(source: string, verdict: Verdict, nowMs: number): { state: State; word: string; detail: string } | undefined {
  switch (verdict.kind) {
    case 'errors': return { state: verdict.state, word: `5xx rose to ${percent(verdict.share)}`, detail: `at ${moment(verdict.sinceMs, nowMs).slice(0, -3)} UTC at ${placeOf(source)}` };
    case 'slow': return { state: verdict.state, word: `p95 rose to ${duration(verdict.p95Ms)}`, detail: `at ${moment(verdict.sinceMs, nowMs).slice(0, -3)} UTC at ${placeOf(source)}; the period before it was ${duration(verdict.usualMs)}` };
    case 'silent': return { state: verdict.state, word: `No requests from ${printable(source, 60)}`, detail: `since ${moment(verdict.sinceMs, nowMs)} UTC` };
    case 'well':
    case 'unjudged': return undefined;
  }
}

function placeOf(source: string): string {
  return source === caddySource ? 'the edge' : printable(source, 60);
}

/** The range up to now, where it reaches beyond: its last window is still open. */
function elapsed({ fromMs, toMs }: TimeRange, nowMs: number): TimeRange {
  return { fromMs, toMs: Math.min(toMs, nowMs) };
}

function rangeView(query: DashboardQuery, aligned: TimeRange, nowMs: number, tickMs: number) {
  const live = (query.given.to ?? defaults.to) === 'now';
  const fromMs = live ? Math.floor(query.fromMs / tickMs) * tickMs : query.fromMs;
  const toMs = live ? nowMs : query.toMs;
  const sameDay = day(fromMs) === day(toMs) && day(toMs) === day(nowMs);
  const text = (timeMs: number): string => (sameDay ? '' : `${day(timeMs)}${new Date(timeMs).getUTCFullYear() === new Date(nowMs).getUTCFullYear() ? '' : ` ${new Date(timeMs).getUTCFullYear()}`} `) + clock(timeMs);
  return { from: { iso: isoTime(aligned.fromMs), text: text(fromMs) }, to: { iso: isoTime(aligned.toMs), text: text(toMs) } };
}

/** Links to the range before and after, and to half and twice of it. Those that reach up to now stay live. */
function stepsView(query: DashboardQuery, nowMs: number, tickMs: number, link: Link) {
  const [fromMs, toMs] = [query.fromMs, query.toMs].map((timeMs) => Math.floor(timeMs / tickMs) * tickMs) as [number, number];
  const lengthMs = Math.max(tickMs, toMs - fromMs);
  const live = (query.given.to ?? defaults.to) === 'now';
  const to = (startMs: number, endMs: number): string | undefined => {
    if (endMs - startMs < 1000 || startMs < 0) return undefined;
    return endMs >= nowMs ? link({ from: `now-${relative(endMs - startMs)}`, to: undefined }) : link({ from: isoTime(startMs), to: isoTime(endMs) });
  };
  return [
    { label: '‹', words: 'Earlier', href: to(fromMs - lengthMs, toMs - lengthMs) },
    { label: '›', words: 'Later', href: live ? undefined : to(fromMs + lengthMs, toMs + lengthMs) },
    { label: '−', words: 'Zoom out', href: live ? to(nowMs - 2 * lengthMs, nowMs) : to(fromMs - lengthMs / 2, toMs + lengthMs / 2) },
    { label: '+', words: 'Zoom in', href: live ? to(nowMs - lengthMs / 2, nowMs) : to(fromMs + lengthMs / 4, toMs - lengthMs / 4) },
  ].filter(({ href }) => href !== undefined);
}

/** `6h`, `90m`, `45s`. */
function relative(lengthMs: number): string {
  const seconds = Math.round(lengthMs / 1000);
  if (seconds % 86_400 === 0) return `${seconds / 86_400}d`;
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** The form: what can be typed, and what it carries along unseen. */
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
      { name: 'method', label: 'Method', value: given.method, hint: 'GET', options: ['GET', 'POST', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] },
      { name: 'status', label: 'Status', value: given.status, hint: '5xx or 404', options: ['2xx', '3xx', '4xx', '5xx'] },
      { name: 'path', label: 'Path', value: given.path, hint: '/checkout' },
    ],
    kept: (['from', 'to', 'refresh', 'compare', 'limit'] as const).flatMap((name) => (given[name] === undefined ? [] : [{ name, value: given[name] }])),
    keptWithRange: [...filters, 'compare' as const, 'limit' as const].flatMap((name) => (given[name] === undefined ? [] : [{ name, value: given[name] }])),
    from: absolute ? local(query.fromMs) : undefined,
    to: absolute ? local(query.toMs) : undefined,
  };
}

function sourceView(source: string, { sources, range, previous: before }: Traffic, { bySource, ofNewest }: Tops, nowMs: number, link: Link) {
  const clients = bySource.get(source)?.clients ?? null;
  const figures = sources.get(source)!;
  const { latencyMs, requests, errors, clientErrors } = figures;
  const previous = before?.get(source);
  const soFar = elapsed(range, nowMs);
  const perMs = (sum: number, { fromMs, toMs }: TimeRange): number => sum / (toMs - fromMs);
  const judged = requests >= judgedRequestsMin && previous !== undefined && previous.requests >= judgedRequestsMin;
  // Sums are compared by the time that they took, since the period before has ended and this one may not.
  const sumChange = (sum: number, sumBefore: number | undefined): Change | undefined => changeOf(perMs(sum, soFar), sumBefore === undefined ? undefined : perMs(sumBefore, range), false);
  const latency = (name: string, value: number | null, valueBefore: number | null | undefined, note?: string) => ({ name, value: duration(value), change: changeOf(value, valueBefore, judged), note });
  const share = (name: string, part: number, partBefore: number | undefined, alarm: boolean) => ({
    name, value: percent(part / requests), note: count(part), alarm,
    change: pointsOf(part / requests, previous === undefined || partBefore === undefined ? undefined : partBefore / previous.requests, judged),
  });
  const p99Before = previous === undefined ? null : p99(previous);
  return {
    source: printable(source, 60),
    role: source === caddySource ? 'at the edge' : 'inside the app',
    href: link({ source }),
    figures: [
      { name: 'Requests', value: count(requests), change: sumChange(requests, previous?.requests) },
      { name: 'Rate', value: rate(requests, soFar) },
      ...(clients === null ? [] : [{ name: 'Clients', value: count(clients), note: ofNewest === undefined ? 'addresses' : `in the newest ${count(ofNewest)}` }]),
      share('5xx', errors, previous?.errors, requests >= judgedRequestsMin && errors / requests > errorShares.troubled.enter),
      share('4xx', clientErrors, previous?.clientErrors, false),
      latency('Mean', latencyMs.mean, previous?.latencyMs.mean, latencyMs.max === null ? 'no latency' : `max${nbsp}${duration(latencyMs.max)}`),
      latency('p50', latencyMs.p50, previous?.latencyMs.p50),
      latency('p95', latencyMs.p95, previous?.latencyMs.p95),
      latency('p99', p99(figures), p99Before, requests < p99RequestsMin ? `from ${p99RequestsMin} requests` : undefined),
      { name: 'Sent', value: bytes(figures.bytes), note: `${bytes(figures.bytes / requests)}${nbsp}each`, change: sumChange(figures.bytes, previous?.bytes) },
    ],
    statuses: statusesView(figures, link, source),
  };
}

/** How a figure differs from the same of the previous period. */
interface Change {
  /** `+12 %` */
  readonly text: string;
  /** `up 12 % on the previous period`, for those who do not see the sign. */
  readonly words: string;
  /** Whether it is a rise of something that should not rise. */
  readonly worse: boolean;
}

/** The change of a value by its share; `undefined` where there is nothing to compare with. */
function changeOf(value: number | null, before: number | null | undefined, judged: boolean): Change | undefined {
  if (value === null || before === null || before === undefined || before === 0) return undefined;
  const share = value / before - 1;
  const size = share >= 9.995 ? `${number(value / before, 0)} times` : `${number(Math.abs(share) * 100, Math.abs(share) < 0.0995 ? 1 : 0)}${nbsp}%`;
  return changeText(share, share >= 9.995 ? `×${nbsp}${number(value / before, 0)}` : size, size, judged && share > risenShare);
}

/** The change of a share in percentage points. */
function pointsOf(share: number, before: number | undefined, judged: boolean): Change | undefined {
  if (before === undefined) return undefined;
  const points = share - before;
  const size = number(Math.abs(points) * 100, 1);
  return changeText(size === '0' ? 0 : points, `${size}${nbsp}pp`, `${size} percentage points`, judged && points > risenPoints);
}

function changeText(change: number, text: string, size: string, worse: boolean): Change {
  if (change === 0 || /^0\D/.test(text)) return { text: '±0', words: 'as in the previous period', worse: false };
  const sign = text.startsWith('×') ? '' : change > 0 ? '+' : '−';
  return { text: sign + text, words: `${change > 0 ? 'up' : 'down'} ${size} on the previous period`, worse };
}

function statusesView({ requests, statuses }: Figures, link: Link, source: string) {
  return [...statuses].map(([status, requestsOfStatus]) => ({
    status: status === 0 ? 'none' : String(status),
    reason: status === 0 ? 'no response' : STATUS_CODES[status] ?? '',
    class: statusClass(status),
    count: count(requestsOfStatus),
    share: percent(requestsOfStatus / requests),
    /** Of 100. */
    bar: Math.max(0.5, Math.round((requestsOfStatus / requests) * 1000) / 10),
    href: link({ status: String(status), source }),
  }));
}

/** Rows of a list on the page; its CSV has more. */
const topRowsMax = 10;
/** A count of which a larger share may be missing is marked. */
const missedShareMax = 0.01;

const lists: readonly { readonly name: ListedDimension | 'host' | 'method'; readonly title: string; readonly filter?: Parameter }[] = [
  { name: 'path', title: 'Paths', filter: 'path' },
  { name: 'host', title: 'Hosts', filter: 'host' },
  { name: 'method', title: 'Methods', filter: 'method' },
  { name: 'referrer', title: 'Referrers' },
  { name: 'client', title: 'Clients' },
  { name: 'browser', title: 'Browsers' },
  { name: 'system', title: 'Systems' },
  { name: 'bot', title: 'Bots' },
  { name: 'user_agent', title: 'User agents' },
];

/** The lists of the first source; what nothing is known of has none. */
function topsView(traffic: Traffic, { bySource }: Tops, link: Link) {
  const [first = caddySource] = traffic.sources.keys();
  return lists.map(({ name, title, filter }) => ({
    name, title,
    href: (value: string) => (filter === undefined || value === '' || isCut(value) ? undefined : link({ [filter]: value })),
    csvHref: link({ refresh: undefined }, `/api/top/${name}.csv`),
    list: name === 'host' ? exactList(traffic.hosts) : name === 'method' ? exactList(traffic.methods) : listOf(bySource.get(first), name),
  })).filter(({ list }) => list.values.size > 0).map(topView);
}

function topView({ name, title, href, csvHref, list: { total, values } }: { name: string; title: string; href: (value: string) => string | undefined; csvHref: string; list: TopList }) {
  return {
    name,
    title,
    csvHref,
    more: Math.max(0, values.size - topRowsMax),
    rows: [...values].slice(0, topRowsMax).map(([value, { requests, errors, bytes: size, latencyMs, missedMax }]) => ({
      text: printable(value, 60) || 'none',
      full: value.length > 60 ? printable(value, 250) : undefined,
      href: href(value),
      count: missedMax > requests * missedShareMax ? `≥${nbsp}${count(requests)}` : count(requests),
      share: percent(requests / total),
      /** Of 100. */
      bar: Math.max(0.5, Math.round((requests / total) * 1000) / 10),
      errors: count(errors),
      alarm: requests >= judgedRequestsMin && errors / requests > errorShares.troubled.enter,
      p95: duration(latencyMs.p95),
      bytes: bytes(size),
    })),
  };
}

function pairView({ app, outsideMeanMs, outsideP50Ms, outsideP95Ms, edgeOnlyErrors, bypassed, windows }: Pair, index: number, { range, stepMs }: Traffic) {
  const signed = (valueMs: number | null): string => (valueMs !== null && valueMs < 0 ? `−${duration(-valueMs)}` : duration(valueMs));
  const values = new Map(windows.map((window) => [window.timeMs, window.outsideMeanMs]));
  const timesMs: number[] = [];
  for (let timeMs = range.fromMs; timeMs < range.toMs; timeMs += stepMs) timesMs.push(timeMs);
  return {
    app: printable(app, 60),
    figures: [
      { name: 'Outside the app, mean', value: signed(outsideMeanMs), note: 'edge − app' },
      { name: 'p50', value: signed(outsideP50Ms), note: 'edge’s − app’s' },
      { name: 'p95', value: signed(outsideP95Ms), note: 'edge’s − app’s' },
      { name: 'Errors of the edge alone', value: count(edgeOnlyErrors), note: '5xx that the app never sent', alarm: edgeOnlyErrors > 0 },
      { name: 'Past the edge', value: count(bypassed), note: 'requests that came to the app directly', alarm: bypassed > 0 },
    ],
    svg: timeChart({
      id: `outside-${index + 1}`, title: `Time outside ${printable(app, 60)}`, kind: 'lines', ...range, stepMs, timesMs,
      description: `Mean latency at the edge less that in ${printable(app, 60)}, in ${windowLength(stepMs)} windows: ${signed(outsideMeanMs)} over the whole range.`,
      // Different clocks and different requests can make the app seem slower than the edge: that is drawn as nothing.
      series: [{ label: 'edge − app', class: 'series-1', values: timesMs.map((timeMs) => (values.has(timeMs) ? Math.max(0, values.get(timeMs)!) : null)) }],
      formatValue: duration, formatTime: clockOrDay,
    }),
  };
}

/** A row for each kind of chart, with one panel for each source: they share the axis of values. */
function chartsView(traffic: Traffic, nowMs: number, link: Link) {
  const sources = [...traffic.sources.keys()].slice(0, chartSourcesMax);
  return chartKinds.map((kind) => {
    const charts = sources.map((source, index) => ({ source, chart: chartOf(kind, source, traffic, { id: `${kind.name}-${index + 1}`, nowMs }) }));
    const valueMaxMin = Math.max(...charts.map(({ chart }) => valueMaxOf(chart)));
    return {
      name: kind.name,
      title: kind.title,
      panels: charts.map(({ source, chart }) => ({
        source: printable(source, 60),
        svg: timeChart({ ...chart, valueMaxMin }),
        legend: chart.series.length < 2 ? [] : chart.series.map(({ label, class: name, hatched }) => ({ label, class: name, kind: kind.kind, fill: hatched ? `url(#${chart.id}-${name})` : undefined })),
        links: ['svg', 'csv', 'json'].map((format) => ({ label: format.toUpperCase(), href: link({ source, refresh: undefined }, `/chart/${kind.name}.${format}`) })),
      })),
    };
  });
}

/** What the charts of one source show, as a table. */
function windowsTable(source: string, { windows, stepMs }: Traffic, link: Link) {
  return {
    source: printable(source, 60),
    csvHref: link({ source, refresh: undefined }, '/api/series.csv'),
    columns: ['Requests', '2xx', '3xx', '4xx', '5xx', 'Error share', 'Mean', 'p50', 'p95', 'p99', 'Sent'],
    rows: windows.filter((window) => window.source === source).map((window) => {
      const { timeMs, statuses, latencyMs: { mean, p50, p95 } } = window;
      const ofClass = (first: number): string => count([...statuses].reduce((sum, [status, requests]) => (Math.floor(status / 100) === first ? sum + requests : sum), 0));
      return {
        iso: isoTime(timeMs),
        text: stepMs >= 86_400_000 ? day(timeMs) : `${day(timeMs)} ${clock(timeMs)}${stepMs < 60_000 ? new Date(timeMs).toISOString().slice(16, 19) : ''}`,
        cells: [
          count(window.requests), ofClass(2), ofClass(3), ofClass(4), ofClass(5), percent(window.errors / window.requests),
          duration(mean), duration(p50), duration(p95), duration(p99(window)), bytes(window.bytes),
        ],
      };
    }),
  };
}

function requestView(request: RequestEvent, query: DashboardQuery, link: Link) {
  const { source, host, method, uri, status, endpoint } = request;
  const path = uri.split('?', 1)[0] ?? '';
  return {
    iso: rfc3339(request),
    text: `${query.toMs - query.fromMs > 86_400_000 ? `${day(request.timeMs)} ` : ''}${new Date(request.timeMs).toISOString().slice(11, 23)}`,
    source: { text: printable(source, 60), href: link({ source }) },
    host: { text: printable(host, 60), href: host === '' ? undefined : link({ host }) },
    method: { text: printable(method, 20), href: link({ method }) },
    uri: { text: printable(uri, 120), full: printable(uri, 1000), href: path === '' ? undefined : link({ path }) },
    endpoint: printable(endpoint, 60),
    status: { text: status === 0 ? 'none' : String(status), class: statusClass(status), href: link({ status: String(status) }) },
    duration: duration(request.durationMs),
    size: bytes(request.size),
  };
}

function ledgerView(ledgers: readonly LedgerSnapshot[], nowMs: number) {
  return [...ledgers].sort((a, b) => (a.collector < b.collector ? -1 : 1)).map((ledger) => {
    const figure = (name: string, value: number, note: string, alarm = false) => ({ name, value: count(value), note, alarm: alarm && value > 0 });
    return {
      collector: printable(ledger.collector, 40),
      silent: nowMs - ledger.timeMs > reportSilenceMsMax ? `no report since ${moment(ledger.timeMs, nowMs)}` : undefined,
      figures: [
        { name: 'Last line', value: ledger.lastLineMs === null ? 'none' : moment(ledger.lastLineMs, nowMs), note: ledger.lastLineMs === null ? 'since it started' : 'UTC', alarm: false },
        figure('Received', ledger.received, 'lines since it started'),
        figure('Accepted', ledger.accepted, 'requests'),
        figure('Runtime', ledger.runtime, 'Caddy’s other logs'),
        figure('Rejected', sumOf(ledger.rejected), reasonsText(ledger.rejected) || 'not understood'),
        figure('Dropped', sumOf(ledger.dropped), reasonsText(ledger.dropped) || 'lost here', true),
        figure('Stored', ledger.stored, 'of the accepted'),
        figure('In memory', ledger.inMemory, 'to be written'),
        figure('Spooled', ledger.spooled, 'waiting on disk', true),
        figure('Dead-lettered', ledger.deadLettered, 'refused by the store', true),
        ...ledgerWarnings.filter((warning) => (ledger.warnings[warning] ?? 0) > 0).map((warning) => figure(warningTexts[warning].name, ledger.warnings[warning]!, warningTexts[warning].note, true)),
      ],
    };
  });
}

const warningTexts: Readonly<Record<LedgerWarning, { readonly name: string; readonly note: string }>> = {
  'peers-not-allowed': { name: 'Turned away', note: 'not in COLLECTOR_ALLOW' },
  'peers-too-many-connections': { name: 'Turned away', note: 'too many connections' },
  'datagrams-lost': { name: 'Lost over UDP', note: 'by the kernel' },
  'earlier-spooled': { name: 'Still spooled', note: 'by an earlier start' },
};

function reasonsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts).filter(([, lines]) => lines > 0).map(([reason, lines]) => `${printable(reason, 40)} ${count(lines)}`).join(', ');
}

function incompleteReasons({ bounded, ledgers, complete }: Traffic): string[] {
  if (complete) return [];
  const total = (of: (ledger: LedgerSnapshot) => number): number => ledgers.reduce((sum, ledger) => sum + of(ledger), 0);
  const dropped = total((ledger) => sumOf(ledger.dropped));
  const spooled = total((ledger) => ledger.spooled);
  const deadLettered = total((ledger) => ledger.deadLettered);
  const earlier = total((ledger) => ledger.warnings['earlier-spooled'] ?? 0);
  const datagrams = total((ledger) => ledger.warnings['datagrams-lost'] ?? 0);
  return [
    ...(bounded ? ['the filter by path reads raw requests and stopped at its limit: choose a shorter range'] : []),
    ...(dropped > 0 ? [`${count(dropped)} lines were dropped`] : []),
    ...(spooled > 0 ? [`${count(spooled)} requests are on disk, waiting for the store`] : []),
    ...(deadLettered > 0 ? [`${count(deadLettered)} requests were refused by the store`] : []),
    ...(earlier > 0 ? [`${count(earlier)} requests of an earlier start are on disk, waiting for the store`] : []),
    ...(datagrams > 0 ? [`${count(datagrams)} lines that came over UDP were lost in the kernel`] : []),
  ];
}

/** Whether Caddy seems not to be connected yet: no request of its own, none accepted, and no filter that would hide them. */
function needsConnecting({ filter }: DashboardQuery, { sources, ledgers }: Traffic): boolean {
  return Object.keys(filter).length === 0 && !sources.has(caddySource) && ledgers.every(({ accepted }) => accepted === 0);
}

type Link = (changes: Partial<Record<Parameter, string | undefined>>, path?: string) => string;

/** Links that keep the parameters of the page but for some; `undefined` takes one away. */
function linksOf({ given }: DashboardQuery): Link {
  return (changes, path = '/') => {
    const parameters = Object.entries({ ...given, edit: undefined, ...changes }).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '');
    const search = new URLSearchParams(parameters).toString();
    return search === '' ? path : `${path}?${search}`;
  };
}

function p99({ requests, latencyMs }: Figures): number | null {
  return requests < p99RequestsMin ? null : latencyMs.p99;
}

function statusClass(status: number): string {
  return status >= 100 && status <= 599 ? `status-${Math.floor(status / 100)}xx` : 'status-none';
}
