/** Rollup rows in a real InfluxDB: those of earlier versions, large ones, and those of undone imports. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { InfluxDB } from '@influxdata/influxdb-client';
import type { ExecutionContext } from 'ava';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { Histogram } from '../../sketch/histogram.js';
import { packImported } from '../../record/imported-requests.js';
import {
  importRowRange,
  levelsOf,
  windowStart,
  type Cell,
  type Level,
  type RollupRow,
  type Scope,
} from '../../rollup/rollup.js';
import type { Filter, Store } from '../store.js';
import { openInfluxdbStore } from './influxdb-store.js';

const influxd = influxdOfThisFile();
const startMs = Date.UTC(2026, 10, 23, 20);
const range = { fromMs: startMs - 86_400_000, toMs: startMs + 86_400_000 };

testWithInfluxd('reads points of version 1 beside rows of both scopes', async (t) => {
  const { store, writeLines } = await openStore(t);
  await writeLines([
    `request_rollup,host=a.example,level=1m,method=GET,source=caddy,status_code=200 count=3i,tally="3 7.5 3.5 300 ABYBGAESAQ==" ${startMs}000001`,
    `request_rollup,host=b.example,level=1m,method=GET,source=caddy,status_code=404 count=2i,tally="2 7.5 3.5 300 ABYBGAE= 1" ${startMs}000001`,
    `request_rollup,level=1m,method=POST,source=app,status_code=200 count=1i,tally="1 7.5 3.5 300 ABYB" ${startMs}000001`,
    `request_rollup,host=a.example,level=1m,method=GET,source=caddy,status_code=500 count=0i,tally="0 0 0 0 AA==" ${startMs}000001`,
  ]);
  await store.write(
    batchOf([
      rowOf({ cells: [cellOf(200, 10), cellOf(404, 5), cellOf(500, 1)] }),
      rowOf({ host: 'a.example', cells: [cellOf(200, 6), cellOf(500, 1)] }),
      rowOf({ host: 'c.example', cells: [cellOf(200, 4), cellOf(404, 5)] }),
      rowOf({ source: 'app', cells: [cellOf(200, 1)] }),
      rowOf({ source: 'app', host: '', cells: [cellOf(200, 1)] }),
    ]),
  );

  const count = (scope: Scope, filter: Filter): Promise<Record<string, number>> => countsOf(store, scope, filter);
  t.deepEqual(await count('all', {}), { 'caddy 200': 13, 'caddy 404': 7, 'caddy 500': 1, 'app 200': 2 });
  t.deepEqual(await count('all', { source: 'app' }), { 'app 200': 2 });
  t.deepEqual(await count('all', { exceptSource: 'app' }), { 'caddy 200': 13, 'caddy 404': 7, 'caddy 500': 1 });
  t.deepEqual(await count('all', { method: 'POST' }), { 'app 200': 1 });
  t.deepEqual(await count('all', { status: { min: 400, max: 599 } }), { 'caddy 404': 7, 'caddy 500': 1 });
  t.deepEqual(await count('host', {}), {
    'caddy a.example 200': 9,
    'caddy a.example 500': 1,
    'caddy b.example 404': 2,
    'caddy c.example 200': 4,
    'caddy c.example 404': 5,
    'app  200': 2,
  });
  t.deepEqual(await count('host', { host: 'a.example', status: { min: 200, max: 299 } }), { 'caddy a.example 200': 9 });
  t.deepEqual(await count('host', { host: 'b.example' }), { 'caddy b.example 404': 2 });
  t.deepEqual(await count('host', { host: '' }), { 'app  200': 2 });
  t.deepEqual([...(await store.readStoredWindows())].map(([source, { newestMs }]) => [source, newestMs]).toSorted(), [
    ['app', startMs],
    ['caddy', startMs],
  ]);
  await t.throwsAsync(store.readRollups({ ...range, level: 60, scope: 'all', filter: { host: 'a.example' } }), {
    message: /Use scope host/,
  });
});

testWithInfluxd('reads the last version of rows of more than 64 KiB', async (t) => {
  const { store, writeLines } = await openStore(t);
  const cells = Array.from(
    { length: 1000 },
    (_, status): Cell =>
      cellOf(
        status,
        status + 1,
        Array.from({ length: 40 }, (__, at) => 1.1 ** at),
      ),
  );
  for (const length of [2, 400, 1000]) {
    const rows = [
      rowOf({ cells: cells.slice(0, length) }),
      rowOf({ host: 'a.example', cells: cells.slice(0, length) }),
      rowOf({ host: 'b.example', cells: cells.slice(0, 1) }),
    ];
    await store.write(batchOf(rows));
    for (const [scope, expected] of [
      ['all', rows.slice(0, 1)],
      ['host', rows.slice(1)],
    ] as const) {
      const read = await store.readRollups({ ...range, level: 60, scope, filter: {} });
      t.deepEqual(plain(read), plain(expected), `${length} cells of scope ${scope}`);
    }
  }
  t.deepEqual(await countsOf(store, 'all', { status: { min: 998, max: 999 } }), {
    'caddy 998': 999,
    'caddy 999': 1000,
  });

  await store.write(batchOf([rowOf({ cells: cells.slice(0, 500) })]));
  t.deepEqual(
    plain(await store.readRollups({ ...range, level: 60, scope: 'all', filter: {} })),
    plain([rowOf({ cells: cells.slice(0, 500) })]),
    'fields of a longer version are ignored',
  );
  await writeLines([`request_rollup,level=1m,source=caddy cells_2="x" ${startMs}000001`]);
  const error = await t.throwsAsync(store.readRollups({ ...range, level: 60, scope: 'all', filter: {} }), {
    message: /half written/,
  });
  t.like(error, { action: 'retry' });
});

testWithInfluxd('undoes an import at every level of both scopes, including points of version 1', async (t) => {
  const { store, writeLines, query } = await openStore(t);
  const importId = startMs;
  const { from } = importRowRange(importId);
  const rowsOf = (rowId: number): RollupRow[] => [
    ...levelsOf.all.map((level) => rowOf({ level, rowId, cells: [cellOf(200, 3), cellOf(503, 1)] })),
    ...levelsOf.host.map((level) =>
      rowOf({ level, rowId, host: 'a.example', cells: [cellOf(200, 3), cellOf(503, 1)] }),
    ),
  ];
  await store.write({
    ...batchOf([...rowsOf(from), ...rowsOf(7)]),
    importId,
    imported: packImported(importId, [{ source: 'caddy', timeMs: startMs, timeNs: 0, shiftNs: 0, key: 1 }]),
  });
  await writeLines(
    ['1m', '1h'].map(
      (tag) =>
        `request_rollup,host=a.example,level=${tag},method=GET,source=caddy,status_code=200 count=5i,sampled_out=2i,tally="5 7.5 3.5 300 ABYBGAESAQ== 2" ${BigInt(startMs) * 1_000_000n + BigInt(from)}`,
    ),
  );
  t.deepEqual(await countsOf(store, 'all', {}), { 'caddy 200': 11, 'caddy 503': 2 });
  t.deepEqual(await countsOf(store, 'host', {}), { 'caddy a.example 200': 11, 'caddy a.example 503': 2 });

  t.is(await store.takeBack(importId), 1);
  for (const scope of ['all', 'host'] as const) {
    for (const level of levelsOf[scope]) {
      const rows = await store.readRollups({ ...range, level, scope, filter: {} });
      t.deepEqual(
        rows.map(({ rowId }) => rowId),
        [7],
        `level ${level} of scope ${scope}`,
      );
    }
  }
  const sums = await query(
    '|> filter(fn: (r) => r.level == "1h" and r.scope == "host" and r._field =~ /^(count|status_|sampled_out)/) |> group(columns: ["_field"]) |> sum()',
  );
  t.deepEqual(
    Object.fromEntries(sums.filter(({ _value }) => _value !== 0).map(({ _field, _value }) => [_field, _value])),
    { count: 4, status_2xx: 3, status_5xx: 1 },
    'also for Flux',
  );
});

testWithInfluxd('stores counts by host and status class for Flux', async (t) => {
  const { store, query, run } = await openStore(t);
  await store.write(
    batchOf([
      rowOf({ level: 3600, cells: [cellOf(200, 10), cellOf(404, 5), cellOf(204, 1), cellOf(503, 2)] }),
      rowOf({ level: 3600, host: 'a.example', cells: [cellOf(404, 5), cellOf(503, 2)] }),
    ]),
  );
  const byStatus = await query(
    '|> filter(fn: (r) => r.level == "1h" and not exists r.scope and r._field =~ /^status_/) |> group(columns: ["_field"]) |> sum()',
  );
  t.deepEqual(Object.fromEntries(byStatus.map(({ _field, _value }) => [_field, _value])), {
    status_2xx: 11,
    status_4xx: 5,
    status_5xx: 2,
  });

  const [, documented] = /5xx by host and hour:\n\n```\n(.*?)```/s.exec(await readFile('docs/grafana.md', 'utf8'))!;
  const byHost = await run(
    (bucket) =>
      `option v = {defaultBucket: ${JSON.stringify(bucket)}, timeRangeStart: 2026-11-23T18:00:00Z, timeRangeStop: 2026-11-23T22:00:00Z}\n${documented!}`,
  );
  t.deepEqual(
    byHost.filter(({ _value }) => _value !== null).map(({ host, _value }) => [host, _value]),
    [['a.example', 2]],
  );
});

interface FluxRow {
  readonly _field?: string;
  readonly host?: string;
  readonly _value: number | null;
}

interface Rig {
  readonly store: Store;
  writeLines(lines: readonly string[]): Promise<void>;
  /** Runs a Flux query. */
  run(queryOf: (bucket: string) => string): Promise<FluxRow[]>;
  /** Applies steps to the rollups of a day. */
  query(steps: string): Promise<FluxRow[]>;
}

