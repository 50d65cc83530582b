import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { StoreError } from '../../errors.js';
import { createLog } from '../../log.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import { windowStart } from '../../rollup/rollup.js';
import type { TopRow } from '../../top-list/top-row.js';
import type { Batch, Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';
import { joinColumn } from './columns.js';

test('keeps all values in their rows if a text has a NUL', (t) => {
  t.is(joinColumn(['a', '', 'c']), 'a\0\0c');
  t.is(joinColumn(['']), '');
  t.is(joinColumn(['a\0b', '\0', 'c']), 'a\ufffdb\0\ufffd\0c');
  t.is(joinColumn([1, 2.5, 1e21]), '1\x002.5\x001e+21');
});

test('drops a batch that can never be written as a whole, and writes the next one', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 },
    },
    { log: createLog('store') },
  );
  const good = duckdbBatch(2);
  const bad = { ...duckdbBatch(1), topLists: longLists(1).map((row) => ({ ...row, rowId: 0.5e300 })) };
  const error = await t.throwsAsync(store.write(bad), {
    instanceOf: StoreError,
    message: /the data does not fit the tables/,
  });
  t.regex(error.detail!, /Conversion Error/);
  t.is(error.action, 'drop');
  const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };
  t.deepEqual(await store.readRequests({ ...everything, limit: 10 }), []);
  await store.write(good);
  t.is((await store.readRequests({ ...everything, limit: 1000 })).length, good.requests.length);
  await store.close();
  await rm(folder, { recursive: true });
});

test('holds a batch that cannot be written because of a bug of this program', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 },
    },
    { log: createLog('store') },
  );
  const good = duckdbBatch(1);
  const error = await t.throwsAsync(store.write({ ...good, ledger: { ...good.ledger!, received: 1.5 } }), {
    instanceOf: StoreError,
    message: /for an unexpected reason/,
  });
  t.is(error.action, 'hold');
  t.regex(error.detail ?? '', /RangeError/);
  await store.write(good);
  await store.close();
});

test('holds a batch while the windows of an earlier one cannot be closed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const [first, second] = [duckdbBatch(1), duckdbBatch(2)];
  const [request] = first.requests;
  let nowMs = request!.timeMs;
  const refused: Batch[] = [];
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 },
    },
    {
      log: createLog('store', { write: () => undefined }),
      now: () => nowMs,
      onRefused: (batch) => {
        refused.push(batch);
        return Promise.resolve();
      },
    },
  );
  // More requests than its column can hold: the journal takes any number, the table does not.
  const aggregates = first.aggregates.map((each) => ({ ...each, aggregate: { ...each.aggregate, count: 1e300 } }));
  await store.write({ ...first, aggregates });
  nowMs += 3_600_000;
  const error = await t.throwsAsync(store.write(second), {
    instanceOf: StoreError,
    message: /Cannot close windows of/,
  });
  t.regex(error.detail!, /Conversion Error/);
  t.is(error.action, 'hold');
  t.deepEqual(refused, []);
  await store.close();
});

test('stays within the memory limit of DuckDB when it rewrites rows', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 86_400_000, rollupsMs: 86_400_000 },
      memoryBytesMax: 40 * 2 ** 20,
    },
    { log: createLog('store') },
  );
  let last: TopRow[] = [];
  for (let sequence = 1; sequence <= 80; sequence += 1) {
    last = longLists(20);
    await t.notThrowsAsync(store.write(batchOf(sequence, last)), `batch ${sequence}`);
  }
  t.deepEqual(await readLists(store), last);
  await store.close();
  await rm(folder, { recursive: true });
});

test('writes other batches after one that exceeds the memory of DuckDB', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 86_400_000, rollupsMs: 86_400_000 },
      memoryBytesMax: 16 * 2 ** 20,
    },
    { log: createLog('store', { write: () => undefined }) },
  );
  const error = await t.throwsAsync(store.write(batchOf(1, longLists(400))), {
    instanceOf: StoreError,
    message: /DuckDB is out of memory/,
  });
  t.regex(error.detail!, /Out of Memory/);
  t.is(error.action, 'retry');
  const lists = longLists(5);
  await store.write(batchOf(2, lists));
  t.deepEqual(await readLists(store), lists);
  await store.close();
  await rm(folder, { recursive: true });
});

const listsMs = windowStart(Date.now(), 3600);

function batchOf(sequence: number, topLists: TopRow[]): Batch {
  return {
    recorder: 'tested',
    writer: 'tested',
    sequence,
    requests: [],
    aggregates: [],
    rollups: [],
    topLists,
    ledger: undefined,
  };
}

/** Lists of maximum length, different each time. */
function longLists(length: number): TopRow[] {
  return Array.from({ length }, (_, rowId) => ({
    level: 3600,
    windowMs: listsMs,
    rowId,
    source: 'caddy',
    host: '',
    kind: 'path',
    packed: randomBytes(45_000).toString('base64'),
  }));
}

async function readLists(store: Store): Promise<TopRow[]> {
  const stored = await store.readTopLists({
    fromMs: listsMs,
    toMs: listsMs + 3_600_000,
    level: 3600,
    kinds: ['path'],
    filter: {},
  });
  return stored.toSorted((one, other) => one.rowId - other.rowId);
}
