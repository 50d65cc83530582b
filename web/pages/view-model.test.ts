import test from 'ava';
import { event, ledger } from '../../test/web-samples.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { topListsOfRequests } from '../../shared/top-list/top-lists-of-requests.js';
import type { TopKind } from '../../shared/top-list/top-row.js';
import { alignRange, levelFor } from '../../shared/time-range.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';
import type { Collection } from '../stats/collection.js';
import { fold, isComplete } from '../stats/fold.js';
import { printable, timeTicks } from '../format.js';
import { textOf } from './phrase.js';
import { filterNames, parseQuery } from '../query/query.js';
import { rollUp } from '../../shared/rollup/rollup-aggregator.js';
import type { Traffic } from '../query/read-traffic.js';
import { readTopListsFrom } from '../query/read-top-lists.js';
import type { TopLists } from '../stats/top-lists.js';
import { dashboardView } from './view-model.js';

const nowMs = Date.UTC(2026, 10, 23, 20, 0, 30);

function view(
  requests: readonly RequestEvent[],
  {
    raw = {},
    ledgers = [],
    bounded = false,
    sampled,
    before,
    topLists = { bySource: new Map(), ofNewest: undefined, retainedFromMs: undefined },
    retainedFromMs,
    collection,
    nowMs: atMs = nowMs,
    firstMs = 0,
    caddyNewestMs,
  }: {
    caddyNewestMs?: number;
    nowMs?: number;
    firstMs?: number;
    collection?: Partial<Collection>;
    topLists?: TopLists;
    retainedFromMs?: number;
    before?: RequestEvent[];
    raw?: Record<string, string>;
    ledgers?: LedgerSnapshot[];
    bounded?: boolean;
    sampled?: Traffic['sampled'];
  } = {},
) {
  const query = parseQuery(raw, atMs);
  const level = levelFor(query, query.toMs);
  const range = alignRange(query, level);
  const traffic: Traffic = {
    range,
    stepMs: level * 1000,
    ledgers,
    bounded,
    firstMs,
    newestMs: requests[0]?.timeMs,
    retainedFromMs,
    rollupsFromMs: undefined,
    sampled,
    recent: {
      ...fold(
        rollUp(
          requests.filter(({ timeMs }) => timeMs > nowMs - 10_800_000),
          60,
          'host',
        ),
        { fromMs: nowMs - 10_800_000, stepMs: 60_000 },
      ),
      stepMs: 60_000,
      problem: undefined,
      heldIn: 'memory',
      ledgers: [],
      dropping: new Set(),
      caddyNewestMs,
      ownSinceMs: 0,
      ...collection,
    },
    complete: isComplete(ledgers, { bounded: bounded || retainedFromMs !== undefined }) && sampled === undefined,
    previous:
      before === undefined
        ? undefined
        : fold(rollUp(before, level, 'host'), { fromMs: 2 * range.fromMs - range.toMs, stepMs: level * 1000 }),
    ...fold(rollUp(requests, level, 'host'), { fromMs: range.fromMs, stepMs: level * 1000 }),
  };
  return dashboardView({
    query,
    traffic,
    topLists,
    latest: requests,
    pairs: new Map(),
    nowMs: atMs,
    connectHint: ['one', 'two'],
  });
}

const many = (count: number, parts: Partial<RequestEvent> = {}): RequestEvent[] =>
  Array.from({ length: count }, (_, at) => event({ timeMs: nowMs - 1000 * (at + 1), durationMs: 10, ...parts }));

test('the status line and the title show the health of Caddy', (t) => {
  const well = view(many(200)).status;
  t.is(textOf(well.detail), '3.3\u00a0req/min, p95 10\u00a0ms, 0\u00a0% errors at Caddy');
  t.like(well, {
    state: 'well',
    word: 'All well:',
    title: 'All well: 3.3\u00a0req/min, p95 10\u00a0ms, 0\u00a0% errors',
  });
  t.like(view([...many(190), ...many(6, { status: 500 })]).status, {
    state: 'degraded',
    title: '5xx rose to 3.8\u00a0% at 20:00 UTC at Caddy',
  });
  t.is(view([...many(190), ...many(20, { status: 503 })]).status.state, 'failing');
  t.is(view([...many(190), ...many(100, { status: 429 })]).status.state, 'well', '4xx are not errors of the site');
});

