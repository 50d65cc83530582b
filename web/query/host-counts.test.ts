import test from 'ava';
import fc from 'fast-check';
import { levelsOf } from '../../shared/rollup/rollup.js';
import { createChanges } from '../../shared/store/changes.js';
import type { HostCounts, HostCountsQuery } from '../../shared/store/store.js';
import { alignRange, coverRange } from '../../shared/time-range.js';
import { HostCountsCache, refineOpen } from './host-counts.js';

const nowMs = Date.parse('2026-11-23T20:05:30Z');
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const aDay = {
  parts: [
    { level: 3600 as const, fromMs: nowMs - (nowMs % hourMs) - 23 * hourMs, toMs: nowMs - (nowMs % hourMs) + hourMs },
  ],
  filter: {},
};

interface Request {
  readonly host: string;
  readonly timeMs: number;
}

/** A store of requests, with a cache over it. */
function start({ isNotified = true, hostsMax = 1000 } = {}) {
  const requests: Request[] = [];
  const queries: HostCountsQuery[] = [];
  const changes = createChanges();
  const state = { clockMs: 0, failure: undefined as Error | undefined };
  const count = ({ parts }: Pick<HostCountsQuery, 'parts'>): HostCounts[] => {
    const counts = new Map<string, HostCounts>();
    for (const { host, timeMs } of requests) {
      if (!parts.some(({ fromMs, toMs }) => timeMs >= fromMs && timeMs < toMs)) continue;
      const found = counts.get(host) ?? { source: 'caddy', host, requests: 0, errors: 0, clientErrors: 0, bytes: 0 };
      counts.set(host, { ...found, requests: found.requests + 1, bytes: found.bytes + 10 });
    }
    return [...counts.values()].sort(byHost);
  };
  const read = (query: HostCountsQuery): Promise<HostCounts[]> => {
    queries.push(query);
    return state.failure === undefined ? Promise.resolve(count(query)) : Promise.reject(state.failure);
  };
  const cache = new HostCountsCache({
    read,
    changes: isNotified ? changes : undefined,
    hostsMax,
    clock: () => state.clockMs,
  });
  return {
    state,
    count,
    changes,
    add(...added: readonly Request[]): void {
      requests.push(...added);
      const rollups = added.flatMap(({ timeMs }) =>
        levelsOf.host.map((level) => ({
          level,
          windowMs: alignRange({ fromMs: timeMs, toMs: timeMs + 1 }, level).fromMs,
          source: 'caddy',
          host: undefined,
        })),
      );
      changes.tell({ rollups, topLists: [] });
    },
    get: async (query: HostCountsQuery = aDay): Promise<HostCounts[]> =>
      (await cache.get(query, nowMs, new AbortController().signal)).sort(byHost),
    /** Parts read since the last call. */
    parts: () => queries.splice(0).flatMap(({ parts }) => parts),
  };
}

function byHost(one: HostCounts, other: HostCounts): number {
  return one.host < other.host ? -1 : 1;
}

test('returns the same counts as the store after any writes between reads', async (t) => {
  const requests = fc.array(
    fc.record({ host: fc.constantFrom('a', 'b', 'c'), agoMs: fc.oneof(fc.nat(2 * hourMs), fc.nat(3 * dayMs)) }),
    { maxLength: 5 },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(requests, { maxLength: 6 }),
      fc.constantFrom(...levelsOf.host),
      async (batches, finest) => {
        const { add, get, count } = start();
        const range = alignRange({ fromMs: nowMs - 2 * dayMs, toMs: nowMs }, finest);
        const query = {
          parts: coverRange(
            range,
            levelsOf.host.filter((level) => level >= finest),
          ),
          filter: {},
        };
        for (const batch of batches) {
          add(...batch.map(({ host, agoMs }) => ({ host, timeMs: nowMs - agoMs })));
          t.deepEqual(await get(query), count(query));
        }
      },
    ),
  );
});

test('reads closed windows once, and only the last minutes again', async (t) => {
  const { add, get, parts } = start();
  add({ host: 'a', timeMs: nowMs - 5 * hourMs }, { host: 'a', timeMs: nowMs });
  t.like(await get(), [{ host: 'a', requests: 2, bytes: 20 }]);
  t.deepEqual(
    parts().map(({ level }) => level),
    [3600, 60, 60],
    'whole hours, and minutes of the current one',
  );
  add({ host: 'b', timeMs: nowMs });
  t.like(await get(), [
    { host: 'a', requests: 2 },
    { host: 'b', requests: 1 },
  ]);
  t.deepEqual(parts(), [
    { level: 60, fromMs: Date.parse('2026-11-23T20:04:00Z'), toMs: Date.parse('2026-11-23T21:00:00Z') },
  ]);
  add({ host: 'b', timeMs: nowMs - 5 * hourMs });
  t.like(await get(), [{ host: 'a' }, { host: 'b', requests: 2 }]);
  t.deepEqual(
    parts()
      .map(({ level }) => level)
      .sort(),
    [3600, 60],
  );
});

test('refines an open day to its hours and minutes', (t) => {
  const fromMs = Date.parse('2026-11-22T00:00:00Z');
  const parts = refineOpen([{ level: 86_400, fromMs, toMs: fromMs + 2 * dayMs }], nowMs);
  t.deepEqual(
    parts.map(({ level, fromMs: startMs }) => [level, new Date(startMs).toISOString().slice(8, 16)]),
    [
      [86_400, '22T00:00'],
      [3600, '23T00:00'],
      [60, '23T20:00'],
    ],
  );
  t.is(parts.at(-1)!.toMs, fromMs + 2 * dayMs);
});

test('reads everything again after the contents of the store are exchanged', async (t) => {
  const { get, parts, changes } = start();
  await get();
  parts();
  changes.emitReplaced();
  await get();
  t.is(parts().length, 3);
});

test('expires closed windows if other processes write, recent ones sooner', async (t) => {
  const { add, get, parts, state } = start({ isNotified: false });
  await get();
  add({ host: 'a', timeMs: nowMs - 5 * hourMs });
  state.clockMs = 30_000; // the last whole hour ended 330 s ago, and the last whole minute 90 s
  parts();
  t.deepEqual(await get(), []);
  t.deepEqual(
    parts().map(({ level }) => level),
    [60, 60],
  );
  state.clockMs = 33_001;
  t.like(await get(), [{ host: 'a' }]);
});

test('does not cache errors', async (t) => {
  const { add, get, state } = start();
  state.failure = new Error('no store');
  await t.throwsAsync(get(), { message: 'no store' });
  state.failure = undefined;
  add({ host: 'a', timeMs: nowMs });
  t.is((await get()).length, 1);
});

test('evicts the least recently used entries beyond the limit', async (t) => {
  const { add, get, parts } = start({ hostsMax: 3 });
  add({ host: 'a', timeMs: nowMs - 5 * hourMs }, { host: 'b', timeMs: nowMs - 5 * hourMs });
  await get();
  await get({ ...aDay, filter: { method: 'GET' } });
  parts();
  await get({ ...aDay, filter: { method: 'GET' } });
  t.deepEqual(
    parts().map(({ level }) => level),
    [60],
  );
  await get();
  t.true(parts().some(({ level }) => level === 3600));
});
