import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../shared/log.js';
import { createRecorder } from '../shared/record/recorder.js';
import { openStore } from '../shared/store/open.js';
import type { RequestEvent } from '../shared/request-event.js';
import type { LedgerSnapshot } from '../shared/store/store.js';
import type { ClientIpPolicy } from '../shared/record/bounds.js';
import { until } from '../test/until.js';
import { event, ledger } from '../test/web-samples.js';
import { startWeb } from './web.js';

/** The web app over a DuckDB file, both real, with some requests in it that ended just now. */
async function start(
  t: ExecutionContext,
  {
    requests = [],
    snapshot,
    password,
    loopbackNamesOnly = false,
    clientIp = 'full',
    now = Date.now,
    monotonicMs = () => performance.now(),
  }: {
    requests?: Partial<RequestEvent>[];
    snapshot?: LedgerSnapshot;
    password?: string;
    loopbackNamesOnly?: boolean;
    clientIp?: ClientIpPolicy;
    now?: () => number;
    monotonicMs?: () => number;
  } = {},
) {
  const directory = await mkdtemp(join(tmpdir(), 'web-'));
  const logged: string[] = [];
  const log = createLog('test', { write: (line) => logged.push(line) });
  const day = 86_400_000;
  const store = await openStore(
    {
      kind: 'duckdb',
      path: join(directory, 'requests.duckdb'),
      retention: { requestsMs: 7 * day, rollupsMs: 400 * day },
    },
    { log },
  );
  const snapshots = snapshot === undefined ? [] : [snapshot];
  const recorder = createRecorder({
    store,
    log,
    name: 'tested',
    hostsMax: 200,
    clientIp,
    ledger: () => snapshots.pop(),
    drainMsMax: 500,
  });
  for (const request of requests) recorder.record(event({ timeMs: Date.now(), ...request }));
  await recorder.flush();
  const web = await startWeb(
    {
      host: '127.0.0.1',
      port: 0,
      password,
      loopbackNamesOnly,
      clientIp,
      connectHint: ['the first line', '<the> last line'],
    },
    { store, recorder, log, now, monotonicMs },
  );
  t.teardown(async () => {
    await web.stop();
    await recorder.close();
    await store.close();
    await rm(directory, { recursive: true });
  });
  const get = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(web.url + path, { redirect: 'manual', ...init });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };
  const json = async (path: string): Promise<unknown> => JSON.parse((await get(path)).text);
  return { web, store, recorder, logged, get, json };
}

test('a range that reaches beyond the single requests that are kept says so where it is made from them, and only there.', async (t) => {
  const { get, json } = await start(t, { requests: traffic });
  const since =
    /those before <time datetime="[\d-]+T\d\d:\d\d:00Z">\d+\u00a0\w+\u00a0\d\d:\d\d<\/time> UTC have been deleted \(RETENTION_REQUESTS\)/;
  t.regex((await get('/?from=now-30d&path=/a')).text, since);
  t.like(await json('/api/summary?from=now-30d&client=192.0.2.7'), { complete: false });
  for (const search of ['from=now-30d', 'from=now-7d&path=/a', 'from=now-30d&method=GET']) {
    t.notRegex((await get(`/?${search}`)).text, since, search);
    t.like(await json(`/api/summary?${search}`), { complete: true }, search);
  }
  // Totals know the method; the lists under it are those of single requests.
  t.regex(
    (await get('/?from=now-30d&method=GET')).text,
    /lists of raw requests start at .* UTC \(RETENTION_REQUESTS\)/,
  );
  t.notRegex((await get('/?from=now-7d&method=GET')).text, /lists of raw requests/);
  for (const [search, complete] of [
    ['from=now-30d&method=GET', 'false'],
    ['from=now-7d&method=GET', 'true'],
    ['from=now-30d', 'true'],
  ] as const) {
    t.is((await get(`/api/top/path?${search}`)).headers.get('x-complete'), complete, search);
  }
});

test('under a filter every request is listed, not the newest of them.', async (t) => {
  const { json } = await start(t, {
    requests: Array.from({ length: 25_000 }, (_, at) => ({
      timeMs: Date.now() - at,
      uri: at < 24_990 ? '/often' : '/early',
    })),
  });
  t.like(await json('/api/top/path?method=GET'), [
    { value: '/often', count: 24_990 },
    { value: '/early', count: 10 },
  ]);
});

const traffic: Partial<RequestEvent>[] = [
  { status: 200, durationMs: 10, size: 100, uri: '/a?x=1' },
  { status: 200, durationMs: 20, size: 100, uri: '/a', host: 'other.example' },
  {
    status: 404,
    durationMs: 30,
    size: 10,
    uri: '/b',
    method: 'POST',
    clientIp: '192.0.2.7',
    userAgent: '=tester',
    referrer: 'http://r.example/',
    tls: 'TLS 1.3',
  },
  { status: 502, durationMs: 40, size: 1, uri: '/a' },
  { status: 200, durationMs: 5, size: 100, uri: '/a', source: 'shop', endpoint: '/:page' },
];

test('a link with parameters of others opens the page with its filters, and says what it ignores; the API does so in a header.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  const { status, text } = await get('/?utm_source=mail&fbclid=1&status=404');
  t.is(status, 200);
  t.regex(text, /Unknown parameters ignored: <bdi>utm_source, fbclid<\/bdi>/);
  t.regex(text, /chip-name">status<\/span><bdi>404</);
  const api = await get('/api/summary?utm_source=mail&status=404');
  t.deepEqual([api.status, api.headers.get('x-ignored-parameters')], [200, 'utm_source']);
});

