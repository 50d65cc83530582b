/** The page and the API over both stores, both real: they must be the same. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { createRandom } from '../demo/random.js';
import { createTraffic } from '../demo/traffic.js';
import { countriesFrom } from '../shared/record/countries.js';
import { createRecorder } from '../shared/record/recorder.js';
import type { RequestEvent } from '../shared/request-event.js';
import { openStore } from '../shared/store/open.js';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../test/influxd.js';
import { documentedCountries, writeMmdb } from '../test/mmdb.js';
import { createZipf } from '../test/zipf.js';
import { startWeb } from './web.js';

const influxd = influxdOfThisFile();
const dayMs = 86_400_000;

testWithInfluxd(
  'the page is the same over DuckDB and InfluxDB: filtered, zoomed, compared, errors first',
  async (t) => {
    const get = await overBoth(t, ({ edge, app }) => (app === undefined ? [edge] : [edge, app]));
    for (const search of [
      'from=now-6h',
      'from=now-15m&compare=off',
      'from=now-6h&errors=first',
      'from=now-6h&host=shop.example.com&status=5xx',
      'from=now-6h&source=shop&method=GET',
      'from=now-3h&path=/checkout',
    ]) {
      const [ofDuckdb, ofInfluxdb] = await get(`/?refresh=off&${search}`);
      const [expected, page] = [pageWithoutEtag(ofDuckdb), pageWithoutEtag(ofInfluxdb)];
      t.true(expected.includes('class="chart"') && expected.includes('id="top-path"'), search);
      const parts = expected.split('<');
      t.deepEqual(
        page
          .split('<')
          .filter((part, at) => part !== parts[at])
          .slice(0, 10),
        [],
        search,
      );
    }
  },
);

testWithInfluxd(
  'each list and its CSV is the same over both stores; countries are those of the full addresses',
  async (t) => {
    const addresses = ['192.0.2.1', '192.0.2.200', '192.0.2.201', '2001:db8::7', '198.51.100.9'];
    const get = await overBoth(t, ({ edge }, at) => [{ ...edge, clientIp: addresses[at % addresses.length]! }]);
    for (const dimension of [
      'path',
      'host',
      'method',
      'referrer',
      'user_agent',
      'client',
      'browser',
      'system',
      'bot',
      'who',
      'country',
    ]) {
      const [expected, list] = await get(`/api/top/${dimension}?from=now-6h&limit=1000`);
      t.deepEqual([expected.status, list], [200, expected], dimension);
      const rows = JSON.parse(expected.text) as { value: string; count: number }[];
      t.true(rows.length > 1 && rows.every(({ value, count }) => value !== '' && count > 0), dimension);
      const [expectedCsv, csv] = await get(`/api/top/${dimension}.csv?from=now-6h&limit=1000`);
      t.deepEqual([expectedCsv.status, csv], [200, expectedCsv], dimension);
      t.is(expectedCsv.text.split('\r\n').length, rows.length + 2, `${dimension}: a row each, and the names`);
    }
    const [{ text }] = await get('/api/top/country?from=now-6h');
    const rows = JSON.parse(text) as { value: string; share: number }[];
    // Four of five addresses are known, two of them French, in the same network as the German one after truncation.
    t.deepEqual(
      [
        rows[0]?.value,
        ...rows
          .slice(1)
          .map(({ value }) => value)
          .sort(),
      ],
      ['FR', 'DE', 'JP'],
    );
    t.true(Math.abs(rows[0]!.share - 0.5) < 0.01, text);
    for (const page of await get('/?from=now-6h&refresh=off'))
      t.regex(page.text, /id="top-country"[\s\S]*France[\s\S]*Germany|id="top-country"[\s\S]*France[\s\S]*Japan/);
    for (const filtered of await get('/?from=now-6h&refresh=off&method=GET'))
      t.notRegex(filtered.text, /id="top-country"/);
    for (const refused of await get('/api/top/country?method=GET')) {
      t.is(refused.status, 400);
      t.regex(refused.text, /The parameter method is \\"GET\\"; allowed is none for countries/);
    }
  },
);

testWithInfluxd('sites are the same over both stores, add up to the summary, and are paged', async (t) => {
  const get = await overBoth(t, ({ edge, app }, at) => [
    { ...edge, host: `site-${(at * at) % 37}.example` },
    ...(app === undefined ? [] : [app]),
  ]);
  const [whole] = await get('/api/sites?from=now-6h&limit=1000');
  const rows = JSON.parse(whole.text) as SiteRow[];
  const paged: SiteRow[] = [];
  for (let next: string | null = ''; next !== null; ) {
    const [expected, page] = await get(`/api/sites?from=now-6h&limit=7&sort=errors&after=${encodeURIComponent(next)}`);
    t.deepEqual(page, expected);
    paged.push(...(JSON.parse(page.text) as SiteRow[]));
    next = page.next;
  }
  const names = (some: readonly SiteRow[]) => some.map(({ source, host }) => `${source} ${host}`).toSorted();
  t.deepEqual(names(paged), names(rows));
  t.true(paged.every(({ errors }, at) => at === 0 || errors <= paged[at - 1]!.errors));
  const [, summary] = await get('/api/summary?from=now-6h');
  const { sources } = JSON.parse(summary.text) as {
    sources: Record<string, { requests: number; errors: number; bytes: number }>;
  };
  const [expectedSeries, series] = await get('/api/series?by=host&from=now-6h&limit=1000');
  const statusesOf = (text: string) => (JSON.parse(text) as { statuses: object }[]).map(({ statuses }) => statuses);
  t.deepEqual(statusesOf(series.text), statusesOf(expectedSeries.text));
  t.true(
    statusesOf(series.text).some((statuses) => '304' in statuses),
    'each status by itself',
  );
  for (const [source, wanted] of Object.entries(sources)) {
    const ofSource = rows.filter((row) => row.source === source);
    for (const name of ['requests', 'errors', 'bytes'] as const)
      t.is(
        ofSource.reduce((sum, row) => sum + row[name], 0),
        wanted[name],
        `${source} ${name}`,
      );
    t.is(
      (JSON.parse(series.text) as SiteRow[])
        .filter((row) => row.source === source)
        .reduce((sum, { requests }) => sum + requests, 0),
      wanted.requests,
    );
  }
  t.true(rows.every(({ spark, requests }) => spark.reduce((sum, count) => sum + count, 0) === requests));
  for (const [path, problem] of [
    ['sort=p95', /allowed is requests/],
    ['after=x', /parameter after/],
    ['path=/', /a filter by source, host, method or status/],
  ] as const) {
    const [, refused] = await get(`/api/sites?${path}`);
    t.is(refused.status, 400);
    t.regex(refused.text, problem);
  }
});

interface SiteRow {
  readonly source: string;
  readonly host: string;
  readonly requests: number;
  readonly errors: number;
  readonly bytes: number;
  readonly spark: readonly number[];
}

testWithInfluxd(
  'the list of paths over each store has the true top ten of a Zipf distribution, within its error bounds',
  async (t) => {
    const rankOf = createZipf({ exponent: 1.2, ranksMax: 5000, random: createRandom(7).next });
    const exact = new Map<string, number>();
    const get = await overBoth(t, ({ edge }) =>
      Array.from({ length: 5 }, (_, timeNs) => {
        const uri = `/${rankOf()}`;
        exact.set(uri, (exact.get(uri) ?? 0) + 1);
        return { ...edge, timeNs, uri };
      }),
    );
    for (const { text } of await get('/api/top/path?from=now-7h&limit=10000')) {
      const rows = JSON.parse(text) as { value: string; count: number; count_max: number }[];
      for (const { value, count, count_max: countMax } of rows)
        t.true(
          count <= exact.get(value)! && exact.get(value)! <= countMax,
          `${value}: ${count} to ${countMax}, and exactly ${exact.get(value)}`,
        );
      const [tenth] = rows.slice(9);
      for (const [value, count] of [...exact].sort(([, a], [, b]) => b - a).slice(0, 10)) {
        const row = rows.find((each) => each.value === value);
        t.true(row !== undefined && row.count_max >= tenth!.count, `${value} with ${count}`);
      }
    }
  },
);

testWithInfluxd(
  'all requests are counted if only some are sampled, and every answer from raw requests says so',
  async (t) => {
    const get = await overBoth(t, ({ edge }) => [edge], { sampleRatio: 0.1, requestsPerDay: 40_000 }); // enough for a sample of about a tenth
    const [expected, summary] = await get('/api/summary?from=now-6h');
    t.deepEqual(summary, expected);
    const { complete, sampled, sources } = JSON.parse(summary.text) as {
      complete: boolean;
      sampled: { kept: number; of: number };
      sources: { caddy: { requests: number } };
    };
    t.true(complete, 'these figures include all requests');
    t.is(sampled.of, sources.caddy.requests);
    t.true(sampled.kept > 0.05 * sampled.of && sampled.kept < 0.2 * sampled.of, summary.text);

    for (const answer of await get('/api/requests?from=now-6h&limit=10000')) {
      t.is((JSON.parse(answer.text) as unknown[]).length, sampled.kept);
      t.deepEqual([answer.complete, answer.sampled], ['false', `${sampled.kept}/${sampled.of}`]);
    }
    for (const answer of await get('/api/summary?from=now-6h&path=/')) {
      t.like(JSON.parse(answer.text), { complete: false, sampled });
    }
    for (const [path, isComplete] of [
      ['/api/top/path?from=now-6h', 'true'],
      ['/api/top/path?from=now-6h&status=200', 'false'],
      ['/api/top/host?from=now-6h&status=200', 'true'],
    ] as const) {
      for (const answer of await get(path)) t.is(answer.complete, isComplete, path);
    }
    for (const page of await get('/?from=now-6h&refresh=off'))
      t.regex(
        page.text,
        new RegExp(
          `Sampled: ${sampled.kept.toLocaleString('en')} of ${sampled.of.toLocaleString('en')} requests are stored\\. ` +
            'Totals, percentiles and top lists include every request',
        ),
      );
    for (const page of await get('/?from=now-6h&refresh=off&path=/'))
      t.regex(page.text, /These figures are incomplete: .*count only sampled requests/);
  },
);

function pageWithoutEtag({ text }: { text: string }): string {
  return text.replace(/ data-etag="[^"]*"/, '');
}

/**
 * Nearly six hours of the demo's traffic in each store, none of it too old for any level while it is written; asks the
 * web app over DuckDB, and then that over InfluxDB.
 */
