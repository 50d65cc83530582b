import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { event } from '../../../../test/web-samples.js';
import { aggregatesOf, aggregateOf } from '../../../../test/rollup-rows.js';
import { createLog } from '../../../log.js';
import { collect } from '../../collect.js';
import { openDatabase } from '../database.js';
import { ReadPool } from '../read-pool.js';
import { streamRollups } from './rollups.js';

const startMs = Date.UTC(2026, 10, 23, 20);

test('reads all pages of rollup rows, even if a filter leaves few cells of the first', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'queries-'));
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 2 ** 27,
    log: createLog('store'),
    now: () => startMs,
  });
  const pool = new ReadPool(database.reading);
  try {
    const requests = Array.from({ length: 60 }, (_, minute) =>
      event({ timeMs: startMs - 3_600_000 + minute * 60_000, status: minute < 50 ? 200 : 500 }),
    );
    await database.batches.write(
      {
        recorder: 'r',
        writer: 'w',
        sequence: 1,
        requests,
        aggregates: aggregatesOf(requests, startMs),
        rollups: [],
        topLists: [],
        ledger: undefined,
      },
      startMs,
      (commit) => commit(),
    );
    await database.batches.closeWindows(startMs + 120_000, (commit) => commit());
    const query = {
      fromMs: startMs - 3_600_000,
      toMs: startMs,
      level: 60,
      scope: 'host',
      filter: { status: { min: 500, max: 599 } },
    } as const;
    t.is(
      aggregateOf(await collect(streamRollups((run) => pool.use(run), query, database.windows.snapshot(query), 7)))
        .count,
      10,
    );
  } finally {
    await database.close();
    await rm(folder, { recursive: true });
  }
});