test('a bad value keeps the rest of the filters on the page, and is named with what is wanted.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  const { status, text } = await get('/?from=now-6h&status=6xx&host=shop.example&method=GET');
  t.is(status, 400);
  t.regex(text, /The parameter status is &quot;6xx&quot;; allowed is a status such as 404/);
  for (const part of [
    'chip-name">host</span><bdi>shop.example',
    'chip-name">method</span><bdi>GET',
    'name="host" value="shop.example"',
    'name="from" value="now-6h"',
  ])
    t.true(text.includes(part), part);
  t.notRegex(text, /data-refresh|http-equiv="refresh"/, 'it does not load itself again');
});

test('a client address that is typed finds what is stored of it, which the page shows with its prefix.', async (t) => {
  const { get, json } = await start(t, {
    clientIp: 'truncated',
    requests: [
      { uri: '/v4', clientIp: '203.0.113.9' },
      { uri: '/v6', clientIp: '2001:db8:1:2::3' },
    ],
  });
  for (const [client, uri] of [
    ['203.0.113.77', '/v4'],
    ['203.0.113.0/24', '/v4'],
    ['2001:db8:1:ffff::1', '/v6'],
    ['2001:db8:1::/48', '/v6'],
  ] as const) {
    t.deepEqual(
      ((await json(`/api/requests?client=${encodeURIComponent(client)}`)) as { uri: string }[]).map((row) => row.uri),
      [uri],
      client,
    );
  }
  const { text } = await get('/?client=203.0.113.77');
  t.true(text.includes('chip-name">client</span><bdi>203.0.113.0/24'));
  t.true((await get('/')).text.includes('<bdi>2001:db8:1::/48</bdi>'));
});

test('without a password the page and the log warn when it is shown through a proxy, until something says that it is meant.', async (t) => {
  const warning = /Everyone who can reach this proxy can open this page/;
  const proxied = { headers: { Via: '1.1 Caddy', 'X-Forwarded-For': '192.0.2.1' } };
  const open = await start(t, { loopbackNamesOnly: true });
  t.notRegex((await open.get('/')).text, warning);
  for (const name of ['Via', 'X-Forwarded-For', 'X-Real-IP'])
    t.regex((await open.get('/', { headers: { [name]: '192.0.2.1' } })).text, warning, name);
  t.is(open.logged.filter((line) => line.includes('Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true')).length, 1);
  const meant = await start(t);
  t.notRegex((await meant.get('/', proxied)).text, warning, 'DASHBOARD_OPEN');
  const guarded = await start(t, { password: 'open sesame' });
  t.notRegex(
    (
      await guarded.get('/', {
        headers: { ...proxied.headers, Authorization: `Basic ${Buffer.from('any:open sesame').toString('base64')}` },
      })
    ).text,
    warning,
  );
});

test('the page leaves out its own requests, and the API has them.', async (t) => {
  const { get, json, recorder } = await start(t, { requests: traffic });
  await get('/?host=none');
  await recorder.flush();
  const own = await until('it is recorded', async () => {
    await recorder.flush();
    const { sources } = (await json('/api/summary')) as { sources: Record<string, { requests: number }> };
    return sources['dashboard'];
  });
  t.true(own.requests >= 1);
  const { text } = await get('/');
  t.regex(text, /Excluded: \d+ requests? to the dashboard itself/);
  t.notRegex(text, /<bdi>dashboard<\/bdi>|host=none/);
  t.regex((await get('/?source=dashboard')).text, /<bdi>dashboard<\/bdi>/);
});

test('/api/ping answers, and is itself a request of the source dashboard.', async (t) => {
  const { json, recorder } = await start(t);
  t.deepEqual(await json('/api/ping'), { message: 'pong', pong: true });
  // The request is recorded when its response has been sent, which the client may see first.
  t.like(await json('/api/ping'), { pong: true });
  await recorder.flush();
  const rows = (await json('/api/requests?source=dashboard&path=/api/ping')) as unknown[];
  t.like(rows[0], {
    source: 'dashboard',
    method: 'GET',
    uri: '/api/ping',
    status: 200,
    endpoint: '/api/ping',
    size: 30,
  });
});

test('/api/summary gives the figures by source, over whole windows.', async (t) => {
  const { json } = await start(t, {
    requests: traffic,
    snapshot: ledger({ timeMs: Date.now(), received: 5, accepted: 5, stored: 5 }),
  });
  const summary = (await json('/api/summary?from=now-1h')) as {
    from: string;
    to: string;
    complete: boolean;
    sources: Record<string, unknown>;
  };
  t.deepEqual(Object.keys(summary), ['from', 'to', 'complete', 'sources']);
  t.regex(summary.from, /^\d{4}-\d\d-\d\dT\d\d:\d\d:00Z$/);
  const lengthMs = Date.parse(summary.to) - Date.parse(summary.from);
  t.true(lengthMs === 61 * 60_000 || lengthMs === 60 * 60_000, String(lengthMs));
  t.true(summary.complete);
  t.like(summary.sources['caddy'], { requests: 4, errors: 1, bytes: 211, statuses: { 200: 2, 404: 1, 502: 1 } });
  const { duration_ms: durations } = summary.sources['caddy'] as { duration_ms: Record<string, number> };
  t.deepEqual(Object.keys(durations), ['mean', 'p50', 'p95', 'p99', 'max']);
  t.is(durations['mean'], 25);
  t.is(durations['max'], 40);
  t.true(Math.abs(durations['p50']! - 20) <= 1);
  t.like(summary.sources['shop'], { requests: 1, errors: 0, statuses: { 200: 1 } });
});

