/**
 * Charts over time as SVG text: lines, or areas in steps, stacked. Colour, dashes and type come from the style sheet
 * (`styles/_chart.scss`) by class; nothing has an inline style, so a strict content security policy lets it through.
 */
import { scaleLinear, scaleUtc } from 'd3-scale';
import { line } from 'd3-shape';

/** A chart of values by window. */
export interface TimeChart {
  /** Unique on the page; ids inside are made from it. */
  readonly id: string;
  readonly title: string;
  /** A sentence that says what it shows, for those who do not see it. */
  readonly description: string;
  readonly kind: 'lines' | 'stack';
  readonly fromMs: number;
  readonly toMs: number;
  /** The length of a window. */
  readonly stepMs: number;
  /** The starts of the windows, ascending: at most 180 or so. */
  readonly timesMs: readonly number[];
  /** A stack is drawn from the bottom up. */
  readonly series: readonly ChartSeries[];
  /** What the axis of values reaches at least, so that charts side by side can share it. */
  readonly valueMaxMin?: number;
  readonly formatValue: (value: number) => string;
  readonly formatTime: (timeMs: number) => string;
}

/** One line or area. */
export interface ChartSeries {
  readonly label: string;
  /** The class that the style sheet gives its colour and dashes by. */
  readonly class: string;
  /** Whether an area is hatched, so that it can be told from the others without its colour. */
  readonly hatched?: boolean;
  /** One for each window. A `null` is a gap, in a stack that of the whole window. */
  readonly values: readonly (number | null)[];
}

const width = 640;
const height = 150;
const plot = { left: 58, right: width - 14, top: 8, bottom: height - 22 };
const legendHeight = 26;

/** The `<svg>` element of a chart. */
export function timeChart(chart: TimeChart): string {
  return svg(chart, '', '', height);
}

/** The same as a document of its own, with its style sheet and a legend. */
export function timeChartDocument(chart: TimeChart, stylesheet: string): string {
  const style = `<style>${escape(stylesheet)}</style>`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg(chart, style, legend(chart), height + legendHeight)}\n`;
}

/** The greatest value that the chart draws; 0 without any. */
export function valueMaxOf({ kind, series, timesMs }: Pick<TimeChart, 'kind' | 'series' | 'timesMs'>): number {
  const valuesAt = timesMs.map((_, at) => series.map(({ values }) => values[at] ?? 0));
  return Math.max(0, ...valuesAt.map((values) => (kind === 'stack' ? values.reduce((sum, value) => sum + value, 0) : Math.max(0, ...values))));
}

interface Scales {
  readonly x: (timeMs: number) => number;
  readonly y: (value: number) => number;
}

function svg(chart: TimeChart, style: string, extra: string, totalHeight: number): string {
  const { id, title, description, kind, fromMs, toMs, series } = chart;
  const x = scaleUtc().domain([fromMs, toMs]).range([plot.left, plot.right]);
  const highest = Math.max(chart.valueMaxMin ?? 0, valueMaxOf(chart));
  const y = scaleLinear().domain([0, highest === 0 ? 1 : highest]).nice(3).range([plot.bottom, plot.top]);
  const ticks = y.ticks(3);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="chart" id="${id}" viewBox="0 0 ${width} ${totalHeight}" role="img" aria-labelledby="${id}-title ${id}-desc">`,
    `<title id="${id}-title">${escape(title)}</title>`,
    `<desc id="${id}-desc">${escape(description)}</desc>`,
    style,
    ...(kind === 'stack' ? series.filter(({ hatched }) => hatched).map((one) => hatching(id, one)) : []),
    ...ticks.filter((value) => value > 0).map((value) => `<path class="grid" d="M${plot.left},${y(value).toFixed(1)}H${plot.right}"/>`),
    ...(kind === 'stack' ? areas(chart, { x, y }) : series.map((one) => linePath(one, chart, { x, y }))),
    ...ticks.map((value) => `<text class="tick" x="${plot.left - 8}" y="${y(value).toFixed(1)}" dy="0.32em" text-anchor="end">${escape(chart.formatValue(value))}</text>`),
    `<path class="axis" d="M${plot.left},${plot.bottom}H${plot.right}"/>`,
    ...x.ticks(6).map((time) => xTick(time.getTime(), x(time), chart)),
    extra,
    '</svg>',
  ].join('');
}

function xTick(timeMs: number, x: number, { formatTime }: TimeChart): string {
  return `<path class="axis" d="M${x.toFixed(1)},${plot.bottom}v4"/>`
    + `<text class="tick tick-time" x="${x.toFixed(1)}" y="${plot.bottom + 17}" text-anchor="middle">${escape(formatTime(timeMs))}</text>`;
}

/** A line through the middles of the windows. */
function linePath({ class: name, values }: ChartSeries, { timesMs, stepMs }: TimeChart, { x, y }: Scales): string {
  const draw = line<number>()
    .defined((at) => typeof values[at] === 'number')
    .x((at) => x(timesMs[at]! + stepMs / 2))
    .y((at) => y(values[at] ?? 0))
    .digits(1);
  return `<path class="line ${name}" d="${draw([...timesMs.keys()]) ?? ''}"/>`;
}

/** Areas that are level over each window: their size is what was counted. */
function areas({ id, series, timesMs, stepMs, toMs }: TimeChart, { x, y }: Scales): string[] {
  const bottoms = timesMs.map(() => 0);
  return series.map((one) => {
    const steps = timesMs.flatMap((timeMs, at) => {
      const value = one.values[at];
      if (typeof value !== 'number') return [];
      const bottom = bottoms[at]!;
      bottoms[at] = bottom + value;
      return [{ timeMs, left: x(timeMs).toFixed(1), right: x(Math.min(timeMs + stepMs, toMs)).toFixed(1), top: y(bottom + value).toFixed(1), bottom: y(bottom).toFixed(1) }];
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

/** Steps that follow each other without a gap, together; those without a height are left out at the ends. */
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

/** To the right along the tops, and back along the bottoms. */
function areaPath(run: readonly Step[]): string {
  const there = run.map(({ top, right }) => `V${top}H${right}`).join('');
  const back = run.toReversed().map(({ bottom, left }) => `V${bottom}H${left}`).join('');
  return `M${run[0]!.left},${run[0]!.bottom}${there}${back}Z`;
}

function hatching(chartId: string, series: ChartSeries): string {
  return `<pattern id="${hatchingId(chartId, series)}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">`
    + `<rect class="area ${series.class}" width="5" height="5"/><path class="hatch" d="M0,0V5"/></pattern>`;
}

function hatchingId(chartId: string, { class: name }: ChartSeries): string {
  return `${chartId}-${name}`;
}

function legend({ id, kind, series }: TimeChart): string {
  let x = plot.left;
  return series.map((one) => {
    const mark = kind === 'lines' ? `<path class="line ${one.class}" d="M${x},${height + 10}h22"/>`
      : `<rect class="area ${one.class}"${one.hatched ? ` fill="url(#${hatchingId(id, one)})"` : ''} x="${x}" y="${height + 5}" width="22" height="10"/>`;
    const entry = `${mark}<text class="label" x="${x + 28}" y="${height + 14}">${escape(one.label)}</text>`;
    x += 44 + one.label.length * 7;
    return entry;
  }).join('');
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