async function openStore(t: ExecutionContext): Promise<Rig> {
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const store = await openInfluxdbStore({ url, org, bucket, token, ...spoolOfTest() }, { log: quietLog });
  t.teardown(() => store.close());
  const run: Rig['run'] = (queryOf) => new InfluxDB({ url, token }).getQueryApi(org).collectRows(queryOf(bucket));
  return {
    store,
    run,
    async writeLines(lines) {
      const answer = await fetch(`${url}/api/v2/write?${new URLSearchParams({ org, bucket }).toString()}`, {
        method: 'POST',
        body: lines.join('\n'),
        headers: { authorization: `Token ${token}` },
      });
      t.is(answer.status, 204);
    },
    query: (steps) =>
      run(
        (name) =>
          `from(bucket: ${JSON.stringify(name)}) |> range(start: 2026-11-23T00:00:00Z, stop: 2026-11-24T00:00:00Z) |> filter(fn: (r) => r._measurement == "request_rollup") ${steps}`,
      ),
  };
}

function batchOf(rollups: readonly RollupRow[]): Parameters<Store['write']>[0] {
  return {
    recorder: 'r',
    writer: randomUUID(),
    sequence: 1,
    requests: [],
    aggregates: [],
    rollups,
    topLists: [],
    ledger: undefined,
  };
}

