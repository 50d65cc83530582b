import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { StoreError } from '../../errors.js';
import { createLog } from '../../log.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import { openDuckdbStore } from './duckdb-store.js';
import { joinColumn } from './write-batch.js';

test('a NUL in a text moves no other value out of its row.', (t) => {
  t.is(joinColumn(['a', '', 'c']), 'a\0\0c');
  t.is(joinColumn(['']), '');
  t.is(joinColumn(['a\0b', '\0', 'c']), 'a\ufffdb\0\ufffd\0c');
  t.is(joinColumn([1, 2.5, 1e21]), '1\x002.5\x001e+21');
});

test('a batch that can never be written is given up whole, and the next one goes through.', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const store = await openDuckdbStore({ path: join(folder, 'requests.duckdb'), retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 } }, { log: createLog('store') });
  const good = duckdbBatch(2);
  const bad = { ...duckdbBatch(1), rollups: good.rollups.map((row) => ({ ...row, count: 0.5e300 })) };
  const error = await t.throwsAsync(store.write(bad), { instanceOf: StoreError, message: /Conversion Error/ });
  t.is(error.action, 'drop');
  const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };
  t.deepEqual(await store.readRequests({ ...everything, limit: 10 }), []);
  await store.write(good);
  t.is((await store.readRequests({ ...everything, limit: 1000 })).length, good.requests.length);
  await store.close();
  await rm(folder, { recursive: true });
});