test('filters restrict the figures, by path too, which only raw requests know.', async (t) => {
  const { json } = await start(t, { requests: traffic });
  const requestsOf = async (filter: string): Promise<Record<string, number>> => {
    const { sources } = (await json(`/api/summary?${filter}`)) as { sources: Record<string, { requests: number }> };
    return Object.fromEntries(
      Object.entries(sources)
        .filter(([source]) => source !== 'dashboard')
        .map(([source, { requests }]) => [source, requests]),
    );
  };
  t.deepEqual(await requestsOf('source=shop'), { shop: 1 });
  t.deepEqual(await requestsOf('host=other.example'), { caddy: 1 });
  t.deepEqual(await requestsOf('method=POST'), { caddy: 1 });
  t.deepEqual(await requestsOf('status=5xx'), { caddy: 1 });
  t.deepEqual(await requestsOf('status=404'), { caddy: 1 });
  t.deepEqual(await requestsOf('path=/a'), { caddy: 3, shop: 1 });
  t.deepEqual(await requestsOf('path=/a&status=200&source=caddy'), { caddy: 2 });
});

test('a click on a client, a user agent or a referrer filters figures, lists and requests, by what the list shows.', async (t) => {
  const { json, get } = await start(t, {
    requests: [
      {
        uri: '/a',
        clientIp: '192.0.2.7',
        userAgent: 'curl/8.5.0',
        referrer: 'https://r.example/?q=1',
        requestId: '7f-1',
        durationMs: 10,
      },
      { uri: '/b', clientIp: '192.0.2.7', userAgent: 'Wget/1.21', durationMs: 10 },
      { uri: '/c', clientIp: '198.51.100.7', userAgent: 'curl/8.5.0', durationMs: 10 },
    ],
  });
  for (const [filter, paths] of Object.entries({
    'client=192.0.2.0': [],
    'client=192.0.2.7': ['/b', '/a'],
    'user_agent=curl/8.5.0': ['/c', '/a'],
    'referrer=https://r.example/': ['/a'],
    'request_id=7f-1': ['/a'],
    'client=192.0.2.7&user_agent=curl/8.5.0': ['/a'],
  })) {
    const { sources, complete } = (await json(`/api/summary?source=caddy&${filter}`)) as {
      sources: Record<string, { requests: number }>;
      complete: boolean;
    };
    t.is(sources['caddy']?.requests ?? 0, paths.length, filter);
    t.true(complete);
    t.deepEqual(
      ((await json(`/api/requests?source=caddy&${filter}`)) as { uri: string }[]).map(({ uri }) => uri).sort(),
      paths.toSorted(),
      filter,
    );
    t.deepEqual(
      ((await json(`/api/top/path?source=caddy&${filter}`)) as { value: string }[]).map(({ value }) => value).sort(),
      paths.toSorted(),
      filter,
    );
    const page = await get(`/?source=caddy&${filter}`);
    t.is(page.status, 200);
    t.true(page.text.includes(filter.split('=')[0]!), 'there is a chip');
  }
  t.regex((await get('/')).text, /client=192\.0\.2\.7/);
  const { status, text } = await get('/api/summary?referrer=https://r.example/%3Fq=1');
  t.is(status, 400);
  t.regex(text, /referrer.*q=1.*without its query/s);
});

test('/api/series gives one row for each window and source, as JSON and CSV.', async (t) => {
  const { json, get } = await start(t, { requests: traffic });
  const rows = (await json('/api/series?source=shop')) as Record<string, unknown>[];
  t.is(rows.length, 1);
  t.deepEqual(Object.keys(rows[0]!), ['time', 'source', 'requests', 'errors', 'bytes', 'duration_ms', 'statuses']);
  t.like(rows[0], {
    source: 'shop',
    requests: 1,
    errors: 0,
    bytes: 100,
    duration_ms: { mean: 5 },
    statuses: { 200: 1 },
  });
  const csv = await get('/api/series.csv?source=shop');
  t.regex(csv.headers.get('content-type') ?? '', /^text\/csv/);
  t.regex(
    csv.text,
    /^"time","source","requests","errors","bytes","duration_ms\.mean",.*,"statuses"\r\n"\d{4}-[^,]*:00Z","shop","1","0","100","5",.*,"200:1"\r\n$/,
  );
});