async function overBoth(
  t: ExecutionContext,
  choose: (
    request: { readonly edge: RequestEvent; readonly app: RequestEvent | undefined },
    at: number,
  ) => RequestEvent[],
  { sampleRatio = 1, requestsPerDay = 10_000 } = {},
) {
  const { url, org, token, createBucket } = await influxd();
  const folder = await mkdtemp(join(tmpdir(), 'both-stores-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const database = join(folder, 'countries.mmdb');
  await writeMmdb(database, documentedCountries);
  const countryOf = countriesFrom({ GEOIP_DATABASE: database, CLIENT_IP: 'truncated' }, quietLog);
  const nowMs = Date.now();
  const demo = createTraffic({ seed: 1, requestsPerDay, startMs: nowMs });
  // The app finishes before Caddy: requests of the same nanosecond have no order.
  const seconds = 5.8 * 3600;
  const requests = Array.from({ length: seconds }, (_, at) => demo.requestsOf(at - seconds))
    .flat()
    .flatMap(({ edge, app }, at) => choose({ edge, app: app && { ...app, timeMs: app.timeMs - 1 } }, at));
  const over = async (settings: Parameters<typeof openStore>[0]): Promise<string> => {
    const store = await openStore(settings, { log: quietLog });
    const recorder = createRecorder({
      store,
      log: quietLog,
      name: 'tested',
      hostsMax: 200,
      clientIp: 'truncated',
      sampleRatio,
      countryOf,
      drainMsMax: 5000,
    });
    for (const request of requests) recorder.record(request);
    await recorder.flush();
    // As on shutdown: flush the lists.
    await recorder.close();
    const web = await startWeb(
      { host: '127.0.0.1', port: 0, password: undefined, connectHint: [] },
      { store, recorder: { record: () => true }, log: quietLog, now: () => nowMs },
    );
    t.teardown(async () => {
      await web.stop();
      await store.close();
    });
    return web.url;
  };
  const ofDuckdb = await over({
    kind: 'duckdb',
    path: join(folder, 'requests.duckdb'),
    retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs },
  });
  const ofInfluxdb = await over({ kind: 'influxdb', url, org, bucket: await createBucket(), token, ...spoolOfTest() });
  const read = async (from: string, path: string) => {
    const response = await fetch(from + path);
    return {
      status: response.status,
      text: await response.text(),
      complete: response.headers.get('x-complete'),
      sampled: response.headers.get('x-sampled'),
      next: response.headers.get('x-next'),
    };
  };
  return (path: string) => Promise.all([read(ofDuckdb, path), read(ofInfluxdb, path)]);
}
