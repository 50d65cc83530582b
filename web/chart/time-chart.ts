/**
 * Time charts as SVG text: lines, or stacked areas in steps. Colours, dashes and fonts come from the style sheet
 * (`styles/_chart.scss`). No inline styles, because of the content security policy.
 */
import { curveLinear, curveStep, line } from 'd3-shape';
import { escape, height, plot, width, xScale, yScale, type Scales, type Span } from './plot.js';

/** A chart of values by window. */
export interface TimeChart {
  /** Unique on the page. Prefix of the ids inside. */
  readonly id: string;
  readonly title: string;
  /** A sentence that describes the chart, for screen readers. */
  readonly description: string;
  readonly kind: 'lines' | 'stack';
  /** A logarithmic axis is linear if there are no positive values. */
  readonly scale: 'linear' | 'log';
  readonly fromMs: number;
  readonly toMs: number;
  /** Length of a window. */
  readonly stepMs: number;
  /** Starts of the windows, ascending. At most about 180. */
  readonly timesMs: readonly number[];
  /** Stacked series from the bottom up. */
  readonly series: readonly ChartSeries[];
  /** Values of the previous period, one per window, drawn as a faint line; `undefined` if not compared. */
  readonly before: readonly (number | null)[] | undefined;
  /** Missing values from this window on are not gaps: there is no data yet. */
  readonly openMs: number;
  /** Times to mark with a vertical line. Default: none. */
  readonly markers?: readonly Marker[];
  readonly formatValue: (value: number) => string;
  /** Labels of the ticks of the time axis. */
  readonly formatTimes: (timesMs: readonly number[]) => readonly string[];
}

/** A marked time. */
export interface Marker {
  readonly timeMs: number;
  /** What happened. */
  readonly label: string;
}

/** One line or area. */
export interface ChartSeries {
  readonly label: string;
  /** CSS class, which sets colour and dashes. */
  readonly class: string;
  /** Whether an area is hatched, to be distinguishable without colour. */
  readonly hatched?: boolean;
  /** One per window. `null` is a gap; in a stack, a gap of the whole window. */
  readonly values: readonly (number | null)[];
}

const legendHeight = 26;

/** Returns the `<svg>` element of a chart, which the style sheet may stretch. */
export function timeChart(chart: TimeChart): string {
  return svg(chart, '', '', height, ' preserveAspectRatio="none"');
}