test('/api/requests gives the latest requests, newest first, as JSON and CSV.', async (t) => {
  const { json, get } = await start(t, { requests: traffic });
  const rows = (await json('/api/requests?source=caddy&limit=3')) as Record<string, unknown>[];
  t.is(rows.length, 3);
  t.deepEqual(
    rows.map(({ time }) => time),
    rows
      .map(({ time }) => time)
      .sort()
      .reverse(),
  );
  const [row] = (await json('/api/requests?status=404&source=caddy')) as Record<string, unknown>[];
  t.regex(String(row?.['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
  t.like(row, {
    source: 'caddy',
    method: 'POST',
    host: 'shop.example',
    uri: '/b',
    status: 404,
    duration_ms: 30,
    size: 10,
    bytes_read: 0,
    endpoint: '',
    client_ip: '192.0.2.7',
    user_agent: '=tester',
    referrer: 'http://r.example/',
    protocol: 'HTTP/1.1',
    tls: 'TLS 1.3',
  });
  t.true((await get('/api/requests.csv?status=404&source=caddy')).text.includes(`,"'=tester",`), 'no formula');
});

test('the page takes fewer rows than the API, since it would hold up all others.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  t.is((await get('/?limit=500')).status, 200);
  for (const limit of [0, 501, 10_001]) {
    const { status, text } = await get(`/?limit=${limit}`);
    t.is(status, 400);
    t.true(
      text.includes(`The parameter limit is &quot;${limit}&quot;; allowed is a whole number from 1 to 500.`),
      text,
    );
  }
  t.is((await get('/api/requests?limit=10000')).status, 200);
});

test('/api/requests?errors=first puts the latest 5xx before what came after them.', async (t) => {
  const { json } = await start(t, {
    requests: [
      { status: 502, uri: '/old' },
      { status: 503, uri: '/new' },
      { status: 200, uri: '/later' },
      { status: 404, uri: '/latest' },
    ].map((parts, at) => ({ ...parts, timeMs: Date.now() - 10_000 + at * 1000 })),
  });
  const uris = async (search: string): Promise<string[]> =>
    ((await json(`/api/requests?${search}`)) as { uri: string }[]).map(({ uri }) => uri);
  t.deepEqual(await uris('source=caddy'), ['/latest', '/later', '/new', '/old']);
  t.deepEqual(await uris('source=caddy&errors=first'), ['/new', '/old', '/latest', '/later']);
  t.deepEqual(await uris('source=caddy&errors=first&limit=3'), ['/new', '/old', '/latest']);
  t.deepEqual(await uris('source=caddy&errors=first&status=404'), ['/latest']);
});

test('/chart/outside and /chart/unmatched tell of an app beside the edge, whatever the source.', async (t) => {
  const { json, get } = await start(t, {
    requests: [
      { status: 200, durationMs: 30 },
      { status: 502, durationMs: 50 },
      { status: 200, durationMs: 20, source: 'shop' },
      { status: 200, durationMs: 20, source: 'shop', host: 'inside.example' },
    ],
  });
  const [outside] = (await json('/chart/outside.json?source=shop')) as Record<string, unknown>[];
  t.like(outside, { source: 'shop', mean: 20 });
  t.deepEqual(Object.keys(outside!), ['time', 'source', 'mean']);
  const rows = (await json('/chart/unmatched.json')) as Record<string, number>[];
  t.true(
    rows.reduce((sum, row) => sum + row['errors of the edge']!, 0) > 0 &&
      rows.reduce((sum, row) => sum + row['past the edge']!, 0) > 0,
  );
  t.regex((await get('/chart/unmatched.csv')).text, /^"time","source","errors of the edge","past the edge"\r\n/);
  t.true((await get('/chart/outside.svg?source=shop')).text.includes('class="line series-3"'));
  t.deepEqual(await json('/chart/outside.json?source=none'), []);
  t.true((await get('/chart/outside.svg?source=none')).text.includes('class="gap"'), 'all of it is a gap');
});

test('/api/ledger gives the counts of each collector, and lost lines make figures incomplete.', async (t) => {
  const lastLineMs = Date.UTC(2026, 10, 23, 20);
  const { json, get } = await start(t, {
    requests: traffic,
    snapshot: ledger({
      timeMs: Date.now(),
      received: 9,
      accepted: 5,
      runtime: 1,
      events: 1,
      rejected: { 'not-json': 2 },
      dropped: { 'memory-full': 1 },
      stored: 4,
      inMemory: 1,
      warnings: { 'peers-not-allowed': 3 },
      lastLineMs,
    }),
  });
  t.deepEqual(await json('/api/ledger'), {
    collectors: {
      'edge-1': {
        received: 9,
        accepted: 5,
        runtime: 1,
        events: 1,
        other: 0,
        rejected: { 'not-json': 2 },
        dropped: { 'memory-full': 1 },
        stored: 4,
        spooled: 0,
        in_memory: 1,
        dead_lettered: 0,
        warnings: { 'peers-not-allowed': 3 },
        last_line: '2026-11-23T20:00:00Z',
      },
    },
  });
  t.regex(
    (await get('/api/ledger.csv')).text,
    /\r\n"edge-1","9","5","1","not-json:2","memory-full:1","4","0","1","0","peers-not-allowed:3","2026-11-23T20:00:00Z","1","0"\r\n/,
  );
  t.like(await json('/api/summary'), { complete: false });
  t.true((await get('/')).text.includes('These figures are incomplete'));
});

test('the page shows the figures, refreshes itself, and keeps to a strict policy.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  const { status, text, headers } = await get('/');
  t.is(status, 200);
  t.regex(headers.get('content-type') ?? '', /^text\/html/);
  t.is(
    headers.get('content-security-policy'),
    "default-src 'none';style-src 'self';img-src 'self';script-src 'self';connect-src 'self';form-action 'self';base-uri 'none';frame-ancestors 'none'",
  );
  t.is(headers.get('strict-transport-security'), null);
  t.is(headers.get('cache-control'), 'private, no-cache');
  t.true(text.includes('<noscript><meta http-equiv="refresh" content="5"></noscript>'));
  t.regex(text, /<title>[^<]* · Caddy Log Sink<\/title>/);
  for (const part of ['Status codes', 'Latest requests', 'id="latency-1"', 'Bad Gateway', '>shop<'])
    t.true(text.includes(part), part);
  t.notRegex(text, /<script>|style="|undefined|NaN/);
  const [, stylesheet = ''] = /<link rel="stylesheet" href="([^"]*)">/.exec(text) ?? [];
  const style = await get(stylesheet);
  t.is(style.status, 200);
  t.is(style.headers.get('cache-control'), 'public, max-age=31536000, immutable');
  t.is(style.headers.get('content-type'), 'text/css; charset=utf-8');
  t.true((await get('/?refresh=60')).text.includes('content="60"'));
  for (const query of ['refresh=off', 'from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z'])
    t.notRegex((await get(`/?${query}`)).text, /http-equiv="refresh"/);
});

