import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { createLog } from '../../shared/log.js';
import { createRecorder } from '../../shared/record/recorder.js';
import { openStore } from '../../shared/store/open.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';
import { event, ledger } from '../../test/web-samples.js';
import { until } from '../../test/until.js';
import { readCurrentTraffic } from '../query/read-traffic.js';
import { createReads } from '../query/reads.js';
import { startAlerts } from './alerts.js';
import type { AlertMessage } from './message.js';

test('posts when errors of a source or a silent collector are found and when they are over, and logs failed reads', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'alerts-'));
  const logged: string[] = [];
  const log = createLog('test', { write: (line) => logged.push(line) });
  const dayMs = 86_400_000;
  const store = await openStore(
    {
      kind: 'duckdb',
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs },
    },
    { log },
  );
  const ledgers: LedgerSnapshot[] = [];
  const recorder = createRecorder({
    store,
    log,
    name: 'tested',
    hostsMax: 200,
    clientIp: 'full',
    ledger: () => ledgers.pop(),
  });
  const received: AlertMessage[] = [];
  const server = createServer(
    (request, response) =>
      void text(request).then((body) => {
        received.push(JSON.parse(body) as AlertMessage);
        response.end();
      }),
  ).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const webhook = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  // In the middle of a minute, since a window is a minute.
  let nowMs = Math.floor(Date.now() / 60_000) * 60_000 - 30_000;
  const reads = createReads(store);
  const alerts = startAlerts({
    webhook,
    log,
    readTraffic: (atMs) => readCurrentTraffic(reads, atMs),
    dashboardUrl: 'https://stats.example',
    now: () => nowMs,
    everyMs: 20,
    fireAfterMs: 0,
    resolveAfterMs: 0,
  });
  t.teardown(async () => {
    alerts.stop();
    server.close();
    await recorder.close();
    await rm(folder, { recursive: true });
  });

  const record = async (count: number, parts: Parameters<typeof event>[0]): Promise<void> => {
    for (let at = 0; at < count; at += 1) recorder.record(event({ timeMs: nowMs, ...parts }));
    await recorder.flush();
  };
  await record(119, { source: 'shop', status: 500 });
  await record(194, { status: 200 });
  await record(6, { status: 502 });
  await until('it fires', () => received.length === 1);
  const sinceMs = nowMs - 30_000;
  t.deepEqual(received[0], {
    status: 'firing',
    kind: 'errors',
    source: 'caddy',
    value: 0.03,
    threshold: 0.02,
    unit: 'share',
    since: new Date(sinceMs).toISOString(),
    at: new Date(nowMs).toISOString(),
    url: `https://stats.example/?${new URLSearchParams({ from: new Date(sinceMs - 1_800_000).toISOString(), to: 'now', source: 'caddy' }).toString()}`,
    text: `Firing: 3.0\u00a0% of the requests to Caddy are answered with 5xx, since ${new Date(sinceMs).toISOString()}.`,
  });
  nowMs += 60_000;
  await record(200, { status: 200 });
  await until('it is resolved', () => received.length === 2);
  t.like(received[1], {
    status: 'resolved',
    kind: 'errors',
    source: 'caddy',
    since: received[0]!.since,
    at: new Date(nowMs).toISOString(),
  });

  ledgers.push(ledger({ collector: 'edge-1', timeMs: nowMs }));
  await recorder.flush();
  const reportedMs = nowMs;
  nowMs += 400_000;
  await until('it fires', () => received.length === 3);
  t.deepEqual(received[2], {
    status: 'firing',
    kind: 'no-report',
    source: 'edge-1',
    value: 400,
    threshold: 15,
    unit: 's',
    since: new Date(reportedMs).toISOString(),
    at: new Date(nowMs).toISOString(),
    url: `https://stats.example/?${new URLSearchParams({ from: new Date(reportedMs - 1_800_000).toISOString(), to: 'now' }).toString()}`,
    text: `Firing: there is no report from the collector edge-1, since ${new Date(reportedMs).toISOString()}.`,
  });
  ledgers.push(ledger({ collector: 'edge-1', timeMs: nowMs }));
  await recorder.flush();
  await until('it is resolved', () => received.length === 4);
  t.like(received[3], { status: 'resolved', kind: 'no-report', source: 'edge-1' });

  await store.close();
  await until('it says so', () => logged.some((line) => line.includes('Cannot evaluate alerts: Cannot read')));
});
