/** The charts of the page: which values of a window each shows, for drawing, for CSV and for JSON. */
import type { ChartSeries, TimeChart } from '../chart/time-chart.js';
import { groupBy } from '../../shared/group-by.js';
import { isClientError, isServerError } from '../../shared/status.js';
import { isoTime } from '../../shared/time-range.js';
import type { TimeRange } from '../../shared/store/store.js';
import { shareOf, type WindowFigures } from '../stats/figures.js';
import { bytes, covered, duration, percent, printable, rateFormat, timeTicks, windowLength } from '../format.js';
import type { PairWindow } from '../stats/pair.js';
import type { Traffic } from '../query/read.js';

/** A chart by name: `/chart/NAME.svg`, `.csv`, `.json`. */
export interface ChartKind<Window = WindowFigures> {
  readonly name: string;
  readonly title: string;
  readonly kind: TimeChart['kind'];
  readonly scale: TimeChart['scale'];
  /** From the bottom up, where they are stacked. */
  readonly series: readonly SeriesKind<Window>[];
  /** The series whose values in the period before are drawn; of a stack it is all of them together. */
  readonly compared?: string;
  /** Rates per second have the unit that says most of them. */
  readonly formatValue: 'rate' | ((value: number) => string);
  /** What its values are, for a sentence: `Rate of requests by status class`. */
  readonly words: string;
}

interface SeriesKind<Window> {
  readonly label: string;
  readonly class: string;
  readonly hatched?: boolean;
  /** What `status` is to be for these requests alone. */
  readonly status?: string;
  /** `coveredMs`: the part of the window that there can be data of. `null` where nothing can be said. */
  readonly valueOf: (window: Window, coveredMs: number) => number | null;
}

/** The p99 of fewer requests says little: it is left out. */
export const p99RequestsMin = 100;

/** The charts of a source, in the order of the page. */
export const chartKinds: readonly ChartKind[] = [
  {
    name: 'requests',
    title: 'Requests',
    words: 'Rate of requests by status class',
    kind: 'stack',
    scale: 'linear',
    series: [
      statusSeries('2xx', 'status-2xx', (status) => status >= 200 && status <= 299),
      statusSeries('3xx', 'status-3xx', (status) => status >= 300 && status <= 399),
      statusSeries('4xx', 'status-4xx', isClientError),
      statusSeries('5xx', 'status-5xx', isServerError),
      statusSeries('other', 'status-none', (status) => status < 200 || status > 599),
    ],
    formatValue: 'rate',
  },
  {
    name: 'latency',
    title: 'Latency',
    words: 'Percentiles of the latency',
    kind: 'lines',
    scale: 'log',
    series: [
      {
        label: 'p99',
        class: 'series-3',
        valueOf: ({ requests, latencyMs }) => (requests < p99RequestsMin ? null : latencyMs.p99),
      },
      { label: 'p95', class: 'series-2', valueOf: ({ latencyMs }) => latencyMs.p95 },
      { label: 'p50', class: 'series-1', valueOf: ({ latencyMs }) => latencyMs.p50 },
    ],
    compared: 'p95',
    formatValue: duration,
  },
  {
    name: 'errors',
    title: 'Error share',
    words: 'Share of 5xx',
    kind: 'stack',
    scale: 'linear',
    series: [{ label: '5xx', class: 'status-5xx', valueOf: ({ requests, errors }) => shareOf(errors, requests) }],
    formatValue: (share) => percent(share).replace(/\.0(?=\D)/, ''),
  },
  {
    name: 'bytes',
    title: 'Bytes sent',
    words: 'Bytes sent per second',
    kind: 'stack',
    scale: 'linear',
    series: [{ label: 'bytes', class: 'series-1', valueOf: (window, coveredMs) => window.bytes / (coveredMs / 1000) }],
    formatValue: (value) => `${bytes(value)}/s`,
  },
];