test('the most severe finding comes first, followed by the others', (t) => {
  const { status } = view([
    ...many(190),
    ...many(6, { status: 500 }),
    ...many(150, { source: 'shop' }).map((request, at) => ({ ...request, timeMs: nowMs - 600_000 - at * 4000 })),
  ]);
  t.like(status, { state: 'failing', word: 'No requests from shop' });
  t.deepEqual([status.detail, ...status.more].map(textOf), [
    'since 19:50:30 UTC',
    '5xx rose to 3.8\u00a0% at 20:00 UTC at Caddy',
  ]);
});

test('the status line is never well while requests are not stored, and names the reason, the time and the remedy', (t) => {
  const problem =
    'Cannot write to the DuckDB file /data/requests.duckdb: No space left on device. See that its disk has space.';
  const ledgers = [ledger({ timeMs: nowMs - 2000 })];
  for (const from of ['now-5m', 'now-1h', 'now-7d']) {
    const { status, title } = view(many(500), { raw: { from }, collection: { problem, ledgers } });
    t.like(status, { state: 'failing', key: 'not-stored', word: 'Nothing is being stored:' });
    t.is(
      textOf(status.detail),
      `${problem} Requests since 20:00:28 UTC are queued in memory, up to MEMORY_BYTES_MAX. Beyond that, new requests are dropped.`,
    );
    t.is(title, 'Nothing is being stored');
  }
  t.is(
    view(many(500), {
      raw: { from: '2026-11-22T00:00:00Z', to: '2026-11-22T01:00:00Z' },
      collection: { problem, ledgers },
    }).status.state,
    'failing',
    'a range of the past',
  );
  t.is(view([], { collection: { problem, ledgers } }).status.state, 'failing', 'no requests yet');
  t.regex(
    textOf(view([], { collection: { problem, heldIn: 'spool' } }).status.detail),
    /space\. Requests are queued in the spool, up to SPOOL_BYTES_MAX/,
  );
  const gone = Array.from({ length: 3600 }, (_, at) => event({ timeMs: nowMs - 600_000 - at * 1000 }));
  t.deepEqual(
    view(gone, { collection: { problem, ledgers } }).status.more,
    [],
    'no source is silent while nothing is stored',
  );
  const failing = view(many(500, { status: 502 }), { collection: { problem, ledgers } }).status;
  t.regex(failing.more.map(textOf).join(), /^5xx rose to 100/, 'findings of stored requests follow');
});

test('the status line names collectors that do not report or that drop lines', (t) => {
  const [fresh, stale] = [
    ledger({ collector: 'a', timeMs: nowMs - 2000 }),
    ledger({ collector: 'b', timeMs: nowMs - 60_000 }),
  ];
  const alone = view(many(500), { collection: { ledgers: [stale] } }).status;
  t.like(alone, { state: 'failing', word: 'No report from the collector b' });
  t.is(
    textOf(alone.detail),
    'since 19:59:30 UTC: it has stopped or cannot write to the store. Check its log, and start it if it is down.',
  );
  t.is(view(many(500), { collection: { ledgers: [fresh, stale] } }).status.state, 'degraded');
  t.is(view(many(500), { collection: { ledgers: [fresh] } }).status.state, 'well');
  const { status } = view(many(500), {
    collection: {
      ledgers: [ledger({ collector: 'a', timeMs: nowMs, dropped: { 'memory-full': 1234 } })],
      dropping: new Set(['a']),
    },
  });
  t.like(status, { state: 'failing', word: 'The collector a is dropping log lines' });
  t.is(
    textOf(status.detail),
    '(memory-full 1,234 since its start). These lines are lost. Give the store a faster disk, or raise MEMORY_BYTES_MAX.',
  );
});

