import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { aggregatesOf } from '../../../test/rollup-rows.js';
import { collect } from '../collect.js';
import { createLog } from '../../log.js';
import type { RequestEvent } from '../../request-event.js';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import {
  mergeAggregate,
  emptyAggregate,
  levelsOf,
  scopes,
  type Level,
  type RollupRow,
  type Aggregate,
} from '../../rollup/rollup.js';
import type { HostCounts } from '../store.js';
import { openDatabase, type Database } from './database.js';
import { countHosts } from './queries/host-counts.js';
import { streamRollups } from './queries/rollups.js';
import { ReadPool } from './read-pool.js';
import type { PreparedFold } from './rollup-folds.js';
import { takeBack } from './take-back.js';
import { emptyRequest } from '../../../test/empty-request.js';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const startMs = Date.UTC(2026, 10, 23, 12);

/**
 * Ages of requests, with the finest levels that retain each age. These do not change during the hour by which the
 * test's clock advances.
 */
const ages = [
  { fromMs: 0, toMs: hourMs, all: 10, host: 60 },
  { fromMs: dayMs, toMs: dayMs + hourMs, all: 60, host: 600 },
  { fromMs: 20 * dayMs, toMs: 20 * dayMs + 5 * hourMs, all: 600, host: 3600 },
  { fromMs: 90 * dayMs, toMs: 90 * dayMs + 5 * hourMs, all: 3600, host: 86_400 },
] as const;

const request = fc
  .constantFrom(...ages)
  .chain(({ fromMs, toMs }) =>
    fc.record({
      timeMs: fc.integer({ min: startMs - toMs, max: startMs - fromMs }),
      source: fc.constantFrom('caddy', '\ufeffapp'),
      host: fc.constantFrom('a.example', '\ufeffb.example', ''),
      method: fc.constantFrom('GET', 'POST', 'PURGE'),
      status: fc.constantFrom(200, 404, 500, 101, 0),
      durationMs: fc.integer({ min: 0, max: 100_000 }),
      size: fc.integer({ min: 0, max: 1e6 }),
    }),
  )
  .map(
    (input): RequestEvent => ({
      ...emptyRequest,
      ...input,
    }),
  );

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      requests: fc.array(request, { minLength: 1, maxLength: 20 }),
      importId: fc.constantFrom(0, 0, 7, 8),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      { kind: 'time passes' as const },
      { kind: 'windows close' as const },
      { kind: 'a fold begins' as const },
      { kind: 'a fold ends' as const },
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      { kind: 'the process is killed' as const },
      { kind: 'an import is taken back' as const },
    ),
  },
);

test('has rows of all levels and scopes that agree with the requests, for any sequence of closing, folding, kills and undone imports', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 5, maxLength: 25 }),
      fc.constantFrom(4, 1000),
      async (steps, openCellsMax) => {
        const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
        const open = (): Promise<Database> =>
          openDatabase(join(folder, 'requests.duckdb'), {
            memoryBytesMax: 64 * 2 ** 20,
            openCellsMax,
            log: createLog('store'),
            now: () => nowMs,
          });
        let nowMs = startMs;
        let database = await open();
        let stored: { readonly request: RequestEvent; readonly importId: number }[] = [];
        let prepared: PreparedFold | undefined;
        let sequence = 0;
        try {
          for (const each of steps) {
            const { folds } = database.windows;
            switch (each.kind) {
              case 'write': {
                const { requests, importId } = each;
                await database.batches.write(
                  {
                    recorder: 'r',
                    writer: 'w',
                    sequence: (sequence += 1),
                    requests: [],
                    aggregates: aggregatesOf(requests, nowMs),
                    rollups: [],
                    topLists: [],
                    ledger: undefined,
                    importId,
                  },
                  nowMs,
                  (commit) => commit(),
                );
                stored.push(...requests.map((one) => ({ request: one, importId })));
                break;
              }
              case 'time passes':
                nowMs += 2 * minuteMs;
                break;
              case 'windows close':
                await database.batches.closeWindows(nowMs, (commit) => commit());
                break;
              case 'a fold begins': {
                const due = folds.due(database.windows.closedMax, nowMs);
                if (due !== undefined && prepared === undefined)
                  prepared = await folds.prepare((run) => new ReadPool(database.reading).use(run), due);
                break;
              }
              case 'a fold ends':
                if (prepared !== undefined && folds.isValid(prepared))
                  await database.batches.fold(prepared, nowMs, (commit) => commit());
                prepared = undefined;
                break;
              case 'the process is killed':
                await database.close();
                database = await open();
                prepared = undefined;
                break;
              case 'an import is taken back':
                await takeBack(database.writing, 7);
                await database.windows.forget(7, database.writing);
                stored = stored.filter(({ importId }) => importId !== 7);
            }
            if (nowMs - startMs < 50 * minuteMs)
              await assertAgree(
                database,
                stored.map((one) => one.request),
              );
          }
        } finally {
          await database.close();
          await rm(folder, { recursive: true });
        }
      },
    ),
    { numRuns: 40 },
  );
  t.pass();
});