/** The charts of an app beside the edge. */
export const pairChartKinds: readonly ChartKind<PairWindow>[] = [
  {
    name: 'outside',
    title: 'Outside the app',
    words: 'Mean latency at the edge less that in the app',
    kind: 'lines',
    scale: 'linear',
    series: [{ label: 'mean', class: 'series-3', valueOf: ({ proxyOverheadMeanMs }) => proxyOverheadMeanMs }],
    compared: 'mean',
    formatValue: duration,
  },
  {
    name: 'unmatched',
    title: 'On one side only',
    words: 'Rates of errors (5xx) that the app never sent and of requests that came to the app past the edge,',
    kind: 'stack',
    scale: 'linear',
    series: [
      {
        label: 'errors of the edge',
        class: 'status-5xx',
        hatched: true,
        valueOf: ({ edgeOnlyErrors }, coveredMs) => edgeOnlyErrors / (coveredMs / 1000),
      },
      {
        label: 'past the edge',
        class: 'series-1',
        valueOf: ({ bypassedEdge }, coveredMs) => bypassedEdge / (coveredMs / 1000),
      },
    ],
    formatValue: 'rate',
  },
];

/** Whose windows a chart draws: those of a source, or of an app beside the edge. */
export interface Charted<Window> {
  readonly name: string;
  /** Ascending; one that is left out is a gap. */
  readonly windows: readonly Window[];
  /** Those of the period before; `undefined` where it is not compared. */
  readonly before: readonly Window[] | undefined;
}

/** Each source. */
export function chartedSources({
  sources,
  windows,
  previous,
}: Pick<Traffic, 'sources' | 'windows' | 'previous'>): Charted<WindowFigures>[] {
  const [now, before] = [windows, previous?.windows].map((some) => some && groupBy(some, ({ source }) => source));
  return [...sources.keys()].map((name) => ({
    name,
    windows: now?.get(name) ?? [],
    before: before && (before.get(name) ?? []),
  }));
}

/** Each app beside the edge. */
export function chartedPairs({ pairs, previous }: Pick<Traffic, 'pairs' | 'previous'>): Charted<PairWindow>[] {
  return pairs.map(({ app, windows }) => ({
    name: app,
    windows,
    before: previous && (previous.pairs.find((pair) => pair.app === app)?.windows ?? []),
  }));
}

/** Makes a chart. `id` is unique on the page. */
export function chartOf<Window extends { readonly timeMs: number }>(
  kind: ChartKind<Window>,
  { name, windows, before }: Charted<Window>,
  { range, stepMs, firstMs }: Pick<Traffic, 'range' | 'stepMs' | 'firstMs'>,
  { id, nowMs }: { id: string; nowMs: number },
): TimeChart {
  const formatValue =
    kind.formatValue === 'rate'
      ? rateFormat(greatestOf(kind, [...windows, ...(before ?? [])], stepMs))
      : kind.formatValue;
  const timesMs = timesOf(range, stepMs);
  // A rate over the first moments of a window says nothing: it waits for a quarter of it, unless there is nothing else
  // to show.
  const openMs = timesMs.findLast((timeMs) => timeMs <= nowMs) ?? range.toMs;
  const shown = new Map(
    windows
      .filter(({ timeMs }) => timeMs < openMs || windows.length === 1 || nowMs - timeMs >= stepMs / 4)
      .map((window) => [window.timeMs, window]),
  );
  const lengthMs = range.toMs - range.fromMs;
  const earlier = new Map(before?.map((window) => [window.timeMs + lengthMs, window]));
  const valuesOf = (found: ReadonlyMap<number, Window>, { valueOf }: SeriesKind<Window>, untilMs: number) =>
    timesMs.map((timeMs) => {
      const window = found.get(timeMs);
      return window === undefined ? null : valueOf(window, coveredMsOf(timeMs, { stepMs, firstMs, nowMs: untilMs }));
    });
  const series = kind.series.map(
    (one): ChartSeries => ({
      label: one.label,
      class: one.class,
      hatched: one.hatched ?? false,
      values: valuesOf(shown, one, nowMs),
    }),
  );
  const compared = kind.series
    .filter(({ label }) => kind.compared === undefined || label === kind.compared)
    .map((one) => valuesOf(earlier, one, Infinity));
  return {
    id,
    title: `${kind.title}: ${printable(name, 60)}`,
    description: `${kind.words} of ${printable(name, 60)} in ${windowLength(stepMs)} windows${kind.scale === 'log' ? ', on a logarithmic axis' : ''}. ${sentence({ formatValue, kind: kind.kind }, series, { gaps: timesMs.filter((timeMs) => timeMs < openMs && !shown.has(timeMs)).length })}`,
    kind: kind.kind,
    scale: kind.scale,
    ...range,
    stepMs,
    timesMs,
    openMs,
    // What never came needs neither an area or a line, nor a place in the legend.
    series: series.filter(
      ({ values: some }, at) =>
        at === 0 || some.some((value) => value !== null && (kind.kind === 'lines' || value > 0)),
    ),
    before: before === undefined ? undefined : timesMs.map((_, at) => sumAt(compared, at)),
    formatValue,
    formatTimes: (times) => timeTicks(times, nowMs),
  };
}

