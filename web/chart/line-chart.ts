/**
 * Line charts as SVG text. Colour, dashes and type come from the style sheet (`styles/_chart.scss`) by class; nothing has
 * an inline style, so a strict content security policy lets it through.
 */
import { scaleLinear, scaleUtc } from 'd3-scale';
import { line } from 'd3-shape';

/** A chart of values over time. */
export interface LineChart {
  /** Unique on the page; ids inside are made from it. */
  readonly id: string;
  readonly title: string;
  /** A sentence that says what the lines show, for those who do not see them. */
  readonly description: string;
  readonly fromMs: number;
  readonly toMs: number;
  /** At most 180 or so points each; the n-th line has the class `series-n`, from 1 to `seriesStyles`, and again. */
  readonly series: readonly ChartSeries[];
  readonly formatValue: (value: number) => string;
  readonly formatTime: (timeMs: number) => string;
}

/** One line. */
export interface ChartSeries {
  readonly label: string;
  /** In order of time. A `null` breaks the line. */
  readonly points: readonly ChartPoint[];
}

/** One value of a line. */
export interface ChartPoint {
  readonly timeMs: number;
  readonly value: number | null;
}

/** How many line styles the style sheet has. */
const seriesStyles = 6;

/** The class of the n-th line, counted from 0. */
export function seriesClass(index: number): string {
  return `series-${(index % seriesStyles) + 1}`;
}

const width = 640;
const height = 200;
const plot = { left: 54, right: width - 18, top: 10, bottom: height - 24 };

/** The `<svg>` element of a chart. */
export function lineChart(chart: LineChart): string {
  return svg(chart, '', '', height);
}

/** The same as a document of its own, with its style sheet and a legend. */
export function lineChartDocument(chart: LineChart, stylesheet: string): string {
  const legendHeight = 26;
  const style = `<style>${escape(stylesheet)}</style>`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg(chart, style, legend(chart), height + legendHeight)}\n`;
}

function svg(chart: LineChart, style: string, extra: string, totalHeight: number): string {
  const { id, title, description, fromMs, toMs } = chart;
  const x = scaleUtc().domain([fromMs, toMs]).range([plot.left, plot.right]);
  const highest = Math.max(0, ...chart.series.flatMap(({ points }) => points.map(({ value }) => value ?? 0)));
  const y = scaleLinear().domain([0, highest === 0 ? 1 : highest]).nice(4).range([plot.bottom, plot.top]);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="chart" id="${id}" viewBox="0 0 ${width} ${totalHeight}" role="img" aria-labelledby="${id}-title ${id}-desc">`,
    `<title id="${id}-title">${escape(title)}</title>`,
    `<desc id="${id}-desc">${escape(description)}</desc>`,
    style,
    ...y.ticks(4).map((value) => yTick(value, y(value), chart)),
    ...x.ticks(6).map((time) => xTick(time.getTime(), x(time), chart)),
    ...chart.series.map(({ points }, index) => path(points, index, id, x, y)),
    extra,
    '</svg>',
  ].join('');
}

function yTick(value: number, y: number, { formatValue }: LineChart): string {
  return `<path class="${value === 0 ? 'axis' : 'grid'}" d="M${plot.left},${y.toFixed(1)}H${plot.right}"/>`
    + `<text class="tick" x="${plot.left - 8}" y="${y.toFixed(1)}" dy="0.32em" text-anchor="end">${escape(formatValue(value))}</text>`;
}

function xTick(timeMs: number, x: number, { formatTime }: LineChart): string {
  return `<path class="axis" d="M${x.toFixed(1)},${plot.bottom}v4"/>`
    + `<text class="tick tick-time" x="${x.toFixed(1)}" y="${plot.bottom + 18}" text-anchor="middle">${escape(formatTime(timeMs))}</text>`;
}

function path(points: readonly ChartPoint[], index: number, id: string, x: (timeMs: number) => number, y: (value: number) => number): string {
  const draw = line<ChartPoint>()
    .defined(({ value }) => value !== null)
    .x(({ timeMs }) => x(timeMs))
    .y(({ value }) => y(value ?? 0))
    .digits(1);
  return `<path class="line ${seriesClass(index)}" id="${id}-line-${index + 1}" d="${draw(points) ?? ''}"/>`;
}

function legend({ series }: LineChart): string {
  const widthOf = (label: string): number => 40 + label.length * 8;
  let x = plot.left;
  return series.map(({ label }, index) => {
    const entry = `<path class="line ${seriesClass(index)}" d="M${x},${height + 10}h22"/><text class="label" x="${x + 28}" y="${height + 14}">${escape(label)}</text>`;
    x += widthOf(label);
    return entry;
  }).join('');
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
