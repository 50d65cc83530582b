/** The charts of the page, for SVG, CSV and JSON. */
import type { ChartSeries, Marker, TimeChart } from '../chart/time-chart.js';
import { groupBy } from '../../shared/group-by.js';
import { isoTime } from '../../shared/time-range.js';
import type { TimeRange } from '../../shared/store/store.js';
import type { WindowFigures } from '../stats/figures.js';
import { covered, printable, rateFormat, timeTicks, windowLength } from '../format.js';
import type { PairWindow } from '../stats/pair.js';
import type { Traffic } from '../query/read-traffic.js';
import type { ChartKind, SeriesKind } from './chart-kinds.js';

/** The windows of a chart: of a source, or of the comparison of Caddy with an app. */
export interface Charted<Window> {
  readonly name: string;
  /** Ascending. Omitted windows are gaps. */
  readonly windows: readonly Window[];
  /** Windows of the previous period; `undefined` if it is not compared. */
  readonly before: readonly Window[] | undefined;
}

/** Returns the windows of each source. */
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

/** Returns the windows of the comparison with each app. */
export function chartedPairs({ pairs, previous }: Pick<Traffic, 'pairs' | 'previous'>): Charted<PairWindow>[] {
  return pairs.map(({ app, windows }) => ({
    name: app,
    windows,
    before: previous && (previous.pairs.find((pair) => pair.app === app)?.windows ?? []),
  }));
}

/** Creates a chart. `id` must be unique on the page. */
export function chartOf<Window extends { readonly timeMs: number }>(
  kind: ChartKind<Window>,
  { name, windows, before }: Charted<Window>,
  { range, stepMs, firstMs }: Pick<Traffic, 'range' | 'stepMs' | 'firstMs'>,
  { id, nowMs, markers = [] }: { id: string; nowMs: number; markers?: readonly Marker[] },
): TimeChart {
  const formatValue =
    kind.formatValue === 'rate'
      ? rateFormat(greatestOf(kind, [...windows, ...(before ?? [])], stepMs))
      : kind.formatValue;
  const timesMs = timesOf(range, stepMs);
  // Rates at the start of a window are noisy: an open window is shown after a quarter of its length, unless it is the
  // only one.
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
      label: one.legend ?? one.label,
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
    description: `${kind.words} for ${printable(name, 60)} in ${windowLength(stepMs)} windows${kind.scale === 'log' ? ', on a logarithmic axis' : ''}. ${sentence({ formatValue, kind: kind.kind }, series, { gaps: timesMs.filter((timeMs) => timeMs < openMs && !shown.has(timeMs)).length })}`,
    kind: kind.kind,
    scale: kind.scale,
    ...range,
    stepMs,
    timesMs,
    openMs,
    markers,
    // A series without values has no legend entry.
    series: series.filter(
      ({ values: some }, at) =>
        at === 0 || some.some((value) => value !== null && (kind.kind === 'lines' || value > 0)),
    ),
    before: before === undefined ? undefined : timesMs.map((_, at) => sumAt(compared, at)),
    formatValue,
    formatTimes: (times) => timeTicks(times, nowMs),
  };
}

/** Returns the starts of the windows of a range. */
export function timesOf({ fromMs, toMs }: TimeRange, stepMs: number): number[] {
  return Array.from({ length: Math.ceil((toMs - fromMs) / stepMs) }, (_, at) => fromMs + at * stepMs);
}

/** The sum of several series at one index; `null` if none has a value. */
function sumAt(all: readonly (readonly (number | null)[])[], at: number): number | null {
  return all.reduce<number | null>(
    (sum, values) => ((values[at] ?? null) === null ? sum : (sum ?? 0) + values[at]!),
    null,
  );
}

/** Returns a row of a chart's CSV or JSON: one source in one window. */
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

/** The maximum of a stack. */
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

/** The part of a window between the store's first data and now; at least a quarter, because shorter parts are noisy. */
function coveredMsOf(
  timeMs: number,
  { stepMs, firstMs, nowMs }: Pick<Traffic, 'stepMs' | 'firstMs'> & { readonly nowMs: number },
): number {
  const { fromMs, toMs } = covered({ fromMs: timeMs, toMs: timeMs + stepMs }, { firstMs, nowMs });
  return Math.max(stepMs / 4, toMs - fromMs);
}

/** Describes the minimum and maximum of each series, and the gaps. */
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
    (extremes.length + gaps > 0 ? '.' : 'All values are zero.')
  );
}

/** Rounds to six significant digits, which exceed the precision of the measurement. */
function rounded(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(6));
}
