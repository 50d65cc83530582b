import test from 'ava';
import fc from 'fast-check';
import { createRollupLadder } from './rollup-ladder.js';
import { addEvent, addTally, emptyTally, levels, seriesKey, windowStart, type RollupRow, type Tally } from './rollup.js';
import type { RequestEvent } from './request-event.js';

const dayMs = 86_400_000;
const startMs = Date.UTC(2026, 10, 23);

const event = fc.record({
  timeMs: fc.integer({ min: startMs - dayMs, max: startMs + dayMs }),
  host: fc.constantFrom('a.example', 'b.example', '_other'),
  method: fc.constantFrom('GET', 'POST'),
  status: fc.constantFrom(200, 404, 500, 101, 0),
  durationMs: fc.integer({ min: 0, max: 100_000 }),
  size: fc.integer({ min: 0, max: 1e9 }),
}).map((given): RequestEvent => ({
  source: 'caddy', timeNs: 0, bytesRead: 0, uri: '/', endpoint: '', clientIp: '', userAgent: '', referrer: '', protocol: '', tls: '', upstreamMs: null, requestId: '', ...given,
}));

/** Each event goes to one of three collectors, after which that collector may flush, restart, or let minutes pass. */
const step = fc.record({
  event,
  collector: fc.nat({ max: 2 }),
  then: fc.constantFrom('nothing', 'flush', 'restart', 'ten minutes pass'),
});

test('any split of events over windows, flushes, restarts and collectors adds up to the same totals at every level', (t) => {
  fc.assert(fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 30 }), (steps, openRowsMax) => {
    const stored = new Map<string, RollupRow>();
    const newLadder = (): ReturnType<typeof createRollupLadder> => createRollupLadder({ openRowsMax });
    const ladders = [newLadder(), newLadder(), newLadder()];
    let nowMs = startMs;
    const flush = (at: number): void => {
      for (const row of ladders[at]!.drain(nowMs)) stored.set(rowKey(row), row);
    };
    for (const { event: each, collector, then } of steps) {
      ladders[collector]!.add(each);
      if (then !== 'nothing') flush(collector);
      if (then === 'restart') ladders[collector] = newLadder();
      if (then === 'ten minutes pass') nowMs += 600_000;
    }
    for (const at of ladders.keys()) flush(at);

    for (const level of levels) {
      const exact = totals(steps.map(({ event: each }) => {
        const tally = emptyTally();
        addEvent(tally, each);
        return { key: `${windowStart(each.timeMs, level)} ${seriesKey(each)}`, tally };
      }));
      const read = totals([...stored.values()].filter((row) => row.level === level)
        .map((row) => ({ key: `${row.windowMs} ${seriesKey(row.series)}`, tally: row })));
      assertSame(read, exact);
    }
  }), { numRuns: 200 });
  t.pass();
});

test('a window that is open is rewritten in place', (t) => {
  const ladder = createRollupLadder();
  const [one] = fc.sample(event, { numRuns: 1, seed: 1 });
  ladder.add(one!);
  const first = ladder.drain(startMs);
  ladder.add(one!);
  const second = ladder.drain(startMs + 1000);
  t.is(first.length, levels.length);
  t.deepEqual(second.map(rowKey), first.map(rowKey));
  t.true(first.every(({ count }) => count === 1), 'an earlier row does not change with a later one');
  t.true(second.every(({ count }) => count === 2));
});

test('only what changed is written', (t) => {
  const ladder = createRollupLadder();
  for (const each of fc.sample(event, { numRuns: 50, seed: 2 })) ladder.add(each);
  ladder.drain(startMs);
  t.deepEqual(ladder.drain(startMs), []);
});

test('a row that was closed is never written again: a late request opens one of its own', (t) => {
  const ladder = createRollupLadder();
  const [one] = fc.sample(event, { numRuns: 1, seed: 3 });
  ladder.add(one!);
  const first = ladder.drain(one!.timeMs);
  ladder.add({ ...one!, timeMs: one!.timeMs + 40 * dayMs });
  ladder.drain(one!.timeMs + 40 * dayMs); // closes what is old
  ladder.add(one!);
  const late = ladder.drain(one!.timeMs + 40 * dayMs);
  t.is(late.length, levels.length);
  t.deepEqual(new Set([...first, ...late].map(rowKey)).size, 2 * levels.length);
  t.true(late.every(({ count }) => count === 1));
});

test('a log of hours that comes in minutes does not keep all its windows open, whatever the clock says', (t) => {
  const ladder = createRollupLadder({ openRowsMax: 100 });
  const [one] = fc.sample(event, { numRuns: 1, seed: 4 });
  const idsAt = (timeMs: number): Map<number, number> => {
    ladder.add({ ...one!, timeMs });
    return new Map(ladder.drain(startMs + dayMs).map(({ level, rowId }) => [level, rowId]));
  };
  const first = idsAt(startMs);
  t.deepEqual(idsAt(startMs), first, 'a few stay open');
  for (let minute = 0; minute < 60; minute += 1) idsAt(startMs + minute * 60_000);
  const again = idsAt(startMs);
  t.notDeepEqual([again.get(10), again.get(60)], [first.get(10), first.get(60)]);
  t.deepEqual([again.get(3600), again.get(86_400)], [first.get(3600), first.get(86_400)]);
});

function rowKey(row: RollupRow): string {
  return `${row.level} ${row.windowMs} ${row.rowId} ${seriesKey(row.series)}`;
}

function totals(parts: readonly { key: string; tally: Tally }[]): Map<string, Tally> {
  const sums = new Map<string, Tally>();
  for (const { key, tally } of parts) {
    const sum = sums.get(key) ?? emptyTally();
    addTally(sum, tally);
    sums.set(key, sum);
  }
  return sums;
}

function assertSame(read: ReadonlyMap<string, Tally>, exact: ReadonlyMap<string, Tally>): void {
  if (read.size !== exact.size) throw new Error(`${read.size} windows and series instead of ${exact.size}`);
  for (const [key, wanted] of exact) {
    const got = read.get(key);
    if (got === undefined) throw new Error(`${key} is missing`);
    for (const name of ['count', 'durationSumMs', 'durationMaxMs', 'sizeSum'] as const) {
      if (got[name] !== wanted[name]) throw new Error(`${key}: ${name} is ${got[name]} instead of ${wanted[name]}`);
    }
    if (got.histogram.pack() !== wanted.histogram.pack()) throw new Error(`${key}: the histograms differ`);
  }
}
