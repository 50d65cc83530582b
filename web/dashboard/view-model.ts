/** All formatting of the page: from figures to the text, links and charts that the templates only loop over. */
import { STATUS_CODES } from 'node:http';
import { lineChart, seriesClass, type ChartPoint, type LineChart } from '../chart/line-chart.js';
import { caddySource, rfc3339, type RequestEvent } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import type { LedgerSnapshot, TimeRange } from '../../shared/store/store.js';
import { sumOf, type Figures, type WindowFigures } from './fold.js';
import { errorShares, judge, judgedRequestsMin, type State, type Verdict } from './judge.js';
import { defaults, type DashboardQuery, type Parameter } from './query.js';
import type { Traffic } from './read.js';

/** What the page is made from. */
export interface DashboardData {
  readonly query: DashboardQuery;
  readonly traffic: Traffic;
  readonly latest: readonly RequestEvent[];
  readonly nowMs: number;
  readonly connectHint: readonly string[];
}

/** The p99 of fewer requests says little: it is left out. */
const p99RequestsMin = 100;
/** Latencies that rise by more than this share, and shares of errors that rise by more than `risenPoints`, are marked. */
const risenShare = 0.25;
const risenPoints = 0.005;

const ranges = [['15m', '15 min'], ['1h', '1 h'], ['6h', '6 h'], ['24h', '24 h'], ['7d', '7 d'], ['30d', '30 d']] as const;
const refreshes = [['off', 'off'], ['5', '5 s'], ['15', '15 s'], ['60', '60 s']] as const;
const filters: readonly Parameter[] = ['source', 'host', 'method', 'status', 'path'];
/** A collector reports every few seconds: one that is silent for this long has stopped or is cut off. */
const reportSilenceMsMax = 60_000;
const ticksPerWindow = 6;
const none = '–';
const nbsp = '\u00a0';

/** Makes the view of the dashboard. Its clock ticks in parts of a window, so that a page on which nothing happens stays the same. */
export function dashboardView({ query, traffic, latest, nowMs: exactMs, connectHint }: DashboardData) {
  const tickMs = traffic.stepMs / ticksPerWindow;
  const nowMs = Math.max(traffic.range.fromMs + tickMs, Math.floor(exactMs / tickMs) * tickMs);
  const status = statusOf(traffic, nowMs);
  const sources = [...traffic.sources.keys()];
  const link = linksOf(query);
  return {
    title: status.title,
    status,
    refreshSeconds: query.refreshSeconds,
    range: rangeView(query, traffic.range, nowMs),
    ranges: ranges.map(([name, label]) => ({ label, href: link({ from: `now-${name}`, to: undefined }), current: (query.given.to ?? defaults.to) === defaults.to && (query.given.from ?? defaults.from) === `now-${name}` })),
    refreshes: refreshes.map(([name, label]) => ({ label, href: link({ refresh: name }), current: name === (query.refreshSeconds?.toString() ?? 'off') })),
    filters: filters.filter((name) => query.given[name] !== undefined).map((name) => ({ name, value: printable(query.given[name] ?? '', 80), href: link({ [name]: undefined }) })),
    incomplete: incompleteReasons(traffic),
    connect: needsConnecting(query, traffic) ? { lines: connectHint.join('\n'), rejected: traffic.ledgers.reduce((sum, ledger) => sum + sumOf(ledger.rejected), 0) } : undefined,
    empty: sources.length === 0,
    sources: sources.map((source, index) => sourceView(source, index, traffic, nowMs, link)),
    charts: [latencyChart(traffic), requestsChart(traffic, nowMs)].map((chart) => ({
      id: chart.id,
      title: chart.title,
      unit: chart.unit,
      svg: lineChart(chart),
      svgHref: link({}, `/chart/${chart.id}.svg`),
    })),
    legend: sources.map((source, index) => ({ source: printable(source, 60), class: seriesClass(index) })),
    windowLength: windowLength(traffic.stepMs),
    table: windowsTable(traffic, sources),
    csvHref: link({}, '/api/series.csv'),
    latest: latest.map((request) => requestView(request, query, link)),
    latestCsvHref: link({}, '/api/requests.csv'),
    ledger: ledgerView(traffic.ledgers, nowMs),
  };
}

/** A line chart with the unit of its values and a name for its URL, which is its id. */
export interface NamedChart extends LineChart {
  readonly unit: string;
}

/** The charts by name, for `/chart/:name.svg`. */
export const charts: Readonly<Record<string, (traffic: Traffic, nowMs: number) => NamedChart>> = {
  latency: (traffic) => latencyChart(traffic),
  requests: requestsChart,
};

function latencyChart(traffic: Traffic): NamedChart {
  const figures = [...traffic.sources].map(([source, { latencyMs: { mean, p95 } }]) => `${source}: mean ${duration(mean)}, p95 ${duration(p95)}`);
  return chartOf(traffic, {
    id: 'latency',
    title: 'Mean latency',
    unit: 'ms',
    description: `Mean latency of each source in ${windowLength(traffic.stepMs)} windows. ${figures.join('; ')}.`,
    valueOf: ({ latencyMs }) => latencyMs.mean,
    formatValue: duration,
  });
}

