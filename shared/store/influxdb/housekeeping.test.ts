import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { until } from '../../../test/until.js';
import { StoreError } from '../../errors.js';
import { Histogram } from '../../sketch/histogram.js';
import type { RequestEvent } from '../../request-event.js';
import { levelsOf, levelRetentionMs, windowStart, type RollupRow, type Scope } from '../../rollup/rollup.js';
import { topLevels, topRetentionMs } from '../../top-list/top-row.js';
import type { Batch } from '../store.js';
import { startHousekeeping } from './housekeeping.js';
import { openInfluxdbStore, type InfluxdbOptions } from './influxdb-store.js';
import { emptyRequest } from '../../../test/empty-request.js';

const influxd = influxdOfThisFile();
const dayMs = 86_400_000;
const scopes: readonly Scope[] = ['all', 'host'];
const retention = { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs };

function batchOf(ageDays: number): Batch {
  const timeMs = Date.now() - ageDays * dayMs;
  const rowId = Math.round(ageDays * 10);
  const request: RequestEvent = {
    ...emptyRequest,
    source: 'caddy',
    timeMs,
    host: 'a.example',
    method: 'GET',
    status: 200,
    durationMs: 1,
    size: 1,
  };
  const rollups = scopes.flatMap((scope) =>
    levelsOf[scope].map(
      (level): RollupRow => ({
        level,
        windowMs: windowStart(timeMs, level),
        rowId,
        source: 'caddy',
        host: scope === 'all' ? undefined : 'a.example',
        cells: [
          {
            method: 'GET',
            status: 200,
            count: 1,
            sampledOut: 0,
            durationSumMs: 1,
            durationMaxMs: 1,
            sizeSum: 1,
            histogram: new Histogram(),
          },
        ],
      }),
    ),
  );
  const topLists = topLevels.map(
    (level) =>
      ({
        level,
        windowMs: windowStart(timeMs, level),
        rowId,
        source: 'caddy',
        host: '',
        kind: 'path',
        packed: 'x',
      }) as const,
  );
  return {
    recorder: 'r',
    writer: randomUUID(),
    sequence: 1,
    requests: [request],
    aggregates: [],
    rollups,
    topLists,
    ledger: undefined,
  };
}

testWithInfluxd('deletes exactly the expired rows, with a token for the bucket only', async (t) => {
  const { url, org, createBucket, createToken } = await influxd();
  const bucket = await createBucket();
  const options = {
    url,
    org,
    bucket,
    token: await createToken(bucket, ['read', 'write']),
    retention,
    ...spoolOfTest(),
  };
  const ages = [0, 0.1, 0.2, 1, 5, 10, 30, 100, 390];
  const plain = await openInfluxdbStore(options, { log: quietLog });
  for (const age of ages) await plain.write(batchOf(age));
  const foreign = await fetch(`${url}/api/v2/write?${new URLSearchParams({ org, bucket }).toString()}`, {
    method: 'POST',
    headers: { authorization: `Token ${options.token}` },
    body: `temperature value=1 ${Date.now() - 100 * dayMs}000000`,
  });
  t.is(foreign.status, 204);
  const everything = { fromMs: 0, toMs: Date.now() + dayMs, filter: {} };
  const requests = async (): Promise<number> => (await plain.readRequests({ ...everything, limit: 100 })).length;
  t.is(await requests(), ages.length, 'a store that does not keep house deletes nothing');

  const house = await openInfluxdbStore({ ...options, retentionDelayMs: 0 }, { log: quietLog, keepsHouse: true });
  const retainedAt = (retentionMs: number): number => ages.filter((age) => age * dayMs < retentionMs).length;
  await until('what is old is deleted', async () => {
    const topLists = await Promise.all(
      topLevels.map((level) => plain.readTopLists({ ...everything, level, kinds: ['path'] })),
    );
    return (
      (await requests()) === retainedAt(retention.requestsMs) &&
      topLevels.every((level, at) => topLists[at]!.length === retainedAt(topRetentionMs(level, retention.rollupsMs)))
    );
  });
  for (const scope of scopes) {
    for (const level of levelsOf[scope]) {
      const rows = await plain.readRollups({ ...everything, level, scope, filter: {} });
      t.is(
        rows.length,
        retainedAt(levelRetentionMs(level, retention.rollupsMs, scope)),
        `level ${level} of scope ${scope}`,
      );
    }
  }
  const left = await fetch(`${url}/api/v2/query?org=${org}`, {
    method: 'POST',
    headers: { authorization: `Token ${options.token}`, 'content-type': 'application/vnd.flux' },
    body: `from(bucket: "${bucket}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "temperature")`,
  });
  t.regex(await left.text(), /temperature/, 'measurements of others stay');
  await house.close();
  await plain.close();
});

