import { readFile } from 'node:fs/promises';
import test from 'ava';
import { lineChart, lineChartDocument, type LineChart } from './line-chart.js';

const chart: LineChart = {
  id: 'latency',
  title: 'Mean latency',
  description: 'Two <lines> & a gap.',
  fromMs: Date.UTC(2026, 10, 23, 19),
  toMs: Date.UTC(2026, 10, 23, 20),
  series: [
    { label: 'caddy', points: [10, 20, null, 40, null, 5].map((value, at) => ({ timeMs: Date.UTC(2026, 10, 23, 19, at * 10), value })) },
    { label: '<app>', points: [] },
  ],
  formatValue: (value) => `${value} ms`,
  formatTime: (timeMs) => new Date(timeMs).toISOString().slice(11, 16),
};

test('a chart is drawn with gaps as gaps, one path for each series, and coordinates of one decimal', (t) => {
  const svg = lineChart(chart);
  const [line] = / d="([^"]*)"/.exec(svg.slice(svg.indexOf('class="line series-1"')))?.slice(1) ?? [];
  t.is(line?.match(/M/g)?.length, 3, line);
  t.notRegex(line ?? '', /\d\.\d\d/);
  t.is(svg.match(/class="line /g)?.length, 2);
});

test('a chart has a title and a description, escaped, and no inline style', (t) => {
  const svg = lineChart(chart);
  t.true(svg.includes('role="img" aria-labelledby="latency-title latency-desc"'));
  t.true(svg.includes('<desc id="latency-desc">Two &#60;lines&#62; &#38; a gap.</desc>'));
  t.notRegex(svg, /style/);
});

test('a chart is drawn as it was: see line-chart.golden.svg, which a browser can open', async (t) => {
  const stylesheet = '.axis,.grid{stroke:#aaa}.line{fill:none;stroke:#15b;stroke-width:2}text{font:11px sans-serif}';
  const golden = await readFile(new URL('../../../web/chart/line-chart.golden.svg', import.meta.url), 'utf8');
  t.is(lineChartDocument(chart, stylesheet), golden);
});

test('a chart without values has axes and no line', (t) => {
  const svg = lineChart({ ...chart, series: [] });
  t.notRegex(svg, /NaN|undefined|class="line/);
  t.true(svg.includes('class="axis"'));
});

test('a chart by itself carries its style sheet and a legend', (t) => {
  const svg = lineChartDocument(chart, '@media (width < 36rem){.chart{color:red}}');
  t.true(svg.startsWith('<?xml'));
  t.true(svg.includes('<style>@media (width &#60; 36rem){.chart{color:red}}</style>'), 'a style sheet is text of an XML document');
  t.true(svg.includes('>&#60;app&#62;</text>'));
});
