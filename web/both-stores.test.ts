/** The page over both stores, both real: it must say the same. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTraffic } from '../demo/traffic.js';
import { createRecorder } from '../shared/recorder.js';
import { openStore } from '../shared/store/open.js';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../test/influxd.js';
import { startWeb } from './main.js';

const influxd = influxdOfThisFile();
const dayMs = 86_400_000;

testWithInfluxd('the page says the same over DuckDB and over InfluxDB: filtered, zoomed, compared, errors first', async (t) => {
  const { url, org, token, createBucket } = await influxd();
  const folder = await mkdtemp(join(tmpdir(), 'both-stores-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const nowMs = Date.now();
  const demo = createTraffic({ seed: 1, requestsPerDay: 10_000, startMs: nowMs });
  // The app is done before the edge is: requests of the same nanosecond have no order.
  const requests = Array.from({ length: 6 * 3600 }, (_, at) => demo.requestsOf(at - 6 * 3600)).flat().flatMap(({ edge, app }) => (app === undefined ? [edge] : [edge, { ...app, timeMs: app.timeMs - 1 }]));
  const over = async (settings: Parameters<typeof openStore>[0]): Promise<(search: string) => Promise<string>> => {
    const store = await openStore(settings, { log: quietLog });
    const recorder = createRecorder({ store, log: quietLog, name: 'tested', hostsMax: 200, clientIp: 'truncated', drainMsMax: 5000 });
    for (const request of requests) recorder.record(request);
    await recorder.flush();
    // As when the program stops: the lists are written to the last request.
    await recorder.close();
    const web = await startWeb({ host: '127.0.0.1', port: 0, password: undefined, connectHint: [] }, { store, recorder: { record: () => true }, log: quietLog, now: () => nowMs });
    t.teardown(async () => {
      await web.stop();
      await store.close();
    });
    return async (search) => (await (await fetch(`${web.url}/?refresh=off&${search}`)).text()).replace(/ data-etag="[^"]*"/, '');
  };
  const pageOfDuckdb = await over({ kind: 'duckdb', path: join(folder, 'requests.duckdb'), retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs } });
  const pageOfInfluxdb = await over({ kind: 'influxdb', url, org, bucket: await createBucket(), token, ...spoolOfTest() });
  for (const search of ['from=now-6h', 'from=now-15m&compare=off', 'from=now-6h&errors=first', 'from=now-6h&host=shop.example.com&status=5xx', 'from=now-6h&source=shop&method=GET', 'from=now-3h&path=/checkout']) {
    const [expected, page] = await Promise.all([pageOfDuckdb(search), pageOfInfluxdb(search)]);
    t.true(expected.includes('class="chart"') && expected.includes('id="top-path"'), search);
    const parts = expected.split('<');
    t.deepEqual(page.split('<').filter((part, at) => part !== parts[at]).slice(0, 10), [], search);
  }
});
