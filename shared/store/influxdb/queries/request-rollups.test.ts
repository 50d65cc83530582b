import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../../test/influxd.js';
import { event } from '../../../../test/web-samples.js';
import { rollUp } from '../../../rollup/rollup-aggregator.js';
import { topListsOfRequests } from '../../../top-list/top-lists-of-requests.js';
import { InfluxdbClient } from '../influxdb-client.js';
import { openInfluxdbStore } from '../influxdb-store.js';
import { rollUpRequests } from './request-rollups.js';
import { listNewest } from './request-top-lists.js';

const influxd = influxdOfThisFile();
const spool = spoolOfTest();
const startMs = Date.UTC(2026, 10, 23, 20);

testWithInfluxd('counts and lists only the newest of too many requests, and says so', async (t) => {
  const { url, org, token, createBucket, deleteBucket } = await influxd();
  const bucket = await createBucket();
  const store = await openInfluxdbStore({ url, org, bucket, token, ...spool }, { log: quietLog });
  const requests = Array.from({ length: 50 }, (_, at) =>
    event({ timeMs: startMs + at * 1000, uri: `/${at % 7}`, clientIp: `192.0.2.${at % 5}` }),
  );
  await store.write({
    recorder: 'r',
    writer: 'w',
    sequence: 1,
    requests,
    aggregates: [],
    rollups: [],
    topLists: [],
    ledger: undefined,
  });
  const client = new InfluxdbClient({
    url,
    org,
    bucket,
    token,
    timeoutMs: 15_000,
    checksBeforeWriting: false,
    now: Date.now,
  });
  const read = client.readUntil(undefined);
  const query = { fromMs: startMs, toMs: startMs + 3_600_000, filter: { method: 'GET' } };
  const kinds = ['path', 'unique_clients'] as const;
  const listed = (of: typeof requests) =>
    [...topListsOfRequests(of, { kinds, valuesMax: 10 })].map(([source, { clients, lists }]) => [
      source,
      clients,
      lists.get('path')?.total,
    ]);
  for (const requestsMax of [20, 50]) {
    const newest = requests.slice(-requestsMax).toReversed();
    const { rows, isBounded } = await rollUpRequests(read, bucket, { ...query, level: 60, scope: 'all' }, requestsMax);
    t.is(isBounded, requestsMax < 50);
    t.deepEqual(
      rows.map(({ windowMs, cells }) => [windowMs, cells.map(({ count }) => count)]),
      rollUp(newest, 60).map(({ windowMs, cells }) => [windowMs, cells.map(({ count }) => count)]),
    );
    const lists = await listNewest(read, bucket, { ...query, kinds, valuesMax: 10 }, requestsMax);
    t.is(lists.ofNewest, requestsMax < 50 ? 20 : undefined);
    t.deepEqual(
      [...lists.bySource].map(([source, { clients, lists: ofSource }]) => [
        source,
        clients,
        ofSource.get('path')?.total,
      ]),
      listed(newest),
    );
  }
  await client.close();
  await store.close();
  await deleteBucket(bucket);
});