test('the status line names the host with most errors and reports past errors', (t) => {
  const shop = view([...many(190), ...many(6, { status: 500 }), ...many(20, { host: 'blog.example' })]).status;
  t.is(textOf(shop.detail), 'at 20:00 UTC at Caddy, most of them on shop.example');
  const past = many(200, { timeMs: nowMs - 1_800_000 }).map((request, at) => ({
    ...request,
    status: at < 20 ? 502 : 200,
  }));
  const { status } = view([...past, ...many(500)]);
  t.is(status.state, 'well');
  t.deepEqual(status.more.map(textOf), ['5xx peaked at 10.0\u00a0% between 19:30 and 19:54 UTC at Caddy']);
});

test('the status line reports a silent source on any range, with the time of its last request', (t) => {
  const requests = Array.from({ length: 3600 }, (_, at) =>
    event({ timeMs: nowMs - 420_000 - at * 5000, durationMs: 1 }),
  );
  const { status, sources } = view(requests, { raw: { from: 'now-6h' } });
  t.like(status, {
    state: 'failing',
    word: 'No requests from caddy',
    detail: ['since ', { iso: '2026-11-23T19:53:30Z', text: '19:53:30' }, ' UTC'],
  });
  t.is(sources[0]?.last?.text, '19:53:30');
  t.is(view(requests, { raw: { from: 'now-7d' } }).status.word, 'No requests from caddy');
  t.is(view(requests, { raw: { from: 'now-5m' } }).status.word, 'No requests from caddy', 'none is in the range');
  const of = (source: string, ownSinceMs: number) =>
    view(
      requests.map((request) => ({ ...request, source })),
      { raw: { from: 'now-6h', source }, collection: { ownSinceMs } as Partial<Collection> },
    ).status.word;
  t.is(of('dashboard', 0), 'All well:', 'a dashboard without viewers is normal');
  t.is(of('app', 0), 'No requests from app');
  t.is(of('app', nowMs - 60_000), 'All well:', 'an older version recorded the dashboard under this name');
});

test('the page includes the dashboard if it is behind the same Caddy or the query asks for it', (t) => {
  const own = many(200, { source: 'dashboard', host: '127.0.0.1:3000', status: 502 });
  const page = view([...many(1000), ...many(300, { source: 'app' }), ...own]);
  t.deepEqual(
    page.sources.map(({ source }) => source),
    ['caddy', 'app'],
  );
  t.deepEqual([page.own?.count, page.own?.href], [200, '/?source=dashboard']);
  t.deepEqual(
    [page.charts[0]?.panels.length, page.status.state],
    [2, 'well'],
    'it has no charts, and is not evaluated',
  );
  const behind = view([...many(1000), ...own.map((request) => ({ ...request, host: 'shop.example' }))]);
  t.deepEqual(
    [behind.sources.map(({ source }) => source), behind.own, behind.status.state],
    [['caddy', 'dashboard'], undefined, 'well'],
  );
  const asked = view(own, { raw: { source: 'dashboard' } });
  t.deepEqual([asked.sources.map(({ source }) => source), asked.status.state], [['dashboard'], 'failing']);
  t.like(view(own), { empty: true, topLists: [] });
});

test('each source has charts with separate axes', (t) => {
  const [busy, quiet] = view([...many(3600), ...Array.from({ length: 30 }, () => many(600, { source: 'shop' })).flat()])
    .charts[0]!.panels;
  const ticksOf = (svg: string) => [...svg.matchAll(/<text class="tick" [^>]*>([^<]*)/g)].map(([, text]) => text);
  t.notDeepEqual(ticksOf(busy!.svg), ticksOf(quiet!.svg));
});

