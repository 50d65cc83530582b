import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import { aggregatesOf } from '../../../test/rollup-rows.js';
import { event } from '../../../test/web-samples.js';
import { createLog } from '../../log.js';
import { levels } from '../../rollup/rollup.js';
import { until } from '../../../test/until.js';
import { runStoreContract } from '../contract/contract.js';
import type { Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';

const retention = { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 };
/** An hour after the contract's requests, so that none of them and none of their rollups expires. */
const now = (): number => Date.UTC(2026, 10, 23, 21);

runStoreContract(test, 'DuckDB', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const open = (): Promise<Store> =>
    openDuckdbStore(
      { path: join(folder, 'requests.duckdb'), retention },
      { log: createLog('store', { write: () => undefined }), now },
    );
  let store = await open();
  return {
    store,
    async reopen() {
      await store.close();
      store = await open();
      return store;
    },
    async cleanup() {
      await store.close();
      await rm(folder, { recursive: true });
    },
  };
});

test('reads all rows during batches and checkpoints', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore(
    {
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 },
      logBytesMax: 100_000,
    },
    { log: createLog('store', { write: () => undefined }), now },
  );
  const limit = 600;
  let sequence = 0;
  const write = async (batches: number): Promise<void> => {
    for (const last = sequence + batches; sequence < last; await store.write(duckdbBatch(sequence))) sequence += 1;
  };
  await write(3);
  const range = { fromMs: now(), toMs: Date.UTC(2100, 0, 1), filter: {} };
  const found = new Map<number, number>();
  let isWritten = false;
  const read = async (): Promise<void> => {
    while (!isWritten) {
      let rows = 0;
      for await (const page of store.streamRequests({ ...range, limit })) rows += page.length;
      found.set(rows, (found.get(rows) ?? 0) + 1);
    }
  };
  const reading = Promise.all([read(), read()]);
  await write(80);
  isWritten = true;
  await reading;
  t.deepEqual([...found.keys()], [limit]);
  await store.close();
  await rm(folder, { recursive: true });
});

test('counts nothing twice after its file was deleted, even if the log cannot be set aside', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  // The name for the log is longer than a file system allows.
  const path = join(folder, 'a'.repeat(225));
  const logged: string[] = [];
  const store = await openDuckdbStore(
    { path, retention },
    { log: createLog('store', { write: (line) => logged.push(line) }), now },
  );
  let exchanges = 0;
  store.changes!.listenForExchange(() => {
    exchanges += 1;
  });
  for (const sequence of [1, 2]) await store.write(duckdbBatch(sequence));
  await rm(path);
  await until('the store notices', () => exchanges === 1);
  await until('the log says so', () => logged.length > 0);
  t.regex(logged.join(''), /Its log could not be set aside: .*ENAMETOOLONG/);
  const batch = duckdbBatch(3);
  await store.write(batch);
  const rows = await store.readRollups({ fromMs: 0, toMs: Date.UTC(2100, 0), level: 86_400, scope: 'all', filter: {} });
  t.deepEqual(
    rows.map(({ cells }) => cells.map(({ count }) => count)),
    [[batch.requestsPerBatch]],
  );
  await store.close();
  await rm(folder, { recursive: true });
});

test('reports the windows of a batch as changed, even if it turns out to be stored already', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore(
    { path: join(folder, 'requests.duckdb'), retention },
    { log: createLog('store', { write: () => undefined }), now },
  );
  const changed: number[] = [];
  store.changes!.listen(({ rollups }) => {
    changed.push(rollups.length);
  });
  const requests = [event({ timeMs: now() })];
  const batch = {
    recorder: 'r',
    writer: 'w',
    sequence: 1,
    requests,
    aggregates: aggregatesOf(requests, now()),
    rollups: [],
    topLists: [],
    ledger: undefined,
  };
  await store.write(batch);
  await store.write(batch);
  t.deepEqual(changed, [levels.length, levels.length]);
  await store.close();
  await rm(folder, { recursive: true });
});