function requestsChart(traffic: Traffic, nowMs: number): NamedChart {
  const figures = [...traffic.sources].map(([source, { requests }]) => `${source}: ${count(requests)} requests`);
  return chartOf(traffic, {
    id: 'requests',
    title: 'Requests per second',
    unit: 'req/s',
    description: `Requests per second of each source in ${windowLength(traffic.stepMs)} windows. ${figures.join('; ')}.`,
    // The window that is still open counts for as long as it has been open, and for a quarter at least: its start is noisy.
    valueOf: ({ requests, timeMs }) => requests / (Math.min(traffic.stepMs, Math.max(traffic.stepMs / 4, nowMs - timeMs)) / 1000),
    formatValue: (value) => number(value, value < 10 ? 2 : 0),
  });
}

interface ChartSpec {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  readonly description: string;
  readonly valueOf: (window: WindowFigures) => number | null;
  readonly formatValue: (value: number) => string;
}

function chartOf({ range, stepMs, windows, sources }: Traffic, { valueOf, ...spec }: ChartSpec): NamedChart {
  const values = new Map(windows.map((window) => [`${window.timeMs} ${window.source}`, valueOf(window)]));
  const series = [...sources.keys()].map((source) => {
    const points: ChartPoint[] = [];
    for (let timeMs = range.fromMs; timeMs < range.toMs; timeMs += stepMs) {
      points.push({ timeMs: timeMs + stepMs / 2, value: values.get(`${timeMs} ${source}`) ?? null });
    }
    return { label: printable(source, 60), points };
  });
  return { ...spec, ...range, series, formatTime: clockOrDay };
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

function rangeView(query: DashboardQuery, aligned: TimeRange, nowMs: number) {
  const live = (query.given.to ?? defaults.to) === 'now';
  const toMs = live ? nowMs : query.toMs;
  const sameDay = day(query.fromMs) === day(toMs) && day(toMs) === day(nowMs);
  const text = (timeMs: number): string => (sameDay ? '' : `${day(timeMs)}${new Date(timeMs).getUTCFullYear() === new Date(nowMs).getUTCFullYear() ? '' : ` ${new Date(timeMs).getUTCFullYear()}`} `) + clock(timeMs);
  return {
    from: { iso: isoTime(aligned.fromMs), text: text(query.fromMs) },
    to: { iso: isoTime(aligned.toMs), text: text(toMs) },
  };
}

function sourceView(source: string, index: number, { sources, range, previous: before }: Traffic, nowMs: number, link: Link) {
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
    class: seriesClass(index),
    href: link({ source }),
    figures: [
      { name: 'Requests', value: count(requests), change: sumChange(requests, previous?.requests) },
      { name: 'Rate', value: rate(requests, soFar) },
      share('5xx', errors, previous?.errors, requests >= judgedRequestsMin && errors / requests > errorShares.troubled.enter),
      share('4xx', clientErrors, previous?.clientErrors, false),
      latency('Mean', latencyMs.mean, previous?.latencyMs.mean, latencyMs.max === null ? 'no latency' : `max ${duration(latencyMs.max)}`),
      latency('p50', latencyMs.p50, previous?.latencyMs.p50),
      latency('p95', latencyMs.p95, previous?.latencyMs.p95),
      latency('p99', p99(figures), p99Before, requests < p99RequestsMin ? `from ${p99RequestsMin} requests` : undefined),
      { name: 'Sent', value: bytes(figures.bytes), note: `${bytes(figures.bytes / requests)} each`, change: sumChange(figures.bytes, previous?.bytes) },
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

function windowsTable({ windows, stepMs }: Traffic, sources: readonly string[]) {
  const times = [...new Set(windows.map(({ timeMs }) => timeMs))];
  const found = new Map(windows.map((window) => [`${window.timeMs} ${window.source}`, window]));
  return {
    sources: sources.map((source) => printable(source, 60)),
    rows: times.map((timeMs) => ({
      iso: isoTime(timeMs),
      text: stepMs >= 86_400_000 ? day(timeMs) : `${day(timeMs)} ${clock(timeMs)}`,
      cells: sources.flatMap((source) => {
        const window = found.get(`${timeMs} ${source}`);
        if (window === undefined) return Array.from({ length: windowColumns.length }, () => none);
        const { mean, p50, p95 } = window.latencyMs;
        return [count(window.requests), count(window.errors), duration(mean), duration(p50), duration(p95), duration(p99(window))];
      }),
    })),
    columns: windowColumns,
  };
}

const windowColumns = ['Requests', 'Errors', 'Mean', 'p50', 'p95', 'p99'];

function requestView(request: RequestEvent, query: DashboardQuery, link: Link) {
  const { source, host, method, uri, status, endpoint } = request;
  const path = uri.split('?', 1)[0] ?? '';
  return {
    iso: rfc3339(request),
    text: `${query.toMs - query.fromMs > 86_400_000 ? `${day(request.timeMs)} ` : ''}${new Date(request.timeMs).toISOString().slice(11, 23)}`,
    source: printable(source, 60),
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
      ],
    };
  });
}

function reasonsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts).filter(([, lines]) => lines > 0).map(([reason, lines]) => `${printable(reason, 40)} ${count(lines)}`).join(', ');
}

function incompleteReasons({ bounded, ledgers, complete }: Traffic): string[] {
  if (complete) return [];
  const total = (of: (ledger: LedgerSnapshot) => number): number => ledgers.reduce((sum, ledger) => sum + of(ledger), 0);
  const dropped = total((ledger) => sumOf(ledger.dropped));
  const spooled = total((ledger) => ledger.spooled);
  const deadLettered = total((ledger) => ledger.deadLettered);
  return [
    ...(bounded ? ['the filter by path reads raw requests and stopped at its limit: choose a shorter range'] : []),
    ...(dropped > 0 ? [`${count(dropped)} lines were dropped`] : []),
    ...(spooled > 0 ? [`${count(spooled)} requests are on disk, waiting for the store`] : []),
    ...(deadLettered > 0 ? [`${count(deadLettered)} requests were refused by the store`] : []),
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
    const parameters = Object.entries({ ...given, ...changes }).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '');
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

/** A whole number: `50,000`. */
function count(value: number): string {
  return number(value, 0);
}

/** At most `digits` digits after the point. */
function number(value: number, digits: number): string {
  return (formats[digits] ??= new Intl.NumberFormat('en-GB', { maximumFractionDigits: digits })).format(value);
}

const formats: Intl.NumberFormat[] = [];

/** `0.03 ms`, `3.2 ms`, `38 ms`, `1.24 s`. */
function duration(valueMs: number | null): string {
  if (valueMs === null) return none;
  if (valueMs >= 1000) return `${number(valueMs / 1000, valueMs >= 100_000 ? 0 : 2)}${nbsp}s`;
  if (valueMs > 0 && valueMs < 0.01) return `${number(valueMs * 1000, valueMs < 0.001 ? 2 : 0)}${nbsp}µs`;
  return `${number(valueMs, valueMs < 1 ? 2 : valueMs < 10 ? 1 : 0)}${nbsp}ms`;
}

/** A share of 1: `0.2 %`. */
function percent(share: number): string {
  if (share > 0 && share < 0.0005) return `<${nbsp}0.1${nbsp}%`;
  if (share < 1 && share > 0.9995) return `>${nbsp}99.9${nbsp}%`;
  return `${share === 0 || share === 1 ? share * 100 : (share * 100).toFixed(1)}${nbsp}%`;
}

/** Decimal units: `1.2 MB`. */
function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${number(rest, unit === 0 || rest >= 100 ? 0 : 1)}${nbsp}${units[unit]}`;
}

function rate(requests: number, { fromMs, toMs }: TimeRange): string {
  const perSecond = requests / ((toMs - fromMs) / 1000);
  if (perSecond >= 0.1 || requests === 0) return `${number(perSecond, perSecond < 10 ? 1 : 0)}${nbsp}req/s`;
  if (perSecond * 60 >= 0.1) return `${number(perSecond * 60, 1)}${nbsp}req/min`;
  return `${number(perSecond * 3600, 1)}${nbsp}req/h`;
}

/** A time that has passed, to the second, with its day where that is not today. (`3 s ago` would make every answer a new one.) */
function moment(timeMs: number, nowMs: number): string {
  return `${day(timeMs) === day(nowMs) ? '' : `${day(timeMs)}${nbsp}`}${new Date(timeMs).toISOString().slice(11, 19)}`;
}

/** `10-second`, `1-minute`, … */
function windowLength(stepMs: number): string {
  const seconds = stepMs / 1000;
  if (seconds < 60) return `${seconds}-second`;
  if (seconds < 3600) return `${seconds / 60}-minute`;
  return seconds < 86_400 ? `${seconds / 3600}-hour` : `${seconds / 86_400}-day`;
}

function clock(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(11, 16);
}

function day(timeMs: number): string {
  const time = new Date(timeMs);
  return `${time.getUTCDate()}${nbsp}${['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'][time.getUTCMonth()]}`;
}

function clockOrDay(timeMs: number): string {
  return timeMs % 86_400_000 === 0 ? day(timeMs) : clock(timeMs);
}

/**
 * Text from strangers, made safe to look at: control and direction characters as `\u{…}`, and cut at `lengthMax` characters.
 * (Pug escapes markup.)
 */
export function printable(text: string, lengthMax: number): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax).replace(/[\ud800-\udbff]$/, '')}…` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
