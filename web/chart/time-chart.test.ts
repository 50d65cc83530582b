import test from 'ava';
import { compareWithGolden } from '../../test/golden.js';
import { chartLinks } from './chart-links.js';
import { spanOf, timeChart, timeChartDocument, type TimeChart } from './time-chart.js';

const stepMs = 600_000;
const fromMs = Date.UTC(2026, 10, 23, 19);
const lines: TimeChart = {
  id: 'latency',
  title: 'Latency',
  description: 'Two <lines> & a gap.',
  kind: 'lines',
  scale: 'linear',
  fromMs,
  toMs: fromMs + 6 * stepMs,
  stepMs,
  openMs: fromMs + 6 * stepMs,
  before: undefined,
  timesMs: Array.from({ length: 6 }, (_, at) => fromMs + at * stepMs),
  series: [
    { label: 'p50', class: 'series-1', values: [10, 20, null, 40, null, 5] },
    { label: '<p95>', class: 'series-2', values: [] },
  ],
  formatValue: (value) => `${value} ms`,
  formatTimes: (timesMs) => timesMs.map((timeMs) => new Date(timeMs).toISOString().slice(11, 16)),
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

test('draws lines as one path per series, with gaps and coordinates of one decimal', (t) => {
  const svg = timeChart(lines);
  const [, line = ''] = / d="([^"]*)"/.exec(svg.slice(svg.indexOf('class="line series-1"'))) ?? [];
  t.is(line.match(/M/g)?.length, 3, line);
  t.true(line.endsWith('M342.0,8.0H436.7M531.3,113.0H626.0'), 'a window alone between gaps is level over its length');
  t.notRegex(line, /\d\.\d\d/);
  t.is(svg.match(/class="line /g)?.length, 2);
});

test('draws a stack with a step per window, on top of the areas below, with gaps', (t) => {
  const svg = timeChart(stack);
  const paths = [...svg.matchAll(/<path class="area [^>]* d="([^"]*)"/g)].map(([, path]) => path);
  t.is(paths.length, 2);
  t.is(paths[0]?.match(/M/g)?.length, 3, 'two windows, a gap, one, a zero, one');
  t.is(paths[1]?.match(/M/g)?.length, 2);
  t.deepEqual(spanOf(stack), { min: 2, max: 40 });
  t.deepEqual(spanOf(lines), { min: 5, max: 40 });
  t.true(svg.includes('<pattern id="requests-status-5xx"'), 'distinguishable without colour');
});

test('marks gaps and omits their axis, which would suggest zero; open windows are not gaps', (t) => {
  const svg = timeChart({
    ...stack,
    openMs: fromMs + 5 * stepMs,
    series: [{ label: '2xx', class: 'status-2xx', values: [10, null, null, 0, null, null] }],
  });
  const [, gap] = /class="gap" d="([^"]*)"/.exec(svg) ?? [];
  t.is(gap, 'M152.7,8H342.0V128H152.7ZM436.7,8H531.3V128H436.7Z');
  const [, axis] = /class="axis" d="([^"]*)"/.exec(svg) ?? [];
  t.is(axis, 'M58.0,128H152.7M342.0,128H436.7', 'a zero has its axis');
});

test('draws the previous period behind the lines, and in steps for a stack', (t) => {
  const before = [8, 8, null, 8, 8, 8];
  t.true(timeChart({ ...lines, before }).includes('class="line before" d="M105.3,'));
  const [, path = ''] =
    /class="line before" d="([^"]*)"/.exec(timeChart({ ...stack, before: [8, 16, null, 8, 8, 8] })) ?? [];
  t.is(path, 'M105.3,104L152.7,104L152.7,80L200,80M389.3,104L436.7,104L436.7,104L531.3,104L531.3,104L578.7,104');
  t.deepEqual(spanOf({ ...lines, before: [100] }), { min: 5, max: 100 });
});

