/** The charts of the page, each with its legend, its links and its table. */
import { chartLinks, timeChart, type ChartLink, type TimeChart } from '../chart/time-chart.js';
import { isoTime } from '../../shared/time-range.js';
import {
  chartedPairs,
  chartedSources,
  chartKinds,
  chartOf,
  pairChartKinds,
  timesOf,
  type Charted,
  type ChartKind,
} from './charts.js';
import { bytes, clock, count, dayOf, duration, nbsp, percent, printable } from '../format.js';
import { shareOf, type WindowFigures } from '../stats/figures.js';
import type { Link } from './link.js';
import type { Pair, PairWindow } from '../stats/pair.js';
import type { Traffic } from '../query/read.js';
import { p99 } from './source-cards.js';

/** So many parts of a chart can be pointed at with a mouse; with a finger, at 320 px. */
const partsMax = 62;
const wideMax = 9;

/** What charts are drawn with, made once for all of them. */
export interface Drawing {
  readonly traffic: Traffic;
  readonly nowMs: number;
  readonly link: Link;
  /** The windows of the range by their starts, each with a link to it alone. */
  readonly windows: ReadonlyMap<number, { readonly iso: string; readonly text: string; readonly href: string }>;
  /** What can be pointed at in a chart, with a mouse and with a finger. */
  readonly layers: readonly Layer[];
}

interface Layer {
  readonly parts: readonly Part[];
  /** See `chartLinks`. */
  readonly svgOf: (words: readonly string[]) => string;
}

/** A window, or some together, with a link to it and what is beside it. */
interface Part extends ChartLink {
  /** The first window and the end, as indices of the windows. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Makes ready to draw. */
export function drawingOf(traffic: Traffic, nowMs: number, link: Link): Drawing {
  const { range, stepMs } = traffic;
  const timesMs = timesOf(range, stepMs);
  const zoom = (fromMs: number, toMs: number): string =>
    link({ from: isoTime(Math.max(0, fromMs)), to: isoTime(toMs) });
  const layerOf = (size: 'narrow' | 'wide', max: number): Layer => {
    const windowsPerPart = Math.ceil(timesMs.length / max);
    // The last one has what is left over too: by itself it would be too small to hit.
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
  const layers = [layerOf('narrow', partsMax), layerOf('wide', wideMax)];
  const windows = new Map(
    timesMs.map((timeMs) => [
      timeMs,
      { iso: isoTime(timeMs), text: timeText(timeMs, stepMs, nowMs), href: zoom(timeMs, timeMs + stepMs) },
    ]),
  );
  return { traffic, nowMs, link, windows, layers };
}

/**
 * A row for each kind of chart, with one panel for each source, on an axis of its own: a busy source does not flatten
 * the others.
 */
export function chartRows(sources: readonly string[], drawing: Drawing) {
  const charted = chartedSources(drawing.traffic).filter(({ name }) => sources.includes(name));
  return chartKinds.map((kind) => ({ name: kind.name, panels: panelsOf(kind, charted, drawing) }));
}

/** The charts of the app with this index beside the edge. */
export function pairPanels(index: number, drawing: Drawing) {
  const charted = chartedPairs(drawing.traffic).slice(index, index + 1);
  return pairChartKinds.flatMap((kind) => panelsOf(kind, charted, drawing, index));
}

/** Tables of what the charts show. */
export function chartTables(sources: readonly string[], drawing: Drawing) {
  return sources.map((source) => sourceTable(source, drawing));
}

function panelsOf<Window extends { readonly timeMs: number }>(
  kind: ChartKind<Window>,
  charted: readonly Charted<Window>[],
  { traffic, nowMs, link, layers }: Drawing,
  first = 0,
) {
  const charts = charted.map((each, at) => ({
    source: each.name,
    chart: chartOf(kind, each, traffic, { id: `${kind.name}-${first + at + 1}`, nowMs }),
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
    const status = kind.series.find((one) => one.label === label)?.status;
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
  // What can only be one thing is named by the title.
  return kind.series.length + before.length < 2 ? [] : [...entries, ...before];
}

/** What a chart shows in one of its parts. */
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

/** What the charts of a source show, as a table. Each window leads to a page of it alone. */
function sourceTable(source: string, { traffic: { windows }, windows: times, link }: Drawing) {
  return {
    title: `The charts of ${printable(source, 60)} as a table`,
    csvHref: link({ source, refresh: undefined }, '/api/series.csv'),
    columns: ['Requests', '2xx', '3xx', '4xx', '5xx', 'Error share', 'Mean', 'p50', 'p95', 'p99', 'Sent'],
    rows: windows
      .filter((window) => window.source === source)
      .map((window) => ({ ...times.get(window.timeMs)!, cells: cellsOf(window) })),
  };
}

/** The cells of windows that have been shown before: most are, from page to page. */
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
    const ofClass = (first: number): string =>
      count([...statuses].reduce((sum, [status, each]) => (Math.floor(status / 100) === first ? sum + each : sum), 0));
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

/** What the charts of an app beside the edge show, as a table. */
export function pairTable({ app, windows }: Pair, { windows: times, link }: Drawing) {
  return {
    title: `The charts of ${printable(app, 60)} beside the edge as a table`,
    csvHref: link({ source: app, refresh: undefined, compare: undefined }, '/chart/outside.csv'),
    columns: ['Outside, mean', 'Errors of the edge', 'Past the edge'],
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
