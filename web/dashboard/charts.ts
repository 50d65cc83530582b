/** The charts of the page: which values of a window each shows, for drawing, for CSV and for JSON. */
import type { ChartSeries, TimeChart } from '../chart/time-chart.js';
import { isoTime } from '../../shared/time-range.js';
import type { WindowFigures } from './fold.js';
import { bytes, clockOrDay, duration, number, percent, printable, windowLength } from './format.js';
import type { Traffic } from './read.js';

/** A chart by name: `/chart/NAME.svg`, `.csv`, `.json`. */
export interface ChartKind {
  readonly name: string;
  readonly title: string;
  readonly kind: TimeChart['kind'];
  /** From the bottom up, where they are stacked. */
  readonly series: readonly SeriesKind[];
  readonly formatValue: (value: number) => string;
  /** What its values are, for a sentence: `Requests per second by status class`. */
  readonly words: string;
}

interface SeriesKind {
  readonly label: string;
  readonly class: string;
  readonly hatched?: boolean;
  /** `openMs`: how long the window has been open. `null` where nothing can be said. */
  readonly valueOf: (window: WindowFigures, openMs: number) => number | null;
}

/** The p99 of fewer requests says little: it is left out. */
export const p99RequestsMin = 100;

/** The charts, in the order of the page. */
export const chartKinds: readonly ChartKind[] = [
  {
    name: 'requests',
    title: 'Requests',
    words: 'Requests per second by status class',
    kind: 'stack',
    series: [
      statusSeries('2xx', 'status-2xx', (status) => status >= 200 && status <= 299),
      statusSeries('3xx', 'status-3xx', (status) => status >= 300 && status <= 399),
      statusSeries('4xx', 'status-4xx', (status) => status >= 400 && status <= 499),
      statusSeries('5xx', 'status-5xx', (status) => status >= 500 && status <= 599),
      statusSeries('other', 'status-none', (status) => status < 200 || status > 599),
    ],
    formatValue: (value) => `${number(value, value < 10 ? 2 : 0)}/s`,
  },
  {
    name: 'latency',
    title: 'Latency',
    words: 'Percentiles of the latency',
    kind: 'lines',
    series: [
      { label: 'p99', class: 'series-3', valueOf: ({ requests, latencyMs }) => (requests < p99RequestsMin ? null : latencyMs.p99) },
      { label: 'p95', class: 'series-2', valueOf: ({ latencyMs }) => latencyMs.p95 },
      { label: 'p50', class: 'series-1', valueOf: ({ latencyMs }) => latencyMs.p50 },
    ],
    formatValue: duration,
  },
  {
    name: 'errors',
    title: 'Error share',
    words: 'Share of 5xx',
    kind: 'stack',
    series: [{ label: '5xx', class: 'status-5xx', valueOf: ({ requests, errors }) => errors / requests }],
    formatValue: (share) => percent(share).replace(/\.0(?=\D)/, ''),
  },
  {
    name: 'bytes',
    title: 'Bytes sent',
    words: 'Bytes sent per second',
    kind: 'stack',
    series: [{ label: 'bytes', class: 'series-1', valueOf: (window, openMs) => window.bytes / (openMs / 1000) }],
    formatValue: (value) => `${bytes(value)}/s`,
  },
];

/** The chart of one source. Windows without requests are gaps. */
export function chartOf(kind: ChartKind, source: string, { range, stepMs, windows }: Traffic, { id, nowMs }: { id: string; nowMs: number }): TimeChart {
  const found = new Map(windows.filter((window) => window.source === source).map((window) => [window.timeMs, window]));
  const timesMs: number[] = [];
  for (let timeMs = range.fromMs; timeMs < range.toMs; timeMs += stepMs) timesMs.push(timeMs);
  const series = kind.series.map(({ label, class: name, hatched = false, valueOf }): ChartSeries => ({
    label,
    class: name,
    hatched,
    values: timesMs.map((timeMs) => {
      const window = found.get(timeMs);
      return window === undefined ? null : valueOf(window, openMsOf(window, stepMs, nowMs));
    }),
  }));
  const values = [...found.values()].flatMap((window) => kind.series.at(-1)!.valueOf(window, stepMs) ?? []);
  return {
    id,
    title: `${kind.title} of ${printable(source, 60)}`,
    description: `${kind.words} of ${printable(source, 60)} in ${windowLength(stepMs)} windows. ${sentence(kind, series, values.length)}`,
    kind: kind.kind,
    ...range,
    stepMs,
    timesMs,
    // A class that never came needs no area, and no place in the legend.
    series: kind.kind === 'stack' && series.length > 1 ? series.filter(({ values: some }) => some.some((value) => value !== null && value > 0)) : series,
    formatValue: kind.formatValue,
    formatTime: clockOrDay,
  };
}

/** A row of a chart's CSV or JSON: one source in one window. */
export function chartRow(kind: ChartKind, window: WindowFigures, { stepMs, nowMs }: { stepMs: number; nowMs: number }): Record<string, string | number | null> {
  const openMs = openMsOf(window, stepMs, nowMs);
  return {
    time: isoTime(window.timeMs),
    source: window.source,
    ...Object.fromEntries(kind.series.map(({ label, valueOf }) => [label, rounded(valueOf(window, openMs))])),
  };
}

function statusSeries(label: string, name: string, holds: (status: number) => boolean): SeriesKind {
  return {
    label,
    class: name,
    hatched: name === 'status-4xx' || name === 'status-5xx',
    valueOf({ statuses }, openMs) {
      let requests = 0;
      for (const [status, count] of statuses) if (holds(status)) requests += count;
      return requests / (openMs / 1000);
    },
  };
}

/** The window that is still open counts for as long as it has been open, and for a quarter at least: its start is noisy. */
function openMsOf({ timeMs }: WindowFigures, stepMs: number, nowMs: number): number {
  return Math.min(stepMs, Math.max(stepMs / 4, nowMs - timeMs));
}

/** The least and the greatest of each series, and the gaps. */
function sentence({ formatValue, kind }: ChartKind, series: readonly ChartSeries[], windows: number): string {
  const extremes = series.flatMap(({ label, values }) => {
    const some = values.filter((value) => value !== null);
    if (some.length === 0 || (kind === 'stack' && some.every((value) => value === 0))) return [];
    return [`${label}: ${formatValue(some.reduce((a, b) => Math.min(a, b)))} to ${formatValue(some.reduce((a, b) => Math.max(a, b)))}`];
  });
  const gaps = (series[0]?.values.length ?? 0) - windows;
  return [...extremes, ...(gaps > 0 ? [`${gaps} windows without requests`] : [])].join('; ') + (extremes.length + gaps > 0 ? '.' : 'All are zero.');
}

/** Six digits: more than is measured. */
function rounded(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(6));
}
