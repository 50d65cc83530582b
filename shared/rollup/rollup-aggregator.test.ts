import test from 'ava';
import fc from 'fast-check';
import { BatchAggregates, OpenRollups, rollUp } from './rollup-aggregator.js';
import { packCells, unpackCells } from './cells.js';
import {
  addEvent,
  mergeAggregate,
  emptyAggregate,
  levelsOf,
  type Cell,
  type RollupRow,
  type Aggregate,
} from './rollup.js';
import type { RequestEvent } from '../request-event.js';
import { emptyRequest } from '../../test/empty-request.js';

const dayMs = 86_400_000;
const startMs = Date.UTC(2026, 10, 23);

const event = fc
  .record({
    timeMs: fc.integer({ min: startMs - dayMs, max: startMs + dayMs }),
    host: fc.constantFrom('a.example', 'b.example', '_other'),
    method: fc.constantFrom('GET', 'POST'),
    status: fc.constantFrom(200, 404, 500, 101, 0),
    durationMs: fc.integer({ min: 0, max: 100_000 }),
    size: fc.integer({ min: 0, max: 1e9 }),
  })
  .map(
    (input): RequestEvent => ({
      ...emptyRequest,
      source: 'caddy',
      ...input,
    }),
  );

/** Each event goes to one of three collectors, after which that collector may flush, restart, or let minutes pass. */
const step = fc.record({
  event,
  collector: fc.nat({ max: 2 }),
  then: fc.constantFrom('nothing', 'flush', 'restart', 'ten minutes pass'),
});

test('adds up to the same rollups at every level and scope, for any split over windows, flushes, restarts and collectors', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 30 }), (steps, cellsMax) => {
      const stored = new Map<string, RollupRow>();
      const newCollector = (): Collector => new Collector({ cellsMax });
      const collectors = [newCollector(), newCollector(), newCollector()];
      let nowMs = startMs;
      const flush = (at: number): void => {
        for (const row of collectors[at]!.flush(nowMs)) stored.set(`${row.rowId} ${keyOf(row)}`, row);
      };
      for (const { event: each, collector, then } of steps) {
        collectors[collector]!.aggregates.add(each);
        if (then !== 'nothing') flush(collector);
        if (then === 'restart') collectors[collector] = newCollector();
        if (then === 'ten minutes pass') nowMs += 600_000;
      }
      for (const at of collectors.keys()) flush(at);

      const events = steps.map(({ event: each }) => each);
      for (const scope of ['all', 'host'] as const) {
        for (const level of [600, 3600, 86_400] as const) {
          assertSame(
            totals(
              [...stored.values()].filter(
                (row) => row.level === level && (row.host === undefined) === (scope === 'all'),
              ),
            ),
            totals(rollUp(events, level, scope)),
          );
        }
      }
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('rewrites an open window in place, without changing earlier copies of its rows', (t) => {
  const collector = new Collector();
  const [one] = fc.sample(event, { numRuns: 1, seed: 1 });
  const recent = { ...one!, timeMs: startMs };
  collector.aggregates.add(recent);
  const first = collector.flush(startMs);
  collector.aggregates.add(recent);
  const second = collector.flush(startMs + 1000);
  t.is(first.length, levelsOf.all.length + levelsOf.host.length);
  t.deepEqual(
    second.map((row) => `${row.rowId} ${keyOf(row)}`),
    first.map((row) => `${row.rowId} ${keyOf(row)}`),
  );
  t.true(first.every(({ cells }) => cells[0]!.count === 1));
  t.true(second.every(({ cells }) => cells[0]!.count === 2));
  t.deepEqual(collector.flush(startMs), [], 'only what changed is written');
});

test('closes no row for a batch without requests while many are open', (t) => {
  const open = new OpenRollups({ cellsMax: 50 });
  const [one] = fc.sample(event, { numRuns: 1, seed: 1 });
  const aggregates = new BatchAggregates(() => startMs);
  aggregates.add({ ...one!, timeMs: startMs });
  open.merge(aggregates.take(), startMs);
  open.merge([], startMs + 1000);
  t.deepEqual(open.closing(startMs + 1000), []);
  t.true(open.cells > 5, 'more than a tenth of the limit');
});

test('counts a request that is too old for a level at coarser levels only', (t) => {
  const [one] = fc.sample(event, { numRuns: 1, seed: 5 });
  for (const [ageMs, levels, ofHosts] of [
    [0, [10, 60, 600, 3600, 86_400], [60, 600, 3600, 86_400]],
    [dayMs, [60, 600, 3600, 86_400], [600, 3600, 86_400]],
    [30 * dayMs, [600, 3600, 86_400], [3600, 86_400]],
    [300 * dayMs, [3600, 86_400], [86_400]],
  ] as const) {
    const collector = new Collector();
    collector.aggregates.add({ ...one!, timeMs: startMs - ageMs });
    const rows = collector.flush(startMs);
    t.deepEqual(
      rows.filter(({ host }) => host === undefined).map(({ level }) => level),
      [...levels],
    );
    t.deepEqual(
      rows.filter(({ host }) => host !== undefined).map(({ level }) => level),
      [...ofHosts],
    );
  }
});

test('never rewrites a closed row: a late request opens another one', (t) => {
  const collector = new Collector();
  const [one] = fc.sample(event, { numRuns: 1, seed: 3 });
  const early = { ...one!, timeMs: startMs };
  collector.aggregates.add(early);
  const first = collector.flush(startMs);
  collector.aggregates.add({ ...early, timeMs: startMs + 2 * dayMs });
  collector.flush(startMs + 2 * dayMs); // closes what is old
  collector.aggregates.add(early);
  const late = collector.flush(startMs + 2 * dayMs);
  t.is(new Set([...first, ...late].map((row) => `${row.rowId} ${keyOf(row)}`)).size, first.length + late.length);
  t.true(late.every(({ cells }) => cells[0]!.count === 1));
});

test('closes windows of a log of hours that is imported in minutes, with any clock', (t) => {
  const collector = new Collector({ cellsMax: 200 });
  const [one] = fc.sample(event, { numRuns: 1, seed: 4 });
  const idsAt = (timeMs: number): Map<number, number> => {
    collector.aggregates.add({ ...one!, timeMs });
    return new Map(
      collector
        .flush(startMs)
        .filter(({ host }) => host === undefined)
        .map(({ level, rowId }) => [level, rowId]),
    );
  };
  const first = idsAt(startMs);
  t.deepEqual(idsAt(startMs), first, 'a few stay open');
  for (let minute = 0; minute < 60; minute += 1) idsAt(startMs + minute * 60_000);
  const again = idsAt(startMs);
  t.notDeepEqual([again.get(10), again.get(60)], [first.get(10), first.get(60)]);
  t.deepEqual([again.get(3600), again.get(86_400)], [first.get(3600), first.get(86_400)]);
});

test('unpacks cells as they were packed, including negative ones', (t) => {
  const text = fc.string({ unit: 'binary', maxLength: 20 }).map((value) => value.toWellFormed());
  const cell = fc.record({
    method: text,
    status: fc.nat(999),
    durations: fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { maxLength: 5 }),
    size: fc.nat(2 ** 43),
    sampledOut: fc.nat(3),
    isNegative: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(cell, { selector: ({ method, status }) => `${status} ${method}`, maxLength: 8 }),
      (input) => {
        const cells = input.map(({ method, status, durations, size, sampledOut, isNegative }): Cell => {
          const aggregate = emptyAggregate();
          for (const durationMs of durations) addEvent(aggregate, { method: 'GET', status: 200, durationMs, size });
          const sign = isNegative ? -1 : 1;
          return {
            ...aggregate,
            method,
            status,
            count: sign * aggregate.count,
            sizeSum: sign * aggregate.sizeSum,
            durationSumMs: sign * aggregate.durationSumMs,
            sampledOut: sign * sampledOut,
            histogram: isNegative ? aggregate.histogram.negated() : aggregate.histogram,
          };
        });
        const plain = (some: readonly Cell[]) =>
          JSON.stringify(
            some.map(
              ({ histogram, ...others }) => ({ ...others, total: histogram.total, histogram: histogram.pack() }),
              undefined,
            ),
          );
        return (
          plain(unpackCells(packCells(cells)).map((each) => ({ ...each }))).replaceAll('-0', '0') ===
          plain(
            cells.map(({ histogram, ...others }) => ({
              method: others.method,
              status: others.status,
              count: others.count,
              sampledOut: others.sampledOut,
              sizeSum: others.sizeSum,
              durationSumMs: others.durationSumMs,
              durationMaxMs: others.durationMaxMs,
              histogram,
            })),
          ).replaceAll('-0', '0')
        );
      },
    ),
  );
  t.throws(() => unpackCells('GET 200 1'), { instanceOf: RangeError, message: /"GET 200 1"/ });
});