testWithInfluxd(
  'deletes nothing for a clock that is ahead or a shorter retention before the delay is over, even with a new spool folder',
  async (t) => {
    const { url, org, createBucket, createToken } = await influxd();
    const bucket = await createBucket();
    const base = {
      url,
      org,
      bucket,
      token: await createToken(bucket, ['read', 'write']),
      retention: { requestsMs: 90 * dayMs, rollupsMs: 400 * dayMs },
    };
    const options = { ...base, ...spoolOfTest() };
    const ages = [0, 1, 40, 80];
    const plain = await openInfluxdbStore(options, { log: quietLog });
    t.teardown(() => plain.close());
    for (const age of ages) await plain.write(batchOf(age));
    const startMs = Date.now();
    const requests = async (): Promise<number> =>
      (await plain.readRequests({ fromMs: 0, toMs: startMs + dayMs, filter: {}, limit: 100 })).length;

    let looks = 0;
    /** Runs housekeeping until the check of the clock is saved and the following deletion is done. */
    const keepHouse = async (aheadDays: number, changes: Partial<InfluxdbOptions>): Promise<string[]> => {
      const warnings: string[] = [];
      const file = join(changes.spoolDir ?? options.spoolDir, 'retention.json');
      const nowMs = startMs + aheadDays * dayMs + (looks += 1);
      const store = await openInfluxdbStore(
        { ...options, ...changes },
        { log: { ...quietLog, warn: (message) => warnings.push(message) }, keepsHouse: true, now: () => nowMs },
      );
      await until('it has looked', async () =>
        (await readFile(file, 'utf8').catch(() => '')).includes(`"lookedMs":${nowMs}`),
      );
      await store.readLedgers({ sinceMs: 0 });
      await store.close(); // waits for the deletion that is under way
      return warnings;
    };
    t.deepEqual(await keepHouse(0, {}), []);
    t.regex((await keepHouse(30, {})).join(), /30d ahead of the time used for deletion/);
    t.is(await requests(), ages.length);
    t.regex((await keepHouse(0, { retention })).join(), /RETENTION_REQUESTS is 7d and was 90d: requests from /);
    t.is(await requests(), ages.length);
    t.regex(
      (await keepHouse(730, { ...spoolOfTest(), retention })).join(),
      /730d ahead of .*RETENTION_REQUESTS is 7d and was 80d/,
    );
    t.is(await requests(), ages.length);
    t.regex((await keepHouse(0, { retention, retentionDelayMs: 0 })).join(), /The shorter retention takes effect now/);
    await until('expired rows are deleted', async () => (await requests()) === 2);
  },
);

test('retains rows of hosts at no level for longer than rows of sources', (t) => {
  for (const rollupsMs of [dayMs, 400 * dayMs]) {
    for (const level of levelsOf.host)
      t.true(levelRetentionMs(level, rollupsMs, 'host') <= levelRetentionMs(level, rollupsMs, 'all'));
  }
});

test('retries soon when InfluxDB was still starting, and logs it once', async (t) => {
  const warnings: string[] = [];
  let tries = 0;
  const deleted: string[] = [];
  const stop = startHousekeeping({
    guard: { check: async () => ({ retention, nowMs: Date.now() }) },
    retryMs: 1,
    log: { ...quietLog, warn: (message) => warnings.push(message) },
    writeVersion: async () => {
      if ((tries += 1) < 4) throw new Error('it is starting');
    },
    deleteBefore: async (predicate) => {
      deleted.push(predicate);
    },
  });
  t.teardown(stop);
  await until('it has deleted what is old', () => deleted.includes('_measurement="request_metrics"'));
  t.is(tries, 4);
  t.deepEqual(warnings, ['Cannot delete expired requests and rollups, retrying: it is starting']);
});

testWithInfluxd('neither reads nor writes a bucket of a newer program, and says what to do', async (t) => {
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const options = { url, org, bucket, token, retention, ...spoolOfTest() };
  const write = async (lines: string): Promise<void> => {
    const { status } = await fetch(`${url}/api/v2/write?${new URLSearchParams({ org, bucket }).toString()}`, {
      method: 'POST',
      headers: { authorization: `Token ${token}` },
      body: lines,
    });
    t.is(status, 204);
  };
  const first = await openInfluxdbStore(options, { log: quietLog, keepsHouse: true });
  await first.write(batchOf(0));
  await first.ping();
  await first.close();

  await write('store_schema version=3i');
  const older = await openInfluxdbStore(options, { log: quietLog, keepsHouse: true });
  for (const use of [
    () => older.ping(),
    () => older.write(batchOf(0)),
    () => older.readLedgers({ sinceMs: 0 }),
    () => older.pingToWrite(),
  ]) {
    const error = await t.throwsAsync(use(), {
      instanceOf: StoreError,
      message:
        /a newer program writes it, in version 3, and this one knows version 2\. Upgrade this program, or set INFLUXDB_BUCKET/,
    });
    t.is(error.action, 'stop');
  }
  await older.close();
});
