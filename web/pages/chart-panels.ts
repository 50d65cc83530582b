/** The charts of the page, each with its legend, links and table. */
import { chartLinks, type ChartLink } from '../chart/chart-links.js';
import { timeChart, type Marker, type TimeChart } from '../chart/time-chart.js';
import { statusClassOf } from '../../shared/status.js';
import { isoTime } from '../../shared/time-range.js';
import { chartKinds, pairChartKinds, type ChartKind } from './chart-kinds.js';
import { chartedPairs, chartedSources, chartOf, timesOf, type Charted } from './charts.js';
import { bytes, clock, count, dayOf, duration, nbsp, percent, printable } from '../format.js';
import { shareOf, type WindowFigures } from '../stats/figures.js';
import type { Link } from './link.js';
import type { Pair, PairWindow } from '../stats/pair.js';
import type { Traffic } from '../query/read-traffic.js';
import { p99 } from './source-cards.js';

/** Maximum number of clickable parts of a chart for a mouse, and for touch at a width of 320 px. */
const narrowPartsMax = 62;
const widePartsMax = 9;

/** The common input of all charts of a page. */
export interface Drawing {
  readonly traffic: Traffic;
  readonly nowMs: number;
  readonly link: Link;
  /** The windows of the range by start, each with a link that zooms in on it. */
  readonly windows: ReadonlyMap<number, { readonly iso: string; readonly text: string; readonly href: string }>;
  /** Times to mark in each chart. */
  readonly markers: readonly Marker[];
  /** Clickable parts for a mouse and for touch. */
  readonly layers: readonly Layer[];
}

interface Layer {
  readonly parts: readonly Part[];
  /** See `chartLinks`. */
  readonly svgOf: (words: readonly string[]) => string;
}

