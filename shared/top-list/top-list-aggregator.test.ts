import test from 'ava';
import fc from 'fast-check';
import { createRandom } from '../../demo/random.js';
import { event } from '../../test/web-samples.js';
import { createZipf } from '../../test/zipf.js';
import { HyperLogLog } from '../sketch/hyperloglog.js';
import { latencyBucketOf, windowStart } from '../rollup/rollup.js';
import { createTopListAggregator } from './top-list-aggregator.js';
import { hostClientsLevels, requestDimensions, topLevels, topValueOf, type TopRow } from './top-row.js';
import { SpaceSaving } from '../sketch/space-saving.js';

const startMs = Date.UTC(2026, 10, 23);

const request = fc
  .record({
    timeMs: fc.integer({ min: startMs - 5_400_000, max: startMs + 5_400_000 }),
    source: fc.constantFrom('caddy', 'app'),
    host: fc.constantFrom('a.example', 'b.example'),
    status: fc.constantFrom(200, 502),
    uri: fc.constantFrom('', '/', '/a', '/a?b=c', '/b?c', '?d'),
    userAgent: fc.constantFrom('', 'curl/8.0', 'Firefox'),
    referrer: fc.constantFrom('', 'https://example.org/', 'https://example.org/?q=1', 'https://example.org/#top'),
    clientIp: fc.constantFrom('', '192.0.2.0', '198.51.100.0', '2001:db8::'),
  })
  .map(event);

const step = fc.record({
  request,
  collector: fc.nat({ max: 2 }),
  then: fc.constantFrom('nothing', 'flush', 'restart', 'three seconds pass', 'ten minutes pass'),
});

test('adds up to the same lists at every level, for any split over windows, flushes, restarts and collectors', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), fc.integer({ min: 1, max: 30 }), (steps, openMax) => {
      const stored = new Map<string, TopRow>();
      const newAggregator = (): ReturnType<typeof createTopListAggregator> =>
        createTopListAggregator({ listsOpenMax: openMax, clientsBytesMax: 600 * openMax });
      const ladders = [newAggregator(), newAggregator(), newAggregator()];
      let nowMs = startMs;
      const flush = (at: number, all: boolean): void => {
        for (const row of ladders[at]!.drain(nowMs, { all })) stored.set(keyOf(row), row);
      };
      for (const { request: each, collector, then } of steps) {
        ladders[collector]!.add(each);
        if (then !== 'nothing') flush(collector, then === 'restart');
        if (then === 'restart') ladders[collector] = newAggregator();
        if (then === 'three seconds pass') nowMs += 3000;
        if (then === 'ten minutes pass') nowMs += 600_000;
      }
      for (const at of ladders.keys()) flush(at, true);

      const requests = steps.map((each) => each.request);
      for (const level of topLevels) {
        const rows = [...stored.values()].filter((row) => row.level === level);
        const windows = new Set(requests.map(({ timeMs }) => windowStart(timeMs, level)));
        for (const windowMs of windows) {
          const inWindow = requests.filter(({ timeMs }) => windowStart(timeMs, level) === windowMs);
          for (const dimension of requestDimensions) {
            const exact = new SpaceSaving();
            for (const each of inWindow)
              if (topValueOf[dimension](each) !== '')
                exact.add(topValueOf[dimension](each), each, latencyBucketOf(each));
            const read = new SpaceSaving();
            for (const row of rows)
              if (row.windowMs === windowMs && row.kind === dimension) read.merge(SpaceSaving.unpack(row.packed));
            t.deepEqual(figuresOf(read), figuresOf(exact));
          }
          const exact = new Set(inWindow.flatMap(({ clientIp }) => clientIp || []));
          const read = new HyperLogLog();
          for (const row of rows)
            if (row.windowMs === windowMs && row.kind === 'unique_clients') read.merge(HyperLogLog.unpack(row.packed));
          t.is(read.count(), exact.size);
        }
      }
    }),
    { numRuns: 100 },
  );
});

test('finds the ten most frequent values of a Zipf distribution in merged rows, within the error bounds', (t) => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.double({ min: 1.1, max: 1.6, noNaN: true }),
      fc.integer({ min: 1, max: 4 }),
      fc.constantFrom(...topLevels),
      (seed, exponent, collectors, level) => {
        const rankOf = createZipf({ exponent, ranksMax: 20_000, random: createRandom(seed).next });
        const stored = new Map<string, TopRow>();
        const ladders = Array.from({ length: collectors }, () => createTopListAggregator());
        const exact = new Map<string, number>();
        const count = 20_000;
        for (let at = 0; at < count; at += 1) {
          const uri = `/${rankOf()}`;
          exact.set(uri, (exact.get(uri) ?? 0) + 1);
          ladders[at % collectors]!.add(event({ timeMs: startMs + Math.floor(at / 10) * 1000, uri }));
          if (at % 5000 === 4999)
            for (const ladder of ladders)
              for (const row of ladder.drain(startMs + at * 100, { all: true })) stored.set(keyOf(row), row);
        }
        const merged = new SpaceSaving({ entriesMax: Infinity });
        for (const row of stored.values())
          if (row.level === level && row.kind === 'path') merged.merge(SpaceSaving.unpack(row.packed));
        foundIn(merged, exact, count);
      },
    ),
    { numRuns: 20 },
  );
  t.pass();
});

/**
 * Throws unless the summary has the ten most frequent values, with counts within its bounds, and no other value that
 * clearly ranks before them.
 */