test('a range without requests links to the latest ones, and only an empty store shows how to connect Caddy', (t) => {
  const caddyNewestMs = Date.UTC(2026, 10, 20, 12);
  const past = view([], { caddyNewestMs });
  t.is(past.connect, undefined);
  t.like(past.elsewhere, {
    text: 'There are no requests in this range.',
    href: '/?from=2026-11-20T11%3A00%3A00Z&to=2026-11-20T13%3A00%3A00Z',
  });
  const future = view([], {
    caddyNewestMs,
    raw: { from: '2026-12-01T00:00:00Z', to: '2026-12-02T00:00:00Z', host: 'a' },
  });
  t.like(
    future.elsewhere,
    { text: 'This range is in the future.', href: '/?from=2026-11-20T11%3A00%3A00Z&to=2026-11-20T13%3A00%3A00Z' },
    'without the filter, which may exclude all requests',
  );
  const { windows } = fold(rollUp(many(3600), 60, 'host'), { fromMs: 0, stepMs: 60_000 });
  t.is(
    view([], {
      raw: { from: '2026-12-01T00:00:00Z', to: '2026-12-02T00:00:00Z' },
      caddyNewestMs,
      collection: { windows } as Partial<Collection>,
    }).status.state,
    'quiet',
    'Caddy is not silent because the range is in the future',
  );
  t.deepEqual(
    [view([]).elsewhere, view([]).connect?.lines, view(many(1)).elsewhere],
    [undefined, 'one\ntwo', undefined],
  );
});

test('a quiet source has figures but no charts, and a legend links to its status class', (t) => {
  const page = view([...many(1000, { status: 404 }), ...many(1, { source: 'app' }), ...many(20, { source: 'shop' })]);
  t.deepEqual(
    page.charts[0]?.panels.map(({ source }) => source),
    ['caddy', 'shop'],
  );
  t.is(page.sourcesWithoutChart, 1);
  t.like(
    page.charts[0]?.panels[0]?.legend.find(({ label }) => label === '4xx'),
    { href: '/?status=4xx&source=caddy' },
  );
});

test('the page shows how many requests are sampled, and that figures of raw requests count only those', (t) => {
  const sampled = { kept: 5, of: 512 };
  const page = view(many(5), { sampled });
  t.is(page.latestSampled, '5 of 512 requests are stored');
  t.deepEqual([page.topListsOfSampled, page.incomplete], [undefined, []]);
  const filtered = view(many(5), { sampled, raw: { path: '/' } });
  t.is(filtered.topListsOfSampled, page.latestSampled);
  t.regex(filtered.incomplete.map(textOf).join(), /count only sampled requests: 5 of 512/);
  t.is(view([], { sampled: { kept: 0, of: 7 } }).latestSampled, '0 of 7 requests are stored');
  t.is(view(many(5)).latestSampled, undefined);
});

test('too little traffic is not evaluated', (t) => {
  t.is(view(many(119, { status: 500 })).status.state, 'quiet');
  t.is(textOf(view([]).status.detail), 'no requests in this range');
});

test('figures show their change from the previous period and highlight deteriorations', (t) => {
  const before = many(122, { status: 200, durationMs: 5 });
  const { sources } = view([...many(180), ...many(3, { status: 500 })], { before });
  const changes = Object.fromEntries(sources[0]!.figures.map(({ name, change }) => [name, change]));
  t.like(
    changes['Requests'],
    { text: '+51\u00a0%', words: 'up 51\u00a0% on the previous period', worse: false },
    'by the time that has passed',
  );
  t.like(changes['Mean'], { text: '+100\u00a0%', worse: true });
  t.like(changes['5xx'], {
    text: '+1.6\u00a0pp',
    words: 'up 1.6 percentage points on the previous period',
    worse: true,
  });
  t.like(changes['4xx'], { text: '±0' });
  t.true(view(many(180)).sources[0]!.figures.every(({ change }) => change === undefined));
});