test('what a client has already is answered with 304, for the page as long as only the clock has moved on.', async (t) => {
  let nowMs = Math.floor(Date.now() / 600_000) * 600_000 + 60_000; // well inside a window
  // In windows that have ended: the rate of an open one falls as time goes on.
  const { get, recorder } = await start(t, {
    requests: traffic.map((request) => ({ ...request, timeMs: nowMs - 7_300_000 })),
    now: () => nowMs,
  });
  for (const path of [
    '/?from=now-7d',
    '/api/summary?source=caddy&from=now-7d',
    '/api/series.csv?source=caddy&from=now-7d',
    '/chart/latency.svg?source=caddy&from=now-7d',
  ]) {
    const polled = { 'X-Poll': '1' };
    const { headers } = await get(path, { headers: polled });
    const etag = headers.get('etag') ?? '';
    t.regex(etag, /^W\/"[\w-]{22}"$/, path);
    t.is(headers.get('cache-control'), 'private, no-cache');
    await recorder.flush();
    nowMs += 5000;
    const again = await get(path, { headers: { ...polled, 'If-None-Match': etag, 'Cache-Control': 'max-age=0' } });
    t.is(again.status, 304, path);
    t.is(again.text, '');
    t.is(again.headers.get('etag'), etag);
    const head = await get(path, { method: 'HEAD', headers: polled });
    t.like({ status: head.status, etag: head.headers.get('etag'), text: head.text }, { status: 200, etag, text: '' });
    recorder.record(event({ timeMs: nowMs - 7_200_000, status: 500 }));
    await recorder.flush();
    t.is((await get(path, { headers: { ...polled, 'If-None-Match': etag } })).status, 200, 'something has changed');
  }
  t.is((await get('/health')).headers.get('cache-control'), 'no-store');
  t.is((await get('/nothing')).headers.get('cache-control'), 'no-store');
});

test('the polls of an open page are measured, but are no traffic of their own.', async (t) => {
  const { get, json, recorder } = await start(t, { requests: traffic });
  await get('/', { headers: { 'X-Poll': '1' } });
  await get('/api/ping');
  await recorder.flush();
  t.is(((await json('/api/requests?source=dashboard')) as unknown[]).length, 1);
  t.true((await get('/metrics')).text.includes('caddy_log_sink_web_requests_total{endpoint="/",status="200"} 1'));
});

test('answers are compressed for those who ask.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  const { headers, text } = await get('/', { headers: { 'accept-encoding': 'br' } });
  t.is(headers.get('content-encoding'), 'br');
  t.regex(headers.get('vary') ?? '', /Accept-Encoding/i);
  t.true(text.endsWith('</html>'));
});

test('a page without requests of Caddy says how to connect it.', async (t) => {
  const { get } = await start(t);
  const { status, text } = await get('/');
  t.is(status, 200);
  t.true(text.includes('Connect Caddy'));
  t.true(text.includes('the first line\n&lt;the&gt; last line'));
  t.false(text.includes('Status codes'), 'no empty boxes');
});

test('values from strangers are escaped, cut and made visible.', async (t) => {
  const { get } = await start(t, {
    requests: [
      { uri: '/<script>alert(1)</script>' },
      { uri: `/${'long'.repeat(1500)}` },
      { uri: '/\u202Egnp.exe' },
      { host: '"><b>host', method: '<I>' },
      { source: 'caddy', userAgent: '<u>' },
    ],
  });
  const { status, text } = await get('/');
  t.is(status, 200);
  t.notRegex(text, /<script>|<b>host|\u202E|<I>/);
  t.true(text.includes('&lt;script&gt;alert(1)&lt;/script&gt;'));
  t.true(text.includes('\\u{202e}gnp.exe'));
  t.true(!text.includes('long'.repeat(1000)) || text.includes('%2Flong'), 'only the link is whole');
  t.is(
    (await get(`/?host=${encodeURIComponent('"><script>')}&path=${encodeURIComponent(`/${'x'.repeat(6000)}`)}`)).status,
    200,
  );
});

test('a chart by itself is SVG with a policy for its own style sheet.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  for (const [name, mark] of [
    ['latency', 'class="line series-1"'],
    ['requests', 'class="area status-2xx"'],
    ['errors', 'class="area status-5xx"'],
    ['bytes', 'class="area series-1"'],
  ] as const) {
    const { status, text, headers } = await get(`/chart/${name}.svg?from=now-15m`);
    t.is(status, 200);
    t.is(headers.get('content-type'), 'image/svg+xml');
    t.regex(headers.get('content-security-policy') ?? '', /^default-src 'none'; style-src 'sha256-[^']*'$/);
    t.true(text.startsWith('<?xml'));
    t.true(text.includes(mark), name);
  }
});

test('/api/requests and the page tell of edge and app what each took under one id, and the time outside.', async (t) => {
  const { json, get } = await start(t, {
    requests: [
      { durationMs: 12.3, requestId: '5f0c7c1e-0000-4000-8000-000000000001' },
      { durationMs: 8.1, requestId: '5f0c7c1e-0000-4000-8000-000000000001', source: 'shop' },
      { durationMs: 7, requestId: '<b>alone' },
    ],
  });
  const pairs = async (search: string): Promise<unknown> =>
    ((await json(`/api/requests?${search}`)) as { duration_ms: number; pair: unknown }[])
      .map(({ duration_ms: took, pair }) => [took, pair])
      .sort();
  const pair = { edge_ms: 12.3, app_ms: 8.1, outside_ms: 4.2 };
  t.deepEqual(await pairs(''), [
    [12.3, pair],
    [7, null],
    [8.1, pair],
  ]);
  t.deepEqual(await pairs('request_id=5f0c7c1e-0000-4000-8000-000000000001'), [
    [12.3, pair],
    [8.1, pair],
  ]);
  t.deepEqual(await pairs('source=shop'), [[8.1, pair]], 'the edge is not among the rows, and is looked for');
  t.deepEqual(await pairs('source=caddy'), [
    [12.3, pair],
    [7, null],
  ]);
  t.regex(
    (await get('/api/requests.csv?source=caddy&request_id=%3Cb%3Ealone')).text,
    /"request_id","pair\.edge_ms","pair\.app_ms","pair\.outside_ms","error","error_id","upstream","retries","content_type"\r\n.*,"<b>alone",,,,"","","",,""\r\n$/,
  );
  t.regex((await get('/api/requests.csv')).text, /,"12\.3","8\.1","4\.2",/);
  const { text } = await get('/?refresh=off');
  t.regex(text, /title="Caddy 12\u00a0ms, app 8\.1\u00a0ms">4\.2\u00a0ms</);
  t.true(text.includes('request_id=5f0c7c1e-0000-4000-8000-000000000001'));
  t.true(text.includes('request_id=%3Cb%3Ealone') && !text.includes('<b>alone'));
});