test('a logarithmic axis has a few round ticks and spans all values, and is linear without positive values', (t) => {
  const ticks = (...values: number[]) =>
    [
      ...timeChart({ ...lines, scale: 'log', series: [{ label: 'p50', class: 'series-1', values }] }).matchAll(
        /text-anchor="end">([^<]*)</g,
      ),
    ].map(([, text]) => text);
  t.deepEqual(ticks(2, 2500), ['10 ms', '100 ms', '1000 ms']);
  t.deepEqual(ticks(8, 60), ['10 ms', '20 ms', '50 ms']);
  t.deepEqual(ticks(5, 5.5), ['5 ms']);
  t.deepEqual(ticks(0.01, 100_000), ['0.1 ms', '10 ms', '1000 ms', '100000 ms']);
  t.deepEqual(ticks(0), ['0 ms', '0.5 ms', '1 ms']);
  const [, line = ''] =
    /class="line series-1" d="([^"]*)"/.exec(
      timeChart({ ...lines, scale: 'log', series: [{ label: 'p50', class: 'series-1', values: [0, 1, 1000] }] }),
    ) ?? [];
  t.regex(line, /^M105\.3,128L/, 'a zero is at the bottom');
});

test('parts of a chart are links for pointers only', (t) => {
  const layer = chartLinks(
    lines,
    [{ fromMs: fromMs + stepMs, toMs: fromMs + 2 * stepMs, href: '/?a=1&b="' }],
    'wide',
  )(['p50 <20>']);
  t.is(
    layer,
    '<svg class="chart-links wide" viewBox="0 0 640 150" preserveAspectRatio="none" aria-hidden="true"><a href="/?a=1&#38;b=&#34;" tabindex="-1"><rect x="152.7" width="94.7" y="8" height="120"/><title>p50 &#60;20&#62;</title></a></svg>',
  );
});

test('a chart has a title and a description, escaped, and no inline style', (t) => {
  const svg = timeChart(lines);
  t.true(svg.includes('role="img" aria-labelledby="latency-title latency-desc"'));
  t.true(svg.includes('<desc id="latency-desc">Two &#60;lines&#62; &#38; a gap.</desc>'));
  t.notRegex(svg, /style/);
});

for (const chart of [lines, { ...stack, before: [8, 16, null, 8, 8, 8] }]) {
  test(`a chart of ${chart.kind} matches ${chart.kind}.golden.svg, which a browser can open`, async (t) => {
    const stylesheet =
      '.axis,.grid{stroke:#aaa}.gap{fill:#eee}.before{stroke:#888}.line{fill:none;stroke:#15b;stroke-width:2}.area:not([fill]){fill:#7a9}.status-5xx:not([fill]){fill:#c22}.hatch{stroke:#fff}text{font:11px sans-serif}';
    await compareWithGolden(t, `web/chart/${chart.kind}.golden.svg`, timeChartDocument(chart, stylesheet));
  });
}

test('a chart without values has axes and no line', (t) => {
  for (const kind of ['lines', 'stack'] as const) {
    const svg = timeChart({ ...lines, kind, series: [] });
    t.notRegex(svg, /NaN|undefined|Infinity|class="line/);
    t.true(svg.includes('class="axis"'));
  }
});

test('a standalone chart includes its style sheet and a legend', (t) => {
  const svg = timeChartDocument(lines, '@media (width < 36rem){.chart{color:red}}');
  t.true(svg.startsWith('<?xml'));
  t.true(
    svg.includes('<style>@media (width &#60; 36rem){.chart{color:red}}</style>'),
    'the style sheet is escaped as XML text',
  );
  t.true(svg.includes('>&#60;p95&#62;</text>'));
});

test('no two ticks of an axis have the same label', (t) => {
  const svg = timeChart({ ...stack, formatValue: (value) => (value === 0 ? '0' : '< 100') });
  const labels = [...svg.matchAll(/<text class="tick" [^>]*>([^<]*)/g)].map(([, text]) => text);
  t.deepEqual(labels, ['0', '&#60; 100']);
});