test('changes of less than a point or one percent are shown and highlighted', (t) => {
  const before = [...many(9990), ...many(10, { status: 500 })].map((request) => ({
    ...request,
    timeMs: request.timeMs - 3_600_000,
  }));
  const { sources } = view(
    [...many(9910, { durationMs: 10.06 }), ...many(90, { status: 500, durationMs: 10.06 })].map((request) => ({
      ...request,
      timeMs: nowMs - 1,
    })),
    { before },
  );
  const changes = Object.fromEntries(sources[0]!.figures.map(({ name, change }) => [name, change]));
  t.deepEqual(changes['5xx'], {
    text: '+0.8\u00a0pp',
    words: 'up 0.8 percentage points on the previous period',
    worse: true,
  });
  t.like(changes['Mean'], { text: '+0.6\u00a0%', worse: false });
  t.like(changes['4xx'], { text: '±0', words: 'unchanged from the previous period' });
});

test('the card, its link, its chart and its table count the same 4xx', (t) => {
  const page = view([
    ...many(70),
    ...many(10, { status: 401 }),
    ...many(10, { status: 404 }),
    ...many(10, { status: 429 }),
  ]);
  t.like(
    page.sources[0]!.figures.find(({ name }) => name === '4xx'),
    { value: '30.0\u00a0%', note: '30 requests', href: '/?status=4xx&source=caddy' },
  );
  const column = page.tables[0]!.columns.indexOf('4xx');
  t.is(
    page.tables[0]!.rows.reduce((sum, { cells }) => sum + Number(cells[column]), 0),
    30,
  );
});

test('the rate of a steady site is the same in the first, the open and all other windows', (t) => {
  for (let ageMs = 15_500; ageMs < 60_000; ageMs += 3700) {
    const atMs = Date.UTC(2026, 10, 23, 20) + ageMs;
    const firstMs = Date.UTC(2026, 10, 23, 19, 40, 20);
    const requests = Array.from({ length: (atMs - firstMs) / 250 }, (_, at) => event({ timeMs: atMs - at * 250 - 1 }));
    const { charts, sources } = view(requests, { nowMs: atMs, firstMs });
    const [, least, greatest] = /2xx: ([\d.]+)\/s to ([\d.]+)\/s/.exec(charts[0]!.panels[0]!.svg)!.map(Number);
    t.true(least! > 3.9 && greatest! < 4.1, `${ageMs}: ${least} to ${greatest}`);
    t.is(sources[0]!.figures.find(({ name }) => name === 'Rate')!.value, '4/s');
  }
});

