import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import { until } from '../../../test/until.js';
import { createLog } from '../../log.js';
import type { RequestEvent } from '../../request-event.js';
import { aggregatesOf } from '../../../test/rollup-rows.js';
import { levels, levelsOf, levelRetentionMs } from '../../rollup/rollup.js';
import { topLevels, type TopLevel, type TopRow } from '../../top-list/top-row.js';
import type { RetentionState } from '../retention-guard.js';
import type { LedgerSnapshot } from '../store.js';
import { openDatabase } from './database.js';
import { openDuckdbStore } from './duckdb-store.js';
import { ReadPool } from './read-pool.js';
import { deleteSteps, loadRetentionState } from './retention.js';
import { emptyRequest } from '../../../test/empty-request.js';

const dayMs = 86_400_000;
const startMs = Date.UTC(2026, 10, 23);
const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };

test('retains fine windows for days, coarse ones for the configured time, and none for longer', (t) => {
  t.deepEqual(
    levels.map((level) => levelRetentionMs(level, 400 * dayMs) / dayMs),
    [0.25, 14, 60, 400, 400],
  );
  t.deepEqual(
    levelsOf.host.map((level) => levelRetentionMs(level, 400 * dayMs, 'host') / dayMs),
    [1 / 6, 7, 60, 400],
  );
  t.deepEqual(
    levels.map((level) => levelRetentionMs(level, 7 * dayMs) / dayMs),
    [0.25, 7, 7, 7, 7],
  );
  t.deepEqual(
    levels.map((level) => levelRetentionMs(level, dayMs) / dayMs),
    [0.25, 1, 1, 1, 1],
  );
});

test('deletes expired rows when the store is opened, and no others', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  let nowMs = startMs;
  const open = () =>
    openDuckdbStore(
      {
        path: join(folder, 'requests.duckdb'),
        retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs },
        retentionDelayMs: 0,
      },
      { log: createLog('store'), now: () => nowMs },
    );
  let store = await open();
  const agesDays = [0, 1, 2, 3, 7, 8, 14, 15, 60, 61, 400, 401];
  for (const [at, age] of agesDays.toReversed().entries()) {
    nowMs = startMs - age * dayMs;
    const requests = [request(nowMs)];
    await store.write({
      recorder: 'test',
      writer: 'retention-test',
      sequence: at + 1,
      ledger: undefined,
      requests,
      aggregates: aggregatesOf(requests, nowMs),
      rollups: [],
      topLists: topLevels.map((level) => top(level, nowMs)),
    });
  }

  const ages = async (): Promise<Record<string, number[]>> => {
    const sorted = (timesMs: number[]): number[] =>
      timesMs.map((timeMs) => (startMs - timeMs) / dayMs).toSorted((a, b) => a - b);
    const found: Record<string, number[]> = {
      requests: sorted((await store.readRequests({ ...everything, limit: 1000 })).map(({ timeMs }) => timeMs)),
    };
    for (const level of levels)
      found[level] = sorted(
        (await store.readRollups({ ...everything, level, scope: 'all' })).map(({ windowMs }) => windowMs),
      );
    for (const level of levelsOf.host)
      found[`host ${level}`] = sorted(
        (await store.readRollups({ ...everything, level, scope: 'host' })).map(({ windowMs }) => windowMs),
      );
    for (const level of topLevels)
      found[`top ${level}`] = sorted(
        (await store.readTopLists({ ...everything, level, kinds: ['path'] })).map(({ windowMs }) => windowMs),
      );
    return found;
  };
  /** Reopens the store and waits until the ages are as expected. */
  const agesBecome = async (expected: Record<string, number[]>): Promise<void> => {
    await store.close();
    store = await open();
    await until('old rows are deleted', async () => isDeepStrictEqual(await ages(), expected)).catch(() => undefined);
    t.deepEqual(await ages(), expected);
  };

  const upTo = (days: number): number[] => agesDays.filter((age) => age <= days);
  await agesBecome({
    10: upTo(0),
    60: upTo(14),
    600: upTo(60),
    3600: upTo(400),
    86_400: upTo(400),
    requests: upTo(7),
    'host 60': upTo(0),
    'host 600': upTo(7),
    'host 3600': upTo(60),
    'host 86400': upTo(400),
    'top 60': upTo(1),
    'top 600': upTo(7),
    'top 3600': upTo(60),
    'top 86400': upTo(400),
  });
  nowMs += dayMs;
  await agesBecome({
    10: [],
    60: upTo(13),
    600: upTo(59),
    3600: upTo(399),
    86_400: upTo(399),
    requests: upTo(6),
    'host 60': [],
    'host 600': upTo(6),
    'host 3600': upTo(59),
    'host 86400': upTo(399),
    'top 60': upTo(0),
    'top 600': upTo(6),
    'top 3600': upTo(59),
    'top 86400': upTo(399),
  });
  nowMs += 500 * dayMs;
  await agesBecome({
    10: [],
    60: [],
    600: [],
    3600: [],
    86_400: [],
    requests: [],
    'host 60': [],
    'host 600': [],
    'host 3600': [],
    'host 86400': [],
    'top 60': [],
    'top 600': [],
    'top 3600': [],
    'top 86400': [],
  });
  await store.close();
  await rm(folder, { recursive: true });
});