/** One or more adjacent windows, with a link that zooms in on them. */
interface Part extends ChartLink {
  /** Index of the first window, and the index after the last one. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Prepares drawing the charts of a page. */
export function drawingOf(traffic: Traffic, nowMs: number, link: Link, markers: readonly Marker[]): Drawing {
  const { range, stepMs } = traffic;
  const timesMs = timesOf(range, stepMs);
  const zoom = (fromMs: number, toMs: number): string =>
    link({ from: isoTime(Math.max(0, fromMs)), to: isoTime(toMs) });
  const layerOf = (size: 'narrow' | 'wide', max: number): Layer => {
    const windowsPerPart = Math.ceil(timesMs.length / max);
    // The last part includes the remainder, which would be too small to click.
    const starts = Array.from({ length: Math.floor(timesMs.length / windowsPerPart) }, (_, at) => at * windowsPerPart);
    const parts = starts
      .filter((start) => timesMs[start]! <= nowMs)
      .map((start) => {
        const end = start + 2 * windowsPerPart > timesMs.length ? timesMs.length : start + windowsPerPart;
        const fromMs = timesMs[start]!;
        const toMs = fromMs + (end - start) * stepMs;
        return {
          start,
          end,
          fromMs,
          toMs,
          text: `${timeText(fromMs, stepMs, nowMs)} – ${timeText(toMs, stepMs, nowMs)} UTC`,
          href: zoom(fromMs, toMs),
        };
      });
    return { parts, svgOf: chartLinks(range, parts, size) };
  };
  const layers = [layerOf('narrow', narrowPartsMax), layerOf('wide', widePartsMax)];
  const windows = new Map(
    timesMs.map((timeMs) => [
      timeMs,
      { iso: isoTime(timeMs), text: timeText(timeMs, stepMs, nowMs), href: zoom(timeMs, timeMs + stepMs) },
    ]),
  );
  return { traffic, nowMs, link, markers, windows, layers };
}

/**
 * A row for each kind of chart, with one panel per source. Axes are separate, so that a busy source flattens no
 * other.
 */
export function chartRows(sources: readonly string[], drawing: Drawing) {
  const charted = chartedSources(drawing.traffic).filter(({ name }) => sources.includes(name));
  return chartKinds.map((kind) => ({ name: kind.name, panels: panelsOf(kind, charted, drawing) }));
}

/** The charts that compare Caddy with the app at this index. */
export function pairPanels(index: number, drawing: Drawing) {
  const charted = chartedPairs(drawing.traffic).slice(index, index + 1);
  return pairChartKinds.flatMap((kind) => panelsOf(kind, charted, drawing, index));
}

/** The data of the charts as tables. */
export function chartTables(sources: readonly string[], drawing: Drawing) {
  return sources.map((source) => sourceTable(source, drawing));
}

function panelsOf<Window extends { readonly timeMs: number }>(
  kind: ChartKind<Window>,
  charted: readonly Charted<Window>[],
  { traffic, nowMs, link, markers, layers }: Drawing,
  first = 0,
) {
  const charts = charted.map((each, at) => ({
    source: each.name,
    chart: chartOf(kind, each, traffic, { id: `${kind.name}-${first + at + 1}`, nowMs, markers }),
  }));
  return charts.map(({ source, chart }) => ({
    title: kind.title,
    source: printable(source, 60),
    svg: timeChart(chart),
    linksSvg: layers.map(({ parts, svgOf }) => svgOf(parts.map((part) => wordsOf(chart, part)))).join(''),
    note: kind.scale === 'log' ? 'log scale' : undefined,
    legend: legendOf(kind, chart, source, link),
    links: ['svg', 'csv', 'json'].map((format) => ({
      label: format.toUpperCase(),
      href: link({ source, refresh: undefined }, `/chart/${kind.name}.${format}`),
    })),
  }));
}

function legendOf<Window>(kind: ChartKind<Window>, chart: TimeChart, source: string, link: Link) {
  const entries = chart.series.map(({ label, class: name, hatched }) => {
    const status = kind.series.find((one) => (one.legend ?? one.label) === label)?.status;
    return {
      label,
      class: name,
      kind: kind.kind,
      fill: hatched === true ? `url(#${chart.id}-${name})` : undefined,
      href: status === undefined ? undefined : link({ status, source }),
    };
  });
  const before =
    chart.before?.some((value) => value !== null) === true
      ? [
          {
            label: `${kind.compared ?? ''} before`.trim(),
            class: 'before',
            kind: 'lines' as const,
            fill: undefined,
            href: undefined,
          },
        ]
      : [];
  // A single series is named by the title.
  return kind.series.length + before.length < 2 ? [] : [...entries, ...before];
}

/** The tooltip of a part of a chart. */
function wordsOf({ series, formatValue }: TimeChart, { start, end, text }: Part): string {
  const values: string[] = [];
  for (const { label, values: all } of series) {
    let greatest: number | null = null;
    for (let at = start; at < end; at += 1)
      if (all[at] !== null && (greatest === null || all[at]! > greatest)) greatest = all[at]!;
    if (greatest !== null) values.push(`${label}${nbsp}${formatValue(greatest)}`);
  }
  return `${text}: ${values.length === 0 ? 'no requests' : `${end - start > 1 ? 'up to ' : ''}${values.join(', ')}`}`;
}

/** The data of the charts of a source as a table. Each window links to its own page. */
function sourceTable(source: string, { traffic: { windows }, windows: times, link }: Drawing) {
  return {
    title: `Chart data of ${printable(source, 60)} as a table`,
    csvHref: link({ source, refresh: undefined }, '/api/series.csv'),
    columns: ['Requests', '2xx', '3xx', '4xx', '5xx', 'Error share', 'Mean', 'p50', 'p95', 'p99', 'Sent'],
    rows: windows
      .filter((window) => window.source === source)
      .map((window) => ({ ...times.get(window.timeMs)!, cells: cellsOf(window) })),
  };
}

/** Cache of the cells of a window: most windows are the same on the next page. */
const knownCells = new WeakMap<WindowFigures, readonly string[]>();

function cellsOf(window: WindowFigures): readonly string[] {
  let cells = knownCells.get(window);
  if (cells === undefined) {
    const {
      requests,
      errors,
      statuses,
      latencyMs: { mean, p50, p95 },
    } = window;
    const ofClass = (wanted: number): string =>
      count([...statuses].reduce((sum, [status, each]) => (statusClassOf(status) === wanted ? sum + each : sum), 0));
    cells = [
      count(requests),
      ofClass(2),
      ofClass(3),
      ofClass(4),
      ofClass(5),
      percent(shareOf(errors, requests)),
      duration(mean),
      duration(p50),
      duration(p95),
      duration(p99(window)),
      bytes(window.bytes),
    ];
    knownCells.set(window, cells);
  }
  return cells;
}

/** The data of the charts that compare Caddy with an app as a table. */
export function pairTable({ app, windows }: Pair, { windows: times, link }: Drawing) {
  return {
    title: `Chart data of Caddy and ${printable(app, 60)} as a table`,
    csvHref: link({ source: app, refresh: undefined, compare: undefined }, '/chart/outside.csv'),
    columns: ['Proxy overhead (mean)', '5xx generated by Caddy', 'Bypassed Caddy'],
    rows: windows.map(({ timeMs, proxyOverheadMeanMs, edgeOnlyErrors, bypassedEdge }: PairWindow) => ({
      ...times.get(timeMs)!,
      cells: [duration(proxyOverheadMeanMs), count(edgeOnlyErrors), count(bypassedEdge)],
    })),
  };
}

function timeText(timeMs: number, stepMs: number, nowMs: number): string {
  return stepMs >= 86_400_000
    ? dayOf(timeMs, nowMs)
    : `${dayOf(timeMs, nowMs)} ${clock(timeMs)}${stepMs < 60_000 ? new Date(timeMs).toISOString().slice(16, 19) : ''}`;
}