test('a page without request ids has no columns for them.', async (t) => {
  const { get } = await start(t, { requests: traffic });
  t.notRegex((await get('/?refresh=off')).text, /Request id<\/th>|Proxy overhead<\/th>/);
});

test('/api/top/… ranks paths, referrers, user agents, browsers and clients, with a filter too.', async (t) => {
  const firefox = 'Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0';
  const { json, get } = await start(t, {
    requests: [
      {
        status: 200,
        durationMs: 10,
        size: 100,
        uri: '/a?x=1',
        userAgent: firefox,
        clientIp: '192.0.2.7',
        referrer: 'https://r.example/?q=1',
      },
      { status: 502, durationMs: 30, size: 1, uri: '/a', userAgent: firefox, clientIp: '192.0.2.7', method: 'POST' },
      {
        status: 200,
        durationMs: 10,
        size: 5,
        uri: '/b',
        userAgent: 'curl/8.5.0',
        clientIp: '192.0.2.8',
        host: 'other.example',
      },
      { status: 200, durationMs: 1, size: 5, uri: '/inside', source: 'shop' },
    ],
  });
  const list = async (path: string): Promise<unknown> =>
    ((await json(`/api/top/${path}`)) as { value: string; count: number; share: number }[]).map(
      ({ value, count, share }) => [value, count, share],
    );
  t.deepEqual(await json('/api/top/path'), [
    { value: '/a', count: 2, share: 0.666667, errors: 1, bytes: 101, duration_ms: { mean: 20, p95: 30 }, count_max: 2 },
    {
      value: '/b',
      count: 1,
      share: 0.333333,
      errors: 0,
      bytes: 5,
      duration_ms: { mean: 10, p95: 9.97525 },
      count_max: 1,
    },
  ]);
  t.deepEqual(await list('referrer'), [['https://r.example/', 1, 1]]);
  t.deepEqual(await list('user_agent'), [
    [firefox, 2, 0.666667],
    ['curl/8.5.0', 1, 0.333333],
  ]);
  t.deepEqual(await list('client'), [
    ['192.0.2.7', 2, 0.666667],
    ['192.0.2.8', 1, 0.333333],
  ]);
  t.deepEqual(await list('browser'), [['Firefox', 2, 0.666667]]);
  t.deepEqual(await list('system'), [['Linux', 2, 0.666667]]);
  t.deepEqual(await list('bot'), [['curl', 1, 0.333333]]);
  t.deepEqual(await list('who'), [
    ['people', 2, 0.666667],
    ['bots', 1, 0.333333],
  ]);
  t.deepEqual(await list('path?source=shop'), [['/inside', 1, 1]]);
  t.deepEqual(await list('path?host=other.example'), [['/b', 1, 1]]);
  t.deepEqual(await list('path?status=5xx&method=POST'), [['/a', 1, 1]]);
  t.deepEqual(await list('client?path=/a'), [['192.0.2.7', 2, 1]]);
  t.deepEqual(await list('path?host=none.example'), []);
  t.is(((await json('/api/top/path?limit=1')) as unknown[]).length, 1);
  t.regex(
    (await get('/api/top/path.csv')).text,
    /^"value","count","share","errors","bytes","duration_ms\.mean","duration_ms\.p95","count_max"\r\n"\/a","2","0\.666667","1","101","20","30","2"\r\n"\/b","1",/,
  );
  t.is((await get('/api/top/path')).headers.get('x-complete'), 'true');
  const { status, text } = await get('/api/top/colour');
  t.is(status, 404);
  t.regex(
    text,
    /no list by \\"colour\\"; there are lists by path, referrer, user_agent, client, error, upstream, country, host, method, browser, system, bot/,
  );
  t.is((await get('/api/top/path?from=yesterday')).status, 400);
});

test('/api/summary counts the clients of each source, by host too.', async (t) => {
  const requests = Array.from({ length: 500 }, (_, at) => ({
    clientIp: `10.0.${at % 250}.1`,
    host: at % 250 < 10 ? 'small.example' : 'large.example',
  }));
  const { json } = await start(t, { requests });
  const clients = async (search: string): Promise<number | null | undefined> =>
    ((await json(`/api/summary?${search}`)) as { sources: Record<string, { clients: number | null }> }).sources['caddy']
      ?.clients;
  const about = await clients('');
  t.true(about! >= 240 && about! <= 260, String(about));
  t.is(await clients('host=small.example&source=caddy'), 10);
  t.is(await clients('status=200'), null, 'their sketches do not know');
});

test('/api/top/host and /api/top/method rank what the edge saw, as JSON and CSV.', async (t) => {
  const { get, json } = await start(t, { requests: traffic });
  t.like(await json('/api/top/host'), [
    { value: 'shop.example', count: 3, share: 0.75, errors: 1, bytes: 111 },
    { value: 'other.example', count: 1 },
  ]);
  t.is(((await json('/api/top/host?limit=1')) as unknown[]).length, 1);
  t.regex(
    (await get('/api/top/method.csv')).text,
    /^"value","count","share","errors","bytes","duration_ms\.mean","duration_ms\.p95"\r\n"GET","3","0\.75","1","201",.*\r\n"POST","1","0\.25","0","10",/,
  );
});

test('a chart is given as CSV and JSON too.', async (t) => {
  const { get, json } = await start(t, { requests: traffic });
  t.regex(
    (await get('/chart/requests.csv?source=caddy')).text,
    /^"time","source","2xx","3xx","4xx","5xx","other"\r\n"\d{4}-[^,]*:00Z","caddy","0\.\d+","0","0\.\d+","0\.\d+","0"\r\n$/,
  );
  const [row] = (await json('/chart/latency.json?source=shop')) as Record<string, unknown>[];
  t.like(row, { source: 'shop', p99: null });
  t.is(row?.['p50'], row?.['p95']);
  t.like(((await json('/chart/errors.json?source=caddy')) as unknown[])[0], { '5xx': 0.25 });
});