function foundIn(summary: SpaceSaving, exact: ReadonlyMap<string, number>, total: number): void {
  if (summary.total !== total || summary.absentMax > total / 100)
    throw new Error(`${summary.total} of ${total}; an absent value may have ${summary.absentMax}`);
  const entries = summary.entries();
  for (const { value, count, missedMax } of entries) {
    if (count > exact.get(value)! || exact.get(value)! > count + missedMax)
      throw new Error(`${value} has ${exact.get(value)}, and the entry says ${count} to ${count + missedMax}`);
  }
  const tenth = entries[9]!.count;
  const shown = new Set(entries.slice(0, 10).map(({ value }) => value));
  const byCount = new Map(entries.map((entry) => [entry.value, entry]));
  for (const [value, count] of [...exact].sort(([, a], [, b]) => b - a).slice(0, 10)) {
    const entry = byCount.get(value);
    if (entry === undefined)
      throw new Error(`${value} is missing, with ${count}, and an absent value has ${summary.absentMax} at most`);
    if (!shown.has(value) && entry.count + entry.missedMax < tenth)
      throw new Error(`${value} is not among the first ten, with ${count}, and cannot be: the tenth has ${tenth}`);
  }
}

test('writes a row immediately, rewrites it every few seconds, and once more when its window has ended', (t) => {
  const ladder = createTopListAggregator();
  const add = (): void => ladder.add(event({ timeMs: startMs, uri: '/a' }));
  const countsAt = (timeMs: number): string[] =>
    ladder.drain(timeMs).map((row) => `${row.level} ${SpaceSaving.unpack(row.packed).total}`);
  t.false(ladder.isDue(startMs));
  add();
  t.true(ladder.isDue(startMs));
  t.deepEqual(countsAt(startMs), ['60 1', '600 1', '3600 1', '86400 1']);
  add();
  t.deepEqual(countsAt(startMs + 1999), [], 'it was written just now');
  t.deepEqual(countsAt(startMs + 2000), ['60 2']);
  t.false(ladder.isDue(startMs + 4999));
  t.true(ladder.isDue(startMs + 5000), 'nothing need come in for what has changed to be written');
  t.deepEqual(countsAt(startMs + 5000), ['600 2']);
  add();
  t.deepEqual(countsAt(startMs + 60_000), ['60 3', '600 3', '3600 3', '86400 3']);
  t.deepEqual(countsAt(startMs + 86_400_000), []);
});

test('rewrites a row with the same id', (t) => {
  const ladder = createTopListAggregator();
  const keys = [0, 1].map(() => {
    ladder.add(event({ timeMs: startMs, uri: '/a', clientIp: '192.0.2.0' }));
    return ladder.drain(startMs, { all: true }).map(keyOf);
  });
  t.is(keys[0]?.length, 3 * topLevels.length + hostClientsLevels.length);
  t.deepEqual(keys[0], keys[1]);
});

test('closes windows of a log of hours that is imported in minutes, after writing them', (t) => {
  const ladder = createTopListAggregator({ listsOpenMax: 100, clientsBytesMax: 60_000 });
  const stored = new Map<string, TopRow>();
  const add = (timeMs: number): TopRow[] => {
    ladder.add(event({ timeMs, uri: '/a', clientIp: '192.0.2.0' }));
    const rows = ladder.drain(startMs + 86_400_000, { all: timeMs === startMs });
    for (const row of rows) stored.set(keyOf(row), row);
    return rows;
  };
  const idOf = (rows: readonly TopRow[], level: number): number =>
    rows.find((row) => row.level === level && row.kind === 'path')!.rowId;
  const first = add(startMs);
  for (let minute = 1; minute < 60; minute += 1) add(startMs + minute * 60_000);
  const reopened = add(startMs);
  t.not(idOf(reopened, 60), idOf(first, 60));
  t.is(idOf(reopened, 3600), idOf(first, 3600));
  for (const level of [60, 600, 3600, 86_400]) {
    const counts = [...stored.values()]
      .filter((row) => row.level === level && row.kind === 'path')
      .map(({ packed }) => SpaceSaving.unpack(packed).total);
    t.is(
      counts.reduce((sum, count) => sum + count, 0),
      61,
      `of level ${level}`,
    );
  }
});

test('creates no rows of a level for requests that are too old for it', (t) => {
  const ladder = createTopListAggregator();
  ladder.add(event({ timeMs: startMs - 8 * 86_400_000, uri: '/a' }));
  t.deepEqual(
    ladder.drain(startMs).map(({ level }) => level),
    [3600, 86_400],
  );
  ladder.add(event({ timeMs: startMs - 61 * 86_400_000, clientIp: '192.0.2.0' }));
  t.deepEqual(
    ladder
      .drain(startMs + 86_400_000, { all: true })
      .flatMap(({ kind, level }) => (kind === 'host_clients' ? [level] : [])),
    [86_400],
  );
});

test('continues to write rows when the clock is set back', (t) => {
  const ladder = createTopListAggregator();
  const drain = (nowMs: number): (string | number)[] => {
    ladder.add(event({ timeMs: startMs, uri: '/a' }));
    return ladder
      .drain(nowMs)
      .filter(({ kind }) => kind === 'path')
      .map(({ level }) => level);
  };
  t.deepEqual(drain(startMs + 86_400_000 / 2), [...topLevels]);
  t.deepEqual(drain(startMs), [...topLevels]);
  t.deepEqual(drain(startMs), [], 'they were written just now');
});

function keyOf({ level, windowMs, rowId, source, host, kind }: TopRow): string {
  return [level, windowMs, rowId, source, host, kind].join('\n');
}

function figuresOf(summary: SpaceSaving): unknown {
  return [
    summary.total,
    summary
      .entries()
      .map(({ histogram, ...entry }) => ({ ...entry, total: histogram.total }))
      .sort((a, b) => (a.value < b.value ? -1 : 1)),
  ];
}
