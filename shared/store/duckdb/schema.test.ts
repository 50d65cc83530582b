/**
 * Files of earlier programs: `fixtures/version-N-….duckdb.gz`, each with the three requests, the row of each level
 * and the ledger that this test reads, and a list if the version had any. To add one before a change of the tables:
 * write this batch with the current program, close the store, `gzip -9`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { DuckDBInstance } from '@duckdb/node-api';
import test from 'ava';
import { duckdbMigrator } from '../../../test/duckdb-migrator.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import { createLog } from '../../log.js';
import { levels } from '../../rollup/rollup.js';
import type { Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';
import { schemaVersion } from './schema.js';
import { aggregateOf } from '../../../test/rollup-rows.js';

const fixtures = 'shared/store/duckdb/fixtures';
const startMs = Date.UTC(2026, 10, 27);
const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };

for (const name of await readdir(fixtures)) {
  test(`opens a file of an earlier program with all its data, and continues: ${name}`, async (t) => {
    const { path, cleanup } = await unpacked(name);
    t.true((await versionOf(path)) <= schemaVersion);
    const store = await open(path);
    t.deepEqual(await contents(store), whatWasWritten);
    const topLists = (await store.readTopLists({ ...everything, level: 60, kinds: ['path'] })).map(
      ({ packed }) => packed,
    );
    t.deepEqual(topLists, /-(?:first|without-top-lists)\./.test(name) ? [] : ['[0,0,[]]']);
    await store.write(duckdbBatch(1));
    t.is((await store.readRequests({ ...everything, limit: 1000 })).length, 503);
    await store.close();
    t.is(await versionOf(path), schemaVersion);
    t.deepEqual(await shapeOf(path), await shapeOfNew(), 'it has the tables of a new file');
    await cleanup();
  });
}

test('leaves the old or the new version after kill -9 at any statement of a migration', async (t) => {
  const newShape = await shapeOfNew();
  const versions: number[] = [];
  for (let statement = 0, killed = true; killed; statement += 1) {
    const { path, cleanup } = await unpacked('version-1-first.duckdb.gz');
    const oldShape = await shapeOf(path);
    killed = await migrateAndKill(path, statement);
    const version = await versionOf(path);
    versions.push(version);
    t.deepEqual(await shapeOf(path), version === 1 ? oldShape : newShape, `killed before statement ${statement}`);
    const store = await open(path);
    t.deepEqual(await contents(store), whatWasWritten);
    await store.close();
    await cleanup();
  }
  t.true(versions.length > 5);
  t.deepEqual(
    versions,
    [...versions.slice(0, -2).fill(1), schemaVersion, schemaVersion],
    'nothing is done before the last statement, and all after it',
  );
});

const whatWasWritten = {
  requests: [0, 1, 2].map((at) => ({
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
  rollups: levels.map((level) => ({ level, count: 3, durationSumMs: 7.5, sizeSum: 300, median: true })),
  ledgers: [
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
  ],
};

async function contents(store: Store): Promise<unknown> {
  const rollups = await Promise.all(
    levels.map(async (level) => ({
      level,
      ...aggregateOf(await store.readRollups({ ...everything, level, scope: 'all' })),
    })),
  );
  return {
    requests: (await store.readRequests({ ...everything, limit: 100 })).toSorted((a, b) => a.timeMs - b.timeMs),
    rollups: rollups.map(({ level, count, durationSumMs, sizeSum, histogram }) => ({
      level,
      count,
      durationSumMs,
      sizeSum,
      median: Math.abs(histogram.quantile(0.5)! / 2.5 - 1) < 0.05,
    })),
    ledgers: await store.readLedgers({ sinceMs: 0 }),
  };
}

/** Resolves to whether it was killed before it ended. */
async function migrateAndKill(path: string, statement: number): Promise<boolean> {
  const child = spawn(process.execPath, [duckdbMigrator, path, String(statement)], { stdio: 'inherit' });
  const [status, signal] = (await once(child, 'exit')) as [number | null, string | null];
  if (signal !== 'SIGKILL' && status !== 0) throw new Error(`The migration ended with ${status}.`);
  return signal === 'SIGKILL';
}

function open(path: string): Promise<Store> {
  const retentionMs = 3650 * 86_400_000;
  return openDuckdbStore(
    { path, retention: { requestsMs: retentionMs, rollupsMs: retentionMs } },
    { log: createLog('store'), now: () => startMs + 60_000 },
  );
}

async function versionOf(path: string): Promise<number> {
  const [[version]] = (await rows(path, 'SELECT version FROM store_schema')) as [[number]];
  return version;
}

async function shapeOf(path: string): Promise<unknown> {
  return await rows(
    path,
    'SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL',
  );
}

async function shapeOfNew(): Promise<unknown> {
  const { path, cleanup } = await emptyFolder();
  await (await open(path)).close();
  const shape = await shapeOf(path);
  await cleanup();
  return shape;
}

async function rows(path: string, sql: string): Promise<unknown[][]> {
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  try {
    return await (await connection.run(sql)).getRows();
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

async function unpacked(name: string): Promise<{ path: string; cleanup: () => Promise<void> }> {
  const folder = await emptyFolder();
  await writeFile(folder.path, gunzipSync(await readFile(join(fixtures, name))));
  return folder;
}

async function emptyFolder(): Promise<{ path: string; cleanup: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  return { path: join(folder, 'requests.duckdb'), cleanup: () => rm(folder, { recursive: true }) };
}