/** Returns a chart as a standalone document, with style sheet and legend. */
export function timeChartDocument(chart: TimeChart, stylesheet: string): string {
  const style = `<style>${escape(stylesheet)}</style>`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg(chart, style, legend(chart), height + legendHeight)}\n`;
}

/** Returns the span of the values of a chart. Without values, `min` is `Infinity` and `max` is 0. */
export function spanOf({
  kind,
  series,
  before,
  timesMs,
}: Pick<TimeChart, 'kind' | 'series' | 'before' | 'timesMs'>): Span {
  const span = { min: Infinity, max: 0 };
  const cover = (value: number): void => {
    if (value > 0 && value < span.min) span.min = value;
    if (value > span.max) span.max = value;
  };
  for (const at of timesMs.keys()) {
    cover(before?.[at] ?? 0);
    let sum = 0;
    for (const { values } of series) {
      const value = values[at] ?? 0;
      if (kind === 'lines') cover(value);
      sum += value;
    }
    if (kind === 'stack') cover(sum);
  }
  return span;
}

function svg(chart: TimeChart, style: string, extra: string, totalHeight: number, attributes = ''): string {
  const { id, title, description, kind, fromMs, toMs, series, before } = chart;
  const x = xScale(fromMs, toMs);
  const { y, ticks: allTicks } = yScale(chart.scale, spanOf(chart));
  // Of several ticks with the same label, only the lowest is shown.
  const labels = allTicks.map(chart.formatValue);
  const ticks = allTicks.filter((_, at) => labels.indexOf(labels[at]!) === at);
  const { known, gaps } = runsOf(chart);
  const runPath = (name: string, of: readonly Run[], shape: (left: string, right: string) => string): string =>
    of.length === 0
      ? ''
      : `<path class="${name}" d="${of.map(({ fromMs: left, toMs: right }) => shape(x(left).toFixed(1), x(right).toFixed(1))).join('')}"/>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="chart" id="${id}" viewBox="0 0 ${width} ${totalHeight}"${attributes} role="img" aria-labelledby="${id}-title ${id}-desc">`,
    `<title id="${id}-title">${escape(title)}</title>`,
    `<desc id="${id}-desc">${escape(description)}</desc>`,
    style,
    ...(kind === 'stack' ? series.filter(({ hatched }) => hatched).map((one) => hatching(id, one)) : []),
    runPath('gap', gaps, (left, right) => `M${left},${plot.top}H${right}V${plot.bottom}H${left}Z`),
    ...ticks
      .filter((value) => chart.scale === 'log' || value > 0)
      .map((value) => `<path class="grid" d="M${plot.left},${y(value).toFixed(1)}H${plot.right}"/>`),
    ...(kind === 'stack' ? areas(chart, { x, y }) : []),
    ...(before === undefined ? [] : [linePath({ class: 'before', values: before }, chart, { x, y })]),
    ...(kind === 'lines' ? series.map((one) => linePath(one, chart, { x, y })) : []),
    ...(chart.markers ?? [])
      .filter(({ timeMs }) => timeMs >= fromMs && timeMs < toMs)
      .map(
        ({ timeMs, label }) =>
          `<path class="marker" d="M${x(timeMs).toFixed(1)},${plot.top}V${plot.bottom}"><title>${escape(label)}</title></path>`,
      ),
    ...ticks.map(
      (value) =>
        `<text class="tick" x="${plot.left - 8}" y="${y(value).toFixed(1)}" dy="0.32em" text-anchor="end">${escape(chart.formatValue(value))}</text>`,
    ),
    // No axis in gaps: it would look like a value of zero.
    runPath('axis', known, (left, right) => `M${left},${plot.bottom}H${right}`),
    ...xTicks(
      x.ticks(6).map((time) => time.getTime()),
      x,
      chart,
    ),
    extra,
    '</svg>',
  ].join('');
}

interface Run {
  readonly fromMs: number;
  toMs: number;
}

/** Runs of windows with values, and without: the gaps. */
function runsOf({ timesMs, stepMs, toMs, openMs, series }: TimeChart): { known: Run[]; gaps: Run[] } {
  const known: Run[] = [];
  const gaps: Run[] = [];
  timesMs.forEach((timeMs, at) => {
    const hasValue = series.some(({ values }) => typeof values[at] === 'number');
    if (!hasValue && timeMs >= openMs) return;
    const runs = hasValue ? known : gaps;
    const last = runs.at(-1);
    const endMs = Math.min(toMs, timeMs + stepMs);
    if (last?.toMs === timeMs) last.toMs = endMs;
    else runs.push({ fromMs: timeMs, toMs: endMs });
  });
  return { known, gaps };
}

function xTicks(timesMs: readonly number[], x: Scales['x'], { formatTimes }: TimeChart): string[] {
  const labels = formatTimes(timesMs);
  return timesMs.map((timeMs, at) => xTick(x(timeMs), labels[at]!));
}

function xTick(x: number, label: string): string {
  return (
    `<path class="axis" d="M${x.toFixed(1)},${plot.bottom}v4"/>` +
    `<text class="tick tick-time" x="${x.toFixed(1)}" y="${plot.bottom + 17}" text-anchor="middle">${escape(label)}</text>`
  );
}

/**
 * A line through the centres of the windows; in a stack, in steps like the areas. A single window between gaps is a
 * horizontal line, because a dot would be hardly visible.
 */
function linePath(
  { class: name, values }: Pick<ChartSeries, 'class' | 'values'>,
  { kind, timesMs, stepMs }: TimeChart,
  { x, y }: Scales,
): string {
  const isKnown = (at: number): boolean => typeof values[at] === 'number';
  const isAlone = (at: number): boolean => isKnown(at) && !isKnown(at - 1) && !isKnown(at + 1);
  const indices = [...timesMs.keys()];
  const draw = line<number>()
    .defined((at) => isKnown(at) && !isAlone(at))
    .x((at) => x(timesMs[at]! + stepMs / 2))
    .y((at) => y(values[at] ?? 0))
    .curve(kind === 'stack' ? curveStep : curveLinear)
    .digits(1);
  const level = (at: number): string =>
    `M${x(timesMs[at]!).toFixed(1)},${y(values[at]!).toFixed(1)}H${x(timesMs[at]! + stepMs).toFixed(1)}`;
  return `<path class="line ${name}" d="${draw(indices) ?? ''}${indices.filter(isAlone).map(level).join('')}"/>`;
}

/** Areas in steps, so that their size is proportional to the counts. */
function areas({ id, series, timesMs, stepMs, toMs }: TimeChart, { x, y }: Scales): string[] {
  const edges = timesMs.map((timeMs) => ({
    timeMs,
    left: x(timeMs).toFixed(1),
    right: x(Math.min(timeMs + stepMs, toMs)).toFixed(1),
  }));
  const heightOf = (value: number) => ({ value, y: y(value).toFixed(1) });
  const ground = heightOf(0);
  /** The top of the previous series in each window. */
  const tops = timesMs.map(() => ground);
  return series.map((one) => {
    const steps = edges.flatMap((edge, at) => {
      const value = one.values[at];
      if (typeof value !== 'number' || value === 0) return [];
      const bottom = tops[at]!;
      const top = (tops[at] = heightOf(bottom.value + value));
      return [{ timeMs: edge.timeMs, left: edge.left, right: edge.right, top: top.y, bottom: bottom.y }];
    });
    const fill = one.hatched ? ` fill="url(#${hatchingId(id, one)})"` : '';
    return `<path class="area ${one.class}"${fill} d="${runs(steps, stepMs).map(areaPath).join('')}"/>`;
  });
}

interface Step {
  readonly timeMs: number;
  readonly left: string;
  readonly right: string;
  readonly top: string;
  readonly bottom: string;
}

/** Groups adjacent steps. Omits steps without height. */
function runs(steps: readonly Step[], stepMs: number): Step[][] {
  const found: Step[][] = [];
  let endMs = -Infinity;
  for (const step of steps) {
    if (step.top === step.bottom) continue;
    if (step.timeMs === endMs) found.at(-1)!.push(step);
    else found.push([step]);
    endMs = step.timeMs + stepMs;
  }
  return found;
}

/** The path of an area: right along the tops, and back along the bottoms. */
function areaPath(run: readonly Step[]): string {
  const there = run.map(({ top, right }) => `V${top}H${right}`).join('');
  const back = run
    .toReversed()
    .map(({ bottom, left }) => `V${bottom}H${left}`)
    .join('');
  return `M${run[0]!.left},${run[0]!.bottom}${there}${back}Z`;
}

function hatching(chartId: string, series: ChartSeries): string {
  return (
    `<pattern id="${hatchingId(chartId, series)}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
    `<rect class="area ${series.class}" width="5" height="5"/><path class="hatch" d="M0,0V5"/></pattern>`
  );
}

function hatchingId(chartId: string, { class: name }: ChartSeries): string {
  return `${chartId}-${name}`;
}

function legend({ id, kind, series, before }: TimeChart): string {
  let x = plot.left;
  const entry = (mark: string, label: string): string => {
    const text = `${mark}<text class="label" x="${x + 28}" y="${height + 14}">${escape(label)}</text>`;
    x += 44 + label.length * 7;
    return text;
  };
  const stroke = (name: string, label: string): string =>
    entry(`<path class="line ${name}" d="M${x},${height + 10}h22"/>`, label);
  const box = (one: ChartSeries): string =>
    entry(
      `<rect class="area ${one.class}"${one.hatched ? ` fill="url(#${hatchingId(id, one)})"` : ''} x="${x}" y="${height + 5}" width="22" height="10"/>`,
      one.label,
    );
  return [
    ...series.map((one) => (kind === 'lines' ? stroke(one.class, one.label) : box(one))),
    ...(before === undefined ? [] : [stroke('before', 'before')]),
  ].join('');
}