test('deletes nothing after a start with the clock ahead or a shorter retention until the delay is over', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const logged: string[] = [];
  const log = createLog('store', { write: (line) => logged.push(line) });
  const usual = { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs };
  const agesDays = [0, 1, 5];
  const path = join(folder, 'requests.duckdb');
  let sequence = 0;
  /**
   * Opens the store at a given time, waits until it has deleted what it will, and returns the ages of the remaining
   * requests in days.
   */
  const agesAfterStart = (nowMs: number, retention = usual): Promise<number[]> =>
    until('it has checked the clock', async () => {
      const store = await openDuckdbStore({ path, retention }, { log, now: () => nowMs });
      // Writes and deletions take turns.
      for (let turns = 0; turns < 20; turns += 1)
        await store.write({
          recorder: 'test',
          writer: 'guard-test',
          sequence: (sequence += 1),
          ledger: undefined,
          requests: [],
          aggregates: [],
          rollups: [],
          topLists: [],
        });
      const requests = await store.readRequests({ ...everything, limit: 100 });
      await store.close();
      const database = await openDatabase(path, { memoryBytesMax: 64 * 2 ** 20, log });
      const saved = (await loadRetentionState(database.writing)) as RetentionState | undefined;
      await database.close();
      return saved?.lookedMs === nowMs && requests.map(({ timeMs }) => (startMs - timeMs) / dayMs);
    });
  t.deepEqual(await agesAfterStart(startMs), []);
  const store = await openDuckdbStore({ path, retention: usual }, { log, now: () => startMs });
  await store.write({
    recorder: 'test',
    writer: 'guard-test',
    sequence: (sequence += 1),
    ledger: undefined,
    topLists: [],
    rollups: [],
    requests: agesDays.map((age) => request(startMs - age * dayMs)),
    aggregates: aggregatesOf(
      agesDays.map((age) => request(startMs - age * dayMs)),
      startMs,
    ),
  });
  await store.close();
  t.deepEqual(await agesAfterStart(startMs), agesDays);
  for (const days of [8, 730]) {
    t.deepEqual(await agesAfterStart(startMs + days * dayMs), agesDays);
    t.true(logged.splice(0).some((line) => line.includes(`${days}d ahead of the time used for deletion`)));
  }
  t.deepEqual(await agesAfterStart(startMs, { requestsMs: 3 * dayMs, rollupsMs: 3 * dayMs }), agesDays);
  t.regex(
    logged.splice(0).join(''),
    /RETENTION_REQUESTS is 3d and was 7d: requests from .* will be deleted; RETENTION_ROLLUPS is 3d and was 400d: .* when the program has run for 1d/,
  );
  for (let hours = 1; hours < 24; hours += 1)
    await agesAfterStart(startMs + hours * 3_600_000, { requestsMs: 3 * dayMs, rollupsMs: 3 * dayMs });
  t.deepEqual(await agesAfterStart(startMs + dayMs, { requestsMs: 3 * dayMs, rollupsMs: 3 * dayMs }), [0, 1]);
  await rm(folder, { recursive: true });
});