const refused = test.macro({
  async exec(t, query: string, parameter: string, value: string) {
    const { get } = await start(t);
    const api = await get(`/api/summary?${query}`);
    t.is(api.status, 400);
    const { error } = JSON.parse(api.text) as { error: Record<string, string> };
    t.like(error, { parameter, value });
    t.true(error['message']?.includes('allowed is'));
    const page = await get(`/?${query}`);
    t.is(page.status, 400);
    t.regex(page.headers.get('content-type') ?? '', /^text\/html/);
    t.true(page.text.includes(`The parameter ${parameter} is`));
  },
  title: (_title, query: string) => `?${query} is answered with 400, as JSON and as a page.`,
});

test(refused, 'status=nine', 'status', 'nine');
test(refused, 'from=now&to=now-1h', 'from', 'now');
test(refused, 'host=a&host=b', 'host', 'a, b');
test(refused, 'limit=%00', 'limit', '\0');
test(refused, 'errors=last', 'errors', 'last');

test('unknown paths, other methods and odd targets are answered as they should be.', async (t) => {
  const { get, web, logged } = await start(t);
  t.like(await get('/nothing'), { status: 404 });
  t.regex((await get('/nothing')).text, /<h1>Not found<\/h1>/);
  t.deepEqual(JSON.parse((await get('/api/nothing')).text), {
    error: { message: 'There is no page at this address. The dashboard is at /.' },
  });
  const post = await get('/api/summary', { method: 'POST' });
  t.is(post.status, 405);
  t.is(post.headers.get('allow'), 'HEAD, GET');
  const head = await get('/', { method: 'HEAD' });
  t.is(head.status, 200);
  t.is(head.text, '');
  t.is((await get('/%E0%A4%A?x=%E0%A4%A')).status, 404);
  const { hostname, port } = new URL(web.url);
  for (const target of ['http://[::1', '*', '//', 'http://a:b:c/']) {
    const socket = connect(Number(port), hostname);
    socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    t.regex(answer.toString(), /^HTTP\/1\.1 (?:200|400|404) /, target);
    socket.destroy();
  }
  t.deepEqual(
    logged.filter((line) => line.includes(' error ')),
    [],
  );
});

test('/health, /ready and /metrics tell how the web app is.', async (t) => {
  const { get, store } = await start(t);
  t.is((await get('/health')).status, 200);
  t.is((await get('/ready')).status, 200);
  const metrics = (await get('/metrics')).text;
  t.true(metrics.includes('caddy_log_sink_web_requests_total{endpoint="/health",status="200"} 1'));
  t.true(metrics.includes('caddy_log_sink_web_store_up 1'));
  await store.close();
  t.is((await get('/health')).status, 200);
  const ready = await get('/ready');
  t.is(ready.status, 503);
  t.is(ready.headers.get('retry-after'), '5');
  t.true((await get('/metrics')).text.includes('caddy_log_sink_web_store_up 0'));
});

test('a store that is down is said with 503, on a page that tries again, and as JSON.', async (t) => {
  const { get, store } = await start(t, { requests: traffic });
  await store.close();
  const page = await get('/?refresh=off');
  t.is(page.status, 503);
  t.true(page.text.includes('<meta http-equiv="refresh" content="5">'));
  t.true(page.text.includes('Store unavailable'));
  const api = await get('/api/summary');
  t.is(api.status, 503);
  t.is(typeof (JSON.parse(api.text) as { error: { message: string } }).error.message, 'string');
});

test('a password is asked for everywhere but at /health.', async (t) => {
  const { get } = await start(t, { password: 'open sesame' });
  const headers = { authorization: `Basic ${Buffer.from('any:open sesame').toString('base64')}` };
  for (const path of ['/', '/api/summary', '/metrics', '/nothing']) {
    const { status, headers: answered } = await get(path);
    t.is(status, 401, path);
    t.regex(answered.get('www-authenticate') ?? '', /^Basic realm=/);
  }
  t.is((await get('/', { headers: { authorization: 'Basic x' } })).status, 401);
  t.is((await get('/', { headers })).status, 200);
  t.is((await get('/health')).status, 200);
});

test('after ten wrong passwords an address is told to wait, with the right one too; another address is not, and a minute later all is well.', async (t) => {
  let [nowMs, monotonicMs] = [Date.now() + 730 * 86_400_000, 0];
  const { get, logged } = await start(t, { password: 'open sesame', now: () => nowMs, monotonicMs: () => monotonicMs });
  const from = (address: string, password: string) =>
    get('/api/ping', {
      headers: {
        authorization: `Basic ${Buffer.from(`any:${password}`).toString('base64')}`,
        'x-forwarded-for': address,
      },
    });
  for (let at = 0; at < 10; at += 1) t.is((await from('192.0.2.1', `guess ${at}`)).status, 401);
  monotonicMs += 1500;
  nowMs = Date.now(); // somebody puts the clock right, by two years
  for (const password of ['guess', 'open sesame']) {
    const { status, headers, text } = await from('192.0.2.1', password);
    t.is(status, 429);
    t.is(headers.get('retry-after'), '59');
    t.regex(text, /Try again in 59 s/);
  }
  t.is(
    (await get('/api/ping', { headers: { 'x-forwarded-for': '192.0.2.1' } })).status,
    401,
    'the first request of a browser has no password',
  );
  t.is((await get('/health', { headers: { 'x-forwarded-for': '192.0.2.1', authorization: 'Basic x' } })).status, 200);
  t.is((await from('192.0.2.2', 'open sesame')).status, 200);
  t.is(logged.filter((line) => line.includes('Too many wrong passwords') && line.includes('192.0.2.1')).length, 1);
  monotonicMs += 60_000;
  t.is((await from('192.0.2.1', 'open sesame')).status, 200);
});

