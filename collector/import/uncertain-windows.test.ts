import test from 'ava';
import { emptyAggregate, levels, windowStart, type RollupRow } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';
import { event } from '../../test/web-samples.js';
import { createUncertainWindows } from './uncertain-windows.js';

const hourMs = Date.UTC(2026, 10, 23, 20);
const minuteMs = 60_000;

/** A store of rollup rows in memory. */
function storeOf(rows: readonly RollupRow[], reads: number[] = []): Pick<Store, 'readRollups'> {
  return {
    readRollups({ fromMs, toMs, level }) {
      reads.push(level);
      return Promise.resolve(
        rows.filter((row) => row.level === level && row.windowMs >= fromMs && row.windowMs < toMs),
      );
    },
  };
}

function rowsAt(timeMs: number, sampledOut: number): RollupRow[] {
  const { source, method, status } = event({});
  return levels.map((level) => ({
    level,
    windowMs: windowStart(timeMs, level),
    rowId: 1,
    source,
    host: undefined,
    cells: [{ ...emptyAggregate(), method, status, count: 10, sampledOut }],
  }));
}

/** Imported requests of the source `caddy`: the same number in each hour. */
function imported(count: number): { countOf: (hourMs: number, source: string) => number } {
  return { countOf: (_, source) => (source === 'caddy' ? count : 0) };
}

test('reports requests without rows as uncertain in hours that count more than was imported', async (t) => {
  const store = storeOf(rowsAt(hourMs, 0));
  const requests = [hourMs, hourMs + 600_000, hourMs + 3_600_000].map((timeMs) => event({ timeMs }));
  for (const [count, uncertain] of [
    [0, true],
    [9, true],
    [10, false],
  ] as const) {
    const windows = createUncertainWindows(store, imported(count), { now: () => hourMs + 100 * 86_400_000 });
    await windows.load(requests);
    t.deepEqual(
      requests.map((request) => windows.isUncertain(request, hourMs + 86_400_000)),
      [uncertain, uncertain, false],
      `${count} of 10 were imported`,
    );
    t.deepEqual(
      requests.map((request) => windows.isUncertain(request, hourMs)),
      [false, false, false],
      'rows are stored',
    );
    t.false(
      windows.isUncertain(event({ timeMs: hourMs, source: 'app' }), hourMs + 86_400_000),
      'of that source nothing is counted',
    );
  }
});

test('reports sampled windows within an hour, at the finest level that their age allows', async (t) => {
  for (const [ageDays, lengthMs] of [
    [0, 10_000],
    [3, minuteMs],
    [20, 10 * minuteMs],
    [100, 60 * minuteMs],
  ] as const) {
    const store = storeOf([...rowsAt(hourMs + lengthMs, 9), ...rowsAt(hourMs + 5 * lengthMs, 0)]);
    const windows = createUncertainWindows(store, imported(0), { now: () => hourMs + 600_000 + ageDays * 86_400_000 });
    const requests = [0, lengthMs, 2 * lengthMs - 1, 2 * lengthMs, 5 * lengthMs].map((offsetMs) =>
      event({ timeMs: hourMs + offsetMs }),
    );
    await windows.load(requests);
    t.deepEqual(
      requests.map((request) => windows.isUncertain(request, -Infinity)),
      [false, true, true, false, false],
      `${ageDays} days`,
    );
  }
});

test('ignores later additions to a window, and loads hours without sampling once and no finer windows', async (t) => {
  const rows = rowsAt(hourMs + 3_600_000, 0);
  const reads: number[] = [];
  const windows = createUncertainWindows(storeOf(rows, reads), imported(0), { now: () => hourMs + 7_200_000 });
  const requests = [hourMs, hourMs + 3_600_000].map((timeMs) => event({ timeMs }));
  await windows.load(requests);
  rows.push(...rowsAt(hourMs, 5), ...rowsAt(hourMs + 3_600_000, 5));
  await windows.load(requests);
  t.deepEqual(
    requests.map((request) => windows.isUncertain(request, -Infinity)),
    [false, false],
  );
  t.deepEqual(reads, [3600]);
});
