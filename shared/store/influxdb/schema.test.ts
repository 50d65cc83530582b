/**
 * Points of earlier programs: `fixtures/version-N-….lp`, each with the three requests, the row and the ledger that
 * this test reads.
 */
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { openInfluxdbStore } from './influxdb-store.js';

const influxd = influxdOfThisFile();
const fixtures = 'shared/store/influxdb/fixtures';
const startMs = Date.UTC(2026, 10, 27);

for (const name of readdirSync(fixtures)) {
  testWithInfluxd(`reads points of an earlier program: ${name}`, async (t) => {
    const { url, org, token, createBucket } = await influxd();
    const bucket = await createBucket();
    const written = await fetch(`${url}/api/v2/write?${new URLSearchParams({ org, bucket }).toString()}`, {
      method: 'POST',
      headers: { authorization: `Token ${token}` },
      body: await readFile(join(fixtures, name)),
    });
    t.is(written.status, 204);
    const store = await openInfluxdbStore({ url, org, bucket, token, ...spoolOfTest() }, { log: quietLog });
    const everything = { fromMs: startMs, toMs: startMs + 3_600_000, filter: {} };
    t.deepEqual(
      (await store.readRequests({ ...everything, limit: 100 })).toSorted((a, b) => a.timeMs - b.timeMs),
      [0, 1, 2].map((at) => ({
        source: 'caddy',
        timeMs: startMs + at * 1000,
        timeNs: at,
        host: 'shop.example',
        method: 'GET',
        status: 200 + at,
        durationMs: 1.5 + at,
        size: 100 * at,
        bytesRead: at,
        uri: `/${at}?q=ü`,
        endpoint: '',
        clientIp: '203.0.113.0',
        userAgent: 'curl/8',
        referrer: 'https://r.example/',
        protocol: 'HTTP/2.0',
        tls: 'tls1.3',
        upstreamMs: null,
        error: '',
        errorId: '',
        upstream: '',
        retries: null,
        contentType: '',
        requestId: '',
      })),
    );
    for (const [scope, host] of [
      ['all', undefined],
      ['host', 'shop.example'],
    ] as const) {
      const [row, ...others] = await store.readRollups({ ...everything, level: 60, scope });
      t.is(others.length, 0);
      t.like(row, { windowMs: startMs, rowId: 1, source: 'caddy', host });
      const [cell, ...otherCells] = row!.cells;
      t.is(otherCells.length, 0);
      t.like(cell, { method: 'GET', status: 200, count: 3, durationSumMs: 7.5, durationMaxMs: 3.5, sizeSum: 300 });
      t.true(Math.abs(cell!.histogram.quantile(0.5)! / 2.5 - 1) < 0.05);
    }
    t.deepEqual(await store.readLedgers({ sinceMs: startMs }), [
      {
        collector: 'edge',
        timeMs: startMs + 3000,
        received: 4,
        accepted: 3,
        runtime: 0,
        events: 0,
        rejected: { 'not-json': 1 },
        dropped: {},
        stored: 3,
        spooled: 0,
        inMemory: 0,
        deadLettered: 0,
        warnings: {},
        lastLineMs: startMs + 2000,
      },
    ]);
    await store.close();
  });
}