test('without a password the page answers only to names that nobody else can have, unless a proxy passes the request on.', async (t) => {
  const { web } = await start(t, { loopbackNamesOnly: true });
  const get = (path: string, headers: Readonly<Record<string, string>>): Promise<{ status: number; text: string }> =>
    new Promise((resolve, reject) => {
      request(web.url + path, { headers }, (response) => {
        textOf(response).then((text) => resolve({ status: response.statusCode!, text }), reject);
      })
        .on('error', reject)
        .end();
    });
  for (const host of ['localhost:3000', '127.0.0.1', '[::1]:3000', 'stats.localhost'])
    t.is((await get('/api/ping', { host })).status, 200, host);
  const refused = await get('/', { host: 'evil.example' });
  t.is(refused.status, 403);
  t.regex(refused.text, /Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true/);
  t.is((await get('/api/requests', { host: 'evil.example' })).status, 403);
  t.is(
    (await get('/api/ping', { host: 'evil.example', 'x-forwarded-for': '127.0.0.1' })).status,
    403,
    'a page can set that header',
  );
  t.is((await get('/api/ping', { host: 'stats.example', via: '1.1 Caddy' })).status, 200);
  for (const path of ['/health', '/ready', '/metrics'])
    t.is((await get(path, { host: 'host.docker.internal' })).status, 200, path);
});

for (const password of [undefined, 'open sesame']) {
  test(`refuses what pages of other sites make a browser send, everywhere and unrecorded, ${password === undefined ? 'without' : 'with'} a password.`, async (t) => {
    const { web, recorder, store, logged } = await start(
      t,
      password === undefined ? { loopbackNamesOnly: true } : { password },
    );
    const authorization = `Basic ${Buffer.from('any:open sesame').toString('base64')}`;
    const ask = (
      method: string,
      path: string,
      headers: Readonly<Record<string, string>>,
    ): Promise<{ status: number; headers: Readonly<Record<string, unknown>>; text: string }> =>
      new Promise((resolve, reject) => {
        request(web.url + path, { method, headers: { authorization, ...headers } }, (response) => {
          textOf(response).then(
            (text) => resolve({ status: response.statusCode!, headers: response.headers, text }),
            reject,
          );
        })
          .on('error', reject)
          .end();
      });
    const image = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' };
    for (const path of [
      '/',
      '/api/summary',
      '/chart/latency.svg',
      '/health',
      '/ready',
      '/metrics',
      '/assets/none.css',
      '/nothing',
      '//',
    ]) {
      for (const headers of [
        image,
        { ...image, 'sec-fetch-site': 'same-site' },
        { origin: 'http://evil.example' },
        { origin: 'null' },
      ]) {
        t.is((await ask('GET', path, headers)).status, 403, `${path} ${JSON.stringify(headers)}`);
      }
    }
    const preflight = await ask('OPTIONS', '/api/summary', {
      origin: 'http://evil.example',
      'access-control-request-method': 'GET',
    });
    t.is(preflight.status, 403);
    t.deepEqual(
      Object.keys(preflight.headers).filter((name) => name.startsWith('access-control-')),
      [],
    );
    const frame = await ask('GET', '/', {
      'sec-fetch-site': 'cross-site',
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'iframe',
    });
    t.is(frame.status, 403);
    t.regex(frame.text, /pages of other sites are refused: Sec-Fetch-Site is/);
    t.regex(String(frame.headers['content-security-policy']), /frame-ancestors 'none'/);
    // Wrong passwords of a page in the operator's browser count for nobody.
    if (password !== undefined)
      for (let at = 0; at < 11; at += 1)
        t.is((await ask('GET', '/', { ...image, authorization: 'Basic x' })).status, 403);
    await recorder.flush();
    t.deepEqual(await store.readRequests({ fromMs: 0, toMs: Date.now() + 1000, filter: {}, limit: 10 }), []);
    t.is(logged.filter((line) => line.includes('a page of another site')).length, 1, 'it is logged, and not each time');

    t.is(
      (
        await ask('GET', '/', {
          'sec-fetch-site': 'cross-site',
          'sec-fetch-mode': 'navigate',
          'sec-fetch-dest': 'document',
        })
      ).status,
      200,
      'a link',
    );
    t.is(
      (
        await ask('GET', '/api/summary', {
          'sec-fetch-site': 'same-origin',
          'sec-fetch-mode': 'cors',
          'sec-fetch-dest': 'empty',
        })
      ).status,
      200,
    );
    t.is((await ask('GET', '/api/summary', { origin: web.url })).status, 200);
    t.is((await ask('GET', '/metrics', {})).status, 200, 'Prometheus');
    t.is(
      (
        await ask('GET', '/api/summary', {
          host: 'stats.example',
          via: '1.1 Caddy',
          origin: 'https://stats.example',
          'sec-fetch-site': 'same-origin',
        })
      ).status,
      200,
      'a proxy that has ended TLS',
    );
  });
}

test('stopping lets an answer in flight finish, and a port in use is said with what to do.', async (t) => {
  const { web, recorder, store } = await start(t);
  const log = createLog('test', { write: () => undefined });
  const port = Number(new URL(web.url).port);
  await t.throwsAsync(
    startWeb({ host: '127.0.0.1', port, password: undefined, connectHint: [] }, { store, recorder, log }),
    { message: /the port is in use\. Stop the other process, or set WEB_LISTEN/ },
  );
  const answer = fetch(`${web.url}/api/summary`, { headers: { connection: 'close' } });
  await fetch(`${web.url}/api/ping`);
  await web.stop();
  t.is((await answer).status, 200);
  await t.throwsAsync(fetch(`${web.url}/api/ping`));
});