test('keeps ledgers and the ids of applied batches for as long as the coarsest rollups', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 64 * 2 ** 20,
    log: createLog('store'),
  });
  const agesDays = [0, 8, 399, 400, 401, 500];
  for (const age of agesDays) {
    const writtenMs = startMs - age * dayMs;
    await database.batches.write(
      {
        recorder: 'test',
        writer: `writer-${age}`,
        sequence: 1,
        requests: [],
        aggregates: [],
        rollups: [],
        topLists: [],
        ledger: ledger(`collector-${age}`, writtenMs),
      },
      writtenMs,
      (commit) => commit(),
    );
  }
  for (const step of deleteSteps({ requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs }, startMs))
    while ((await step(database.writing)) > 0);
  const retained = [0, 8, 399, 400];
  const namesIn = async (table: string, column: string): Promise<unknown[]> =>
    (await (await database.writing.run(`SELECT ${column} FROM ${table}`)).getRows()).flat().toSorted();
  t.deepEqual(await namesIn('collector_ledger', 'collector'), retained.map((age) => `collector-${age}`).toSorted());
  t.deepEqual(await namesIn('applied_batch', 'writer'), retained.map((age) => `writer-${age}`).toSorted());
  await database.close();
  await rm(folder, { recursive: true });
});

test('deletes many expired rollup rows in small steps', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 64 * 2 ** 20,
    log: createLog('store'),
  });
  const requests = Array.from({ length: 250 }, (_, index) => request(startMs - index * 60_000));
  await database.batches.write(
    {
      recorder: 'test',
      writer: 'retention-test',
      sequence: 1,
      requests: [],
      aggregates: aggregatesOf(requests, startMs),
      rollups: [],
      topLists: [],
      ledger: undefined,
    },
    startMs,
    (commit) => commit(),
  );
  await database.batches.closeWindows(startMs + dayMs, (commit) => commit());
  const steps = deleteSteps({ requestsMs: dayMs, rollupsMs: 6_000_000 }, startMs, 100);
  for (const step of steps) t.is(await step(database.writing), 0, 'no row is deleted before it is folded');
  const { folds } = database.windows;
  const reads = new ReadPool(database.reading);
  for (let fold; (fold = folds.due(database.windows.closedMax, startMs + dayMs)) !== undefined; ) {
    await database.batches.fold(await folds.prepare((run) => reads.use(run), fold), startMs + dayMs, (commit) =>
      commit(),
    );
  }
  const deleted: number[] = [];
  for (const step of steps) {
    let rows: number;
    do deleted.push((rows = await step(database.writing)));
    while (rows > 0);
  }
  t.true(deleted.every((rows) => rows <= 100) && deleted.includes(100), deleted.join());
  t.deepEqual(
    await (
      await database.writing.run('SELECT count(*), min(window_ms) FROM request_rollup WHERE level = 60')
    ).getRows(),
    [[101n, BigInt(startMs - 6_000_000)]],
  );
  await database.close();
  await rm(folder, { recursive: true });
});

function request(timeMs: number): RequestEvent {
  return {
    ...emptyRequest,
    source: 'caddy',
    timeMs,
    host: 'shop.example',
    method: 'GET',
    status: 200,
    durationMs: 1,
    size: 1,
  };
}

function top(level: TopLevel, windowMs: number): TopRow {
  return { level, windowMs, rowId: 1, source: 'caddy', host: '', kind: 'path', packed: '[0,0,[]]' };
}

function ledger(collector: string, timeMs: number): LedgerSnapshot {
  return {
    collector,
    timeMs,
    received: 1,
    accepted: 1,
    runtime: 0,
    events: 0,
    rejected: {},
    dropped: {},
    stored: 1,
    spooled: 0,
    inMemory: 0,
    deadLettered: 0,
    warnings: {},
    lastLineMs: timeMs,
  };
}
