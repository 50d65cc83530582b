import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { event } from '../../../../test/web-samples.js';
import { topListsOfRequests as listed } from '../../../top-list/top-lists-of-requests.js';
import { createLog } from '../../../log.js';
import { openDatabase } from '../database.js';
import { ReadPool } from '../read-pool.js';
import { topListsOfRequests } from './request-top-lists.js';

const startMs = Date.UTC(2026, 10, 23, 20);

test('lists only the newest of too many requests, and returns how many', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'queries-'));
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 2 ** 27,
    log: createLog('store'),
  });
  const pool = new ReadPool(database.reading);
  try {
    const requests = Array.from({ length: 3000 }, (_, at) =>
      event({ timeMs: startMs + at * 1000, uri: `/${at % 7}`, clientIp: `192.0.2.${at % 5}` }),
    );
    await database.batches.write(
      {
        recorder: 'r',
        writer: 'w',
        sequence: 1,
        requests,
        aggregates: [],
        rollups: [],
        topLists: [],
        ledger: undefined,
      },
      startMs,
      (commit) => commit(),
    );
    const query = {
      fromMs: startMs,
      toMs: startMs + 3_600_000,
      filter: { method: 'GET' },
      kinds: ['path', 'unique_clients'],
      valuesMax: 10,
    } as const;
    const read = (requestsMax?: number) => pool.use((run) => topListsOfRequests(run, query, requestsMax));
    const comparable = ({ bySource }: Awaited<ReturnType<typeof read>>) =>
      [...bySource].map(([source, { lists, clients }]) => [
        source,
        clients,
        lists.get('path')?.total,
        lists.get('path')?.entries.map(({ value, count }) => [value, count]),
      ]);
    const expectedOf = (subset: typeof requests) =>
      comparable({ bySource: listed(subset, query), ofNewest: undefined });

    const all = await read();
    t.is(all.ofNewest, undefined);
    t.deepEqual(comparable(all), expectedOf(requests));
    const part = await read(1000);
    // Whole thousandths of an hour: 3.6 s, with three or four requests.
    t.true(part.ofNewest! > 990 && part.ofNewest! <= 1000, String(part.ofNewest));
    t.deepEqual(comparable(part), expectedOf(requests.slice(-part.ofNewest!)));
    const least = await read(1);
    t.true(least.ofNewest! >= 1 && least.ofNewest! < 5, 'always lists the newest thousandth of the range');
  } finally {
    await database.close();
    await rm(folder, { recursive: true });
  }
});