/** The starts of the windows of a range. */
export function timesOf({ fromMs, toMs }: TimeRange, stepMs: number): number[] {
  return Array.from({ length: Math.ceil((toMs - fromMs) / stepMs) }, (_, at) => fromMs + at * stepMs);
}

/** `null` where none has a value. */
function sumAt(all: readonly (readonly (number | null)[])[], at: number): number | null {
  return all.reduce<number | null>(
    (sum, values) => ((values[at] ?? null) === null ? sum : (sum ?? 0) + values[at]!),
    null,
  );
}

/** A row of a chart's CSV or JSON: one source in one window. */
export function chartRow<Window extends { readonly timeMs: number }>(
  kind: ChartKind<Window>,
  source: string,
  window: Window,
  { stepMs, firstMs, nowMs }: Pick<Traffic, 'stepMs' | 'firstMs'> & { readonly nowMs: number },
): Record<string, string | number | null> {
  const coveredMs = coveredMsOf(window.timeMs, { stepMs, firstMs, nowMs });
  return {
    time: isoTime(window.timeMs),
    source,
    ...Object.fromEntries(kind.series.map(({ label, valueOf }) => [label, rounded(valueOf(window, coveredMs))])),
  };
}

function statusSeries(label: string, name: string, holds: (status: number) => boolean): SeriesKind<WindowFigures> {
  return {
    label,
    class: name,
    hatched: name === 'status-4xx' || name === 'status-5xx',
    ...(/^\dxx$/.test(label) && { status: label }),
    valueOf({ statuses }, coveredMs) {
      let requests = 0;
      for (const [status, count] of statuses) if (holds(status)) requests += count;
      return requests / (coveredMs / 1000);
    },
  };
}

/** The greatest value of a stack. */
function greatestOf<Window>({ series }: ChartKind<Window>, windows: readonly Window[], stepMs: number): number {
  return windows.reduce(
    (greatest, window) =>
      Math.max(
        greatest,
        series.reduce((sum, { valueOf }) => sum + (valueOf(window, stepMs) ?? 0), 0),
      ),
    0,
  );
}

/**
 * How much of a window lies between the store's first data and now. It is a quarter at least: what comes in the first
 * moments is noisy.
 */
function coveredMsOf(
  timeMs: number,
  { stepMs, firstMs, nowMs }: Pick<Traffic, 'stepMs' | 'firstMs'> & { readonly nowMs: number },
): number {
  const { fromMs, toMs } = covered({ fromMs: timeMs, toMs: timeMs + stepMs }, { firstMs, nowMs });
  return Math.max(stepMs / 4, toMs - fromMs);
}

/** The least and the greatest of each series, and the gaps. */
function sentence(
  { formatValue, kind }: Pick<TimeChart, 'formatValue' | 'kind'>,
  series: readonly ChartSeries[],
  { gaps }: { gaps: number },
): string {
  const extremes = series.flatMap(({ label, values }) => {
    const some = values.filter((value) => value !== null);
    if (some.length === 0 || (kind === 'stack' && some.every((value) => value === 0))) return [];
    return [
      `${label}: ${formatValue(some.reduce((a, b) => Math.min(a, b)))} to ${formatValue(some.reduce((a, b) => Math.max(a, b)))}`,
    ];
  });
  return (
    [...extremes, ...(gaps > 0 ? [`${gaps} windows without requests`] : [])].join('; ') +
    (extremes.length + gaps > 0 ? '.' : 'All are zero.')
  );
}

/** Six digits: more than is measured. */
function rounded(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(6));
}