/** Rolls requests up as a collector does for a store with cumulative rows. */
class Collector {
  readonly aggregates = new BatchAggregates(() => startMs);
  readonly #open: OpenRollups;

  constructor(options: ConstructorParameters<typeof OpenRollups>[0] = {}) {
    this.#open = new OpenRollups(options);
  }

  flush(nowMs: number): RollupRow[] {
    const rows = this.#open.copiesOf(this.#open.merge(this.aggregates.take(), nowMs));
    this.#open.close(this.#open.closing(nowMs));
    return rows;
  }
}

function keyOf({ level, windowMs, source, host }: RollupRow): string {
  return JSON.stringify([level, windowMs, source, host ?? null]);
}

function totals(rows: readonly RollupRow[]): Map<string, Aggregate> {
  const sums = new Map<string, Aggregate>();
  for (const row of rows) {
    for (const cell of row.cells) {
      const key = `${keyOf(row)} ${cell.method} ${cell.status}`;
      const sum = sums.get(key) ?? emptyAggregate();
      mergeAggregate(sum, cell);
      sums.set(key, sum);
    }
  }
  return sums;
}

function assertSame(read: ReadonlyMap<string, Aggregate>, exact: ReadonlyMap<string, Aggregate>): void {
  if (read.size !== exact.size) throw new Error(`${read.size} windows and series instead of ${exact.size}`);
  for (const [key, expected] of exact) {
    const got = read.get(key);
    if (got === undefined) throw new Error(`${key} is missing`);
    for (const name of ['count', 'durationSumMs', 'durationMaxMs', 'sizeSum'] as const) {
      if (got[name] !== expected[name]) throw new Error(`${key}: ${name} is ${got[name]} instead of ${expected[name]}`);
    }
    if (got.histogram.pack() !== expected.histogram.pack()) throw new Error(`${key}: the histograms differ`);
  }
}