test('a click on a chart opens exactly the highlighted range', (t) => {
  const { linksSvg } = view(many(100)).charts[0]!.panels[0]!;
  const narrow = linksSvg.slice(0, linksSvg.indexOf('</svg>'));
  const links = [...narrow.matchAll(/from=([^&]*)&#38;to=([^"&]*)/g)].map(
    ([, from, to]) => [Date.parse(decodeURIComponent(from!)), Date.parse(decodeURIComponent(to!))] as const,
  );
  t.is(links.length, 61);
  t.true(links.every(([fromMs, toMs], at) => toMs - fromMs === 60_000 && (at === 0 || links[at - 1]![1] === fromMs)));
});

test('ticks of a time axis have unique labels, with the year if it is not the current one', (t) => {
  const at = (text: string) => Date.parse(`${text}Z`);
  t.deepEqual(timeTicks([at('2026-11-23T20:00:00'), at('2026-11-23T20:00:10')], nowMs), ['20:00:00', '20:00:10']);
  t.deepEqual(timeTicks([at('2026-11-22T12:00:00'), at('2026-11-23T00:00:00'), at('2026-11-23T12:00:00')], nowMs), [
    '12:00',
    '23\u00a0Nov',
    '12:00',
  ]);
  t.deepEqual(timeTicks([at('2025-12-01T00:00:00'), at('2026-01-01T00:00:00'), at('2026-02-01T00:00:00')], nowMs), [
    '1\u00a0Dec\u00a02025',
    '1\u00a0Jan\u00a02026',
    '1\u00a0Feb',
  ]);
  t.deepEqual(timeTicks([at('2025-11-23T19:00:00'), at('2025-11-23T20:00:00')], nowMs), [
    '23\u00a0Nov\u00a02025\u00a019:00',
    '20:00',
  ]);
});

test('p99 is hidden below 100 requests', (t) => {
  const p99 = (count: number) => view(many(count)).sources[0]?.figures.find(({ name }) => name === 'p99')?.value;
  t.is(p99(99), '–');
  t.regex(p99(100) ?? '', / ms$|\u00a0ms$/);
});

test('the page shows why figures are incomplete', (t) => {
  const { incomplete } = view(many(1), {
    bounded: true,
    ledgers: [ledger({ dropped: { 'memory-full': 3 } }), ledger({ collector: 'b', spooled: 1000, deadLettered: 2 })],
  });
  t.is(incomplete.length, 4);
  t.is(textOf(incomplete[1]!), '3 lines were dropped');
  t.is(textOf(incomplete[2]!), '1,000 requests are spooled on disk');
  t.deepEqual(view(many(1)).incomplete, []);
});

test('the page shows how to connect Caddy until a line is accepted, unless a filter is set', (t) => {
  t.is(view([]).connect?.lines, 'one\ntwo');
  t.is(
    view(many(3, { source: 'app' }), { ledgers: [ledger({ received: 4, rejected: { 'not-json': 4 } })] }).connect
      ?.rejected,
    4,
  );
  t.is(view([], { ledgers: [ledger({ accepted: 1 })] }).connect, undefined);
  t.is(view(many(1)).connect, undefined);
  t.is(view([], { raw: { host: 'a' } }).connect, undefined);
});

test('links preserve the other parameters, and a chip removes its filter', (t) => {
  const { ranges, refreshes, filters, sources } = view(many(1, { status: 404 }), {
    raw: { from: 'now-6h', host: 'a&b', refresh: '15' },
  });
  t.is(ranges.find(({ label }) => label === '1 h')?.href, '/?from=now-1h&host=a%26b&refresh=15');
  t.deepEqual(
    ranges.filter(({ current }) => current).map(({ label }) => label),
    ['6 h'],
  );
  t.deepEqual(
    refreshes.filter(({ current }) => current).map(({ label }) => label),
    ['15 s'],
  );
  t.like(filters, [{ name: 'host', value: 'a&b', href: '/?from=now-6h&refresh=15' }]);
  t.is(sources[0]?.statuses[0]?.href, '/?from=now-6h&host=a%26b&refresh=15&status=404&source=caddy');
});

test('links step and zoom, and ranges that end now stay live', (t) => {
  const hrefs = (raw: Record<string, string>) =>
    Object.fromEntries(view(many(1), { raw }).steps.map(({ words, href }) => [words, href]));
  t.deepEqual(hrefs({ host: 'a' }), {
    Earlier: '/?host=a&from=2026-11-23T18%3A00%3A30Z&to=2026-11-23T19%3A00%3A30Z',
    'Zoom out': '/?host=a&from=now-2h',
    'Zoom in': '/?host=a&from=now-30m',
  });
  t.deepEqual(hrefs({ from: '2026-11-23T18:00:00Z', to: '2026-11-23T19:00:00Z' }), {
    Earlier: '/?from=2026-11-23T17%3A00%3A00Z&to=2026-11-23T18%3A00%3A00Z',
    Later: '/?from=now-1h',
    'Zoom out': '/?from=2026-11-23T17%3A30%3A00Z&to=2026-11-23T19%3A30%3A00Z',
    'Zoom in': '/?from=2026-11-23T18%3A15%3A00Z&to=2026-11-23T18%3A45%3A00Z',
  });
  t.is(
    hrefs({ from: '2026-11-23T16:00:00Z', to: '2026-11-23T17:00:00Z' })['Later'],
    '/?from=2026-11-23T17%3A00%3A00Z&to=2026-11-23T18%3A00%3A00Z',
  );
  t.is(hrefs({ from: '2026-11-23T19:10:00Z', to: '2026-11-23T19:40:00Z' })['Later'], '/?from=now-30m');
});

test('the form has the filters of the page and preserves the other parameters', (t) => {
  const { form, filters } = view(many(1), { raw: { edit: 'on', host: 'a', from: 'now-6h', compare: 'off' } });
  t.true(form.open);
  t.deepEqual(
    form.fields.map(({ name }) => name),
    [...filterNames],
    'every filter can be typed',
  );
  t.deepEqual(
    form.fields.filter(({ value }) => value !== undefined).map(({ name, value }) => [name, value]),
    [['host', 'a']],
  );
  t.deepEqual(form.hidden, [
    { name: 'from', value: 'now-6h' },
    { name: 'compare', value: 'off' },
  ]);
  t.is(filters[0]?.href, '/?from=now-6h&compare=off', 'links close the form');
});

test('figures, status codes, tables and collector cards are formatted', (t) => {
  const { sources, tables, latest, collectors, charts } = view(
    [
      ...many(150, { size: 1234 }),
      ...many(2, { status: 502 }),
      event({ timeMs: nowMs - 60_000, source: 'app', endpoint: '/users/:id', uri: '/users/7?q=1', durationMs: 1234.5 }),
    ],
    {
      ledgers: [
        ledger({
          timeMs: nowMs - 90_000,
          received: 50_100,
          rejected: { 'not-json': 6, 'too-long': 4 },
          spooled: 3,
          lastLineMs: nowMs - 1500,
        }),
      ],
    },
  );
  t.deepEqual(
    sources[0]?.figures.map((figure) => [figure.name, figure.value, 'note' in figure ? figure.note : undefined]),
    [
      ['Requests', '152', undefined],
      ['Rate', '2.5/min', undefined],
      ['5xx', '1.3\u00a0%', '2 requests'],
      ['4xx', '0\u00a0%', '0 requests'],
      ['Mean', '10\u00a0ms', 'max\u00a010\u00a0ms'],
      ['p50', '10\u00a0ms', undefined],
      ['p95', '10\u00a0ms', undefined],
      ['p99', '10\u00a0ms', undefined],
      ['Sent', '185\u00a0kB', '1.2\u00a0kB per request'],
    ],
  );
  t.like(sources[0]?.statuses[1], {
    status: '502',
    reason: 'Bad Gateway',
    class: 'status-5xx',
    count: '2',
    share: '1.3\u00a0%',
  });
  t.like(tables[0]?.rows.at(-1), {
    iso: '2026-11-23T20:00:00Z',
    text: '23\u00a0Nov 20:00',
    cells: ['32', '30', '0', '0', '2', '6.3\u00a0%', '10\u00a0ms', '10\u00a0ms', '10\u00a0ms', '–', '37\u00a0kB'],
  });
  t.like(latest.at(-1), {
    text: '19:59:30.000',
    duration: '1.23\u00a0s',
    endpoint: '/users/:id',
    uri: { text: '/users/7?q=1', href: '/?path=%2Fusers%2F7' },
  });
  t.is(textOf(collectors[0]?.silent ?? []), 'no report since 19:59:00 UTC');
  t.like(
    collectors[0]?.figures.find(({ name }) => name === 'Rejected'),
    { value: '10', note: 'not-json 6, too-long 4', alarm: false },
  );
  t.like(
    collectors[0]?.figures.find(({ name }) => name === 'Spooled'),
    { value: '3', alarm: true },
  );
  t.deepEqual(
    charts.map(({ name, panels }) => [name, panels.map(({ links }) => links[0]?.href)]),
    ['requests', 'latency', 'errors', 'bytes'].map((name) => [
      name,
      [`/chart/${name}.svg?source=caddy`, `/chart/${name}.svg?source=app`],
    ]),
  );
});

test('top lists link to the page of each value, and empty lists are omitted', async (t) => {
  const requests = [
    ...many(150, { uri: '/a?x=1', clientIp: '192.0.2.0' }),
    ...many(50, { uri: `/${'b'.repeat(400)}`, status: 502, userAgent: 'curl/8.5.0' }),
  ];
  const query = parseQuery({ method: 'GET' }, nowMs);
  const store = {
    readTopWindows: () => Promise.resolve([]),
    topListsOfRequests: ({ kinds, valuesMax }: { kinds: readonly TopKind[]; valuesMax: number }) =>
      Promise.resolve({ bySource: topListsOfRequests(requests, { kinds, valuesMax }), ofNewest: undefined }),
  };
  const topLists = await readTopListsFrom(store, query, {
    dimensions: ['path', 'user_agent', 'client'],
    valuesMax: 100,
    nowMs,
  });
  const page = view(requests, { topLists });
  t.deepEqual(
    page.topLists.map(({ title }) => title),
    ['Paths', 'Hosts', 'Methods', 'Clients', 'People and bots', 'Bots', 'User agents'],
  );
  t.like(page.topLists[0]?.rows, [
    {
      text: '/a',
      href: '/?path=%2Fa',
      count: '150',
      share: '75.0\u00a0%',
      errors: '0',
      p95: '10\u00a0ms',
      alarm: false,
    },
    { text: `/${'b'.repeat(59)}…`, href: undefined, count: '50', errors: '50' },
  ]);
  t.is(page.topLists[0]?.csvHref, '/api/top/path.csv?limit=10000', 'all values, not the default limit of 100');
  t.like(
    page.sources[0]?.figures.find(({ name }) => name === 'Clients'),
    { value: '1', note: 'address' },
  );
  t.is(page.topListsNote, undefined);
  t.is(
    textOf(
      view(requests, { topLists: { ...topLists, ofNewest: 5000, retainedFromMs: nowMs - 7 * 86_400_000 } })
        .topListsNote ?? [],
    ),
    'With this filter, lists of raw requests cover only the newest 5,000, and start at 16\u00a0Nov\u00a020:00 UTC (RETENTION_REQUESTS).',
  );
});

test('every range and any figures yield a view without NaN', (t) => {
  const odd = [
    event({ timeMs: nowMs - 1, durationMs: 0 }),
    event({ timeMs: nowMs - 1, durationMs: 1e9, size: 1e15 }),
    event({ timeMs: nowMs - 1, status: 0, host: '', uri: '' }),
    event({ timeMs: nowMs - 1, status: 999, source: 'weird' }),
  ];
  for (const from of ['now-1s', 'now-15m', 'now-24h', 'now-30d', 'now-3000d'])
    t.notRegex(JSON.stringify(view(odd, { raw: { from } })), /NaN|Infinity|undefined/, from);
});

test('rates of a quiet site use a unit that distinguishes them', (t) => {
  for (const from of ['now-1h', 'now-24h', 'now-7d', 'now-30d']) {
    const { charts, sources } = view(many(3), { raw: { from } });
    const svg = charts.find(({ name }) => name === 'requests')!.panels[0]!.svg;
    const ticks = [...svg.matchAll(/<text class="tick" [^>]*>([^<]*)/g)].map(([, text]) => text);
    t.is(new Set(ticks).size, ticks.length, `${from}: ${ticks.join(' ')}`);
    t.notRegex(sources[0]!.figures.find(({ name }) => name === 'Rate')!.value, /^0\//, from);
  }
});

test('a value that is too long for a URL has no link', (t) => {
  const hrefOf = (uri: string) => view([event({ timeMs: nowMs - 1, uri })]).latest[0]?.uri.href;
  t.is(hrefOf(`/${'x'.repeat(6000)}`)?.length, 6010);
  t.is(hrefOf(`/${'→'.repeat(6000)}`), undefined);
});

test('untrusted text is truncated, and its control and direction characters are escaped', (t) => {
  t.is(printable('a\u0000\u202Eb\n', 10), 'a\\u{0}\\u{202e}b\\u{a}');
  t.is(printable('x'.repeat(6000), 120).length, 121);
  t.is(printable('ab😀', 3), 'ab…', 'no half of a pair is left');
});