test('folds nothing for rows of an import that was undone', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 64 * 2 ** 20,
    log: createLog('store'),
    now: () => startMs,
  });
  try {
    const [one] = fc.sample(request, { numRuns: 1, seed: 1 });
    const aggregates = aggregatesOf([{ ...one!, timeMs: startMs - 20 * minuteMs }], startMs);
    await database.batches.write(
      {
        recorder: 'r',
        writer: 'w',
        sequence: 1,
        requests: [],
        aggregates,
        rollups: [],
        topLists: [],
        ledger: undefined,
        importId: 7,
      },
      startMs,
      (commit) => commit(),
    );
    await database.batches.closeWindows(startMs + 10 * minuteMs, (commit) => commit());
    const { windows } = database;
    t.truthy(windows.folds.due(windows.closedMax, startMs + 10 * minuteMs));
    await takeBack(database.writing, 7);
    await windows.forget(7, database.writing);
    t.is(windows.folds.due(windows.closedMax, startMs + dayMs), undefined);
  } finally {
    await database.close();
    await rm(folder, { recursive: true });
  }
});

async function assertAgree(database: Database, requests: readonly RequestEvent[]): Promise<void> {
  const reads = new ReadPool(database.reading);
  for (const scope of scopes) {
    for (const level of levelsOf[scope]) {
      // Whole windows of the oldest age that has this level.
      const age = ages.findLast((each) => each[scope] <= level)!;
      const range = {
        fromMs: Math.floor((startMs - age.toMs - dayMs) / (level * 1000)) * level * 1000,
        toMs: startMs + dayMs,
      };
      const query = { ...range, level, scope, filter: {} };
      const read = await collect(streamRollups((run) => reads.use(run), query, database.windows.snapshot(query), 7));
      const expected = rollUp(
        requests.filter(
          ({ timeMs }) => timeMs >= range.fromMs && ages.find((each) => timeMs >= startMs - each.toMs)![scope] <= level,
        ),
        level,
        scope,
      );
      assertSame(totals(read), totals(expected), `${scope} ${level}`);
    }
  }
  const counts = new Map<string, HostCounts>();
  const query = { parts: [{ fromMs: 0, toMs: startMs + 2 * dayMs, level: 86_400 as Level }], filter: {} };
  database.windows.addHosts(counts, query);
  const counted = await reads.use((run) => countHosts(run, query, database.windows.snapshot(), new Map(counts)));
  const sum = (of: (host: HostCounts) => number): number => counted.reduce((all, host) => all + of(host), 0);
  const numbers = [
    sum(({ requests: some }) => some),
    sum(({ errors }) => errors),
    sum(({ clientErrors }) => clientErrors),
    sum(({ bytes }) => bytes),
  ];
  const isIn =
    (from: number) =>
    ({ status }: RequestEvent): boolean =>
      status >= from && status < from + 100;
  const expected = [
    requests.length,
    requests.filter(isIn(500)).length,
    requests.filter(isIn(400)).length,
    requests.reduce((all, { size }) => all + size, 0),
  ];
  if (numbers.join() !== expected.join()) throw new Error(`Counted ${numbers.join()} and not ${expected.join()}.`);
}

function totals(rows: readonly RollupRow[]): Map<string, Aggregate> {
  const sums = new Map<string, Aggregate>();
  for (const { level, windowMs, source, host, cells } of rows) {
    for (const { method, status, ...aggregate } of cells) {
      const key = JSON.stringify([level, windowMs, source, host ?? null, method, status]);
      if (!sums.has(key)) sums.set(key, emptyAggregate());
      mergeAggregate(sums.get(key)!, aggregate);
    }
  }
  return sums;
}

function assertSame(
  read: ReadonlyMap<string, Aggregate>,
  expected: ReadonlyMap<string, Aggregate>,
  what: string,
): void {
  const textOf = (sums: ReadonlyMap<string, Aggregate>): string =>
    [...sums]
      .map(
        ([key, { count, sizeSum, durationSumMs, durationMaxMs, histogram }]) =>
          `${key} ${count} ${sizeSum} ${durationSumMs} ${durationMaxMs} ${histogram.pack()}`,
      )
      .sort()
      .join('\n');
  if (textOf(read) !== textOf(expected)) throw new Error(`${what}:\n${textOf(read)}\nand not\n${textOf(expected)}`);
}
