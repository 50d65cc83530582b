import { readFile } from 'node:fs/promises';
import test from 'ava';
import { timeChart, timeChartDocument, valueMaxOf, type TimeChart } from './time-chart.js';

const stepMs = 600_000;
const fromMs = Date.UTC(2026, 10, 23, 19);
const lines: TimeChart = {
  id: 'latency',
  title: 'Latency',
  description: 'Two <lines> & a gap.',
  kind: 'lines',
  fromMs,
  toMs: fromMs + 6 * stepMs,
  stepMs,
  timesMs: Array.from({ length: 6 }, (_, at) => fromMs + at * stepMs),
  series: [
    { label: 'p50', class: 'series-1', values: [10, 20, null, 40, null, 5] },
    { label: '<p95>', class: 'series-2', values: [] },
  ],
  formatValue: (value) => `${value} ms`,
  formatTime: (timeMs) => new Date(timeMs).toISOString().slice(11, 16),
};
const stack: TimeChart = {
  ...lines,
  id: 'requests',
  kind: 'stack',
  series: [
    { label: '2xx', class: 'status-2xx', values: [10, 20, null, 40, 0, 5] },
    { label: '5xx', class: 'status-5xx', hatched: true, values: [0, 5, null, 0, 2, 0] },
  ],
};

test('lines are drawn with gaps as gaps, one path for each series, and coordinates of one decimal', (t) => {
  const svg = timeChart(lines);
  const [, line = ''] = / d="([^"]*)"/.exec(svg.slice(svg.indexOf('class="line series-1"'))) ?? [];
  t.is(line.match(/M/g)?.length, 3, line);
  t.notRegex(line, /\d\.\d\d/);
  t.is(svg.match(/class="line /g)?.length, 2);
});

test('a stack has a step for each window, stands on the areas below it, and leaves gaps', (t) => {
  const svg = timeChart(stack);
  const paths = [...svg.matchAll(/<path class="area [^>]* d="([^"]*)"/g)].map(([, path]) => path);
  t.is(paths.length, 2);
  t.is(paths[0]?.match(/M/g)?.length, 3, 'two windows, a gap, one, a zero, one');
  t.is(paths[1]?.match(/M/g)?.length, 2);
  t.is(valueMaxOf(stack), 40);
  t.is(valueMaxOf(lines), 40);
  t.true(svg.includes('<pattern id="requests-status-5xx"'), 'not told by colour alone');
});

test('a chart has a title and a description, escaped, and no inline style', (t) => {
  const svg = timeChart(lines);
  t.true(svg.includes('role="img" aria-labelledby="latency-title latency-desc"'));
  t.true(svg.includes('<desc id="latency-desc">Two &#60;lines&#62; &#38; a gap.</desc>'));
  t.notRegex(svg, /style/);
});

for (const chart of [lines, stack]) {
  test(`a chart of ${chart.kind} is drawn as it was: see ${chart.kind}.golden.svg, which a browser can open`, async (t) => {
    const stylesheet = '.axis,.grid{stroke:#aaa}.line{fill:none;stroke:#15b;stroke-width:2}.area:not([fill]){fill:#7a9}.status-5xx:not([fill]){fill:#c22}.hatch{stroke:#fff}text{font:11px sans-serif}';
    t.is(timeChartDocument(chart, stylesheet), await readFile(new URL(`../../../web/chart/${chart.kind}.golden.svg`, import.meta.url), 'utf8'));
  });
}

test('a chart without values has axes and no line', (t) => {
  for (const kind of ['lines', 'stack'] as const) {
    const svg = timeChart({ ...lines, kind, series: [] });
    t.notRegex(svg, /NaN|undefined|Infinity|class="line/);
    t.true(svg.includes('class="axis"'));
  }
});

test('a chart by itself carries its style sheet and a legend', (t) => {
  const svg = timeChartDocument(lines, '@media (width < 36rem){.chart{color:red}}');
  t.true(svg.startsWith('<?xml'));
  t.true(svg.includes('<style>@media (width &#60; 36rem){.chart{color:red}}</style>'), 'a style sheet is text of an XML document');
  t.true(svg.includes('>&#60;p95&#62;</text>'));
});
