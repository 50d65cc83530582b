/** The controls of the page: range, comparison, refresh, filters, and the order of the latest requests. */
import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import { isoTime } from '../../shared/time-range.js';
import type { TimeRange } from '../../shared/store/store.js';
import { clientText, clock, day, dayOf, printable } from '../format.js';
import { defaults, filterNames, type DashboardQuery, type Parameter } from '../query/query.js';
import type { Traffic } from '../query/read-traffic.js';
import type { Link } from './link.js';
import { missingPeriod } from './notes.js';

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

/** The clock of the page, which ticks every `tickMs`. */
export interface PageClock {
  readonly nowMs: number;
  readonly tickMs: number;
}

/** Returns the controls. */
export function controlsView(
  query: DashboardQuery,
  traffic: Traffic,
  { nowMs, tickMs }: PageClock,
  { link, clientIp }: { link: Link; clientIp: ClientIpPolicy | undefined },
) {
  return {
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
    form: formView(query, [...traffic.sources.keys()], link),
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
    latestOrders: latestOrders(query, link),
  };
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
      { name: 'error', label: 'Reason', value: given.error, hint: 'as in the list of reasons' },
      { name: 'upstream', label: 'Upstream', value: given.upstream, hint: '10.0.0.3:8080' },
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

/** Links to the orders of the latest requests, and to errors only. */
function latestOrders({ errorsFirst, given }: DashboardQuery, link: Link) {
  if (given.status !== undefined) return [];
  return [
    { label: 'Newest first', href: link({ errors: undefined }), current: !errorsFirst },
    { label: 'Errors first', href: link({ errors: 'first' }), current: errorsFirst },
    { label: 'Errors only', href: link({ errors: undefined, status: '5xx' }), current: false },
  ];
}