function rowOf({
  level = 60,
  rowId = 1,
  source = 'caddy',
  host,
  cells,
}: {
  level?: Level;
  rowId?: number;
  source?: string;
  host?: string;
  cells: readonly Cell[];
}): RollupRow {
  return { level, windowMs: windowStart(startMs, level), rowId, source, host, cells };
}

function cellOf(status: number, count: number, durationsMs: readonly number[] = [1]): Cell {
  const histogram = new Histogram();
  for (const durationMs of durationsMs) histogram.add(durationMs);
  return {
    method: 'GET',
    status,
    count,
    sampledOut: 0,
    durationSumMs: count / 3,
    durationMaxMs: 0.1,
    sizeSum: 1,
    histogram,
  };
}

/** Converts rows for comparison, with the contents of histograms, in a fixed order. */
function plain(rows: readonly RollupRow[]): unknown[] {
  return rows
    .map((row) => ({ ...row, cells: row.cells.map((cell) => ({ ...cell, histogram: cell.histogram.pack() })) }))
    .toSorted((one, other) => (one.host ?? '').localeCompare(other.host ?? ''));
}

/** Counts requests by source, status and, for scope `host`, host. */
async function countsOf(store: Store, scope: Scope, filter: Filter): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { source, host, cells } of await store.readRollups({ ...range, level: 60, scope, filter })) {
    for (const { status, count } of cells) {
      const name = `${source}${host === undefined ? '' : ` ${host}`} ${status}`;
      counts[name] = (counts[name] ?? 0) + count;
    }
  }
  return counts;
}
