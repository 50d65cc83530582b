import test from 'ava';
import fc from 'fast-check';
import { event } from '../../test/web-samples.js';
import { createTopListAggregator } from '../../shared/top-list/top-list-aggregator.js';
import { topLevels, type TopRow } from '../../shared/top-list/top-row.js';
import { topListsOfRequests } from '../../shared/top-list/top-lists-of-requests.js';
import { parseQuery } from './query.js';
import { groupBy } from '../../shared/group-by.js';
import { coverRange } from '../../shared/time-range.js';
import { listOf, topListsDigestOf } from '../stats/top-lists.js';
import { readTopListsFrom, topRange, type TopListsReader } from './read-top-lists.js';

const nowMs = Date.UTC(2026, 10, 23, 20, 17, 33);
const dayMs = 86_400_000;

test('covers a range with few whole windows without gaps, of which only the finest can be open', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 60_000, max: 400 * dayMs }),
      fc.integer({ min: 0, max: 500 * dayMs }),
      (lengthMs, agoMs) => {
        const { range, level: finest } = topRange({ fromMs: nowMs - agoMs - lengthMs, toMs: nowMs - agoMs }, nowMs);
        const parts = coverRange(
          range,
          topLevels.filter((each) => each >= finest),
          nowMs - 10_000,
        );
        let atMs = range.fromMs;
        let windows = 0;
        for (const { fromMs, toMs, level } of parts) {
          if (fromMs !== atMs || toMs <= fromMs) throw new Error(`a part from ${fromMs} to ${toMs} after ${atMs}`);
          if (fromMs % (level * 1000) !== 0 || toMs % (level * 1000) !== 0)
            throw new Error(`a window of ${level} s is cut`);
          if (level !== finest && toMs > nowMs) throw new Error(`a window of ${level} s is open`);
          windows += (toMs - fromMs) / (level * 1000);
          atMs = toMs;
        }
        return atMs === range.toMs && windows <= 2 * (9 + 5 + 23) + 61 + lengthMs / dayMs;
      },
    ),
    { numRuns: 1000 },
  );
  t.pass();
});

test('reads the last hour by minute, and whole days by day', (t) => {
  const levelsOf = (from: string): number[] => {
    const { range, level } = topRange(parseQuery({ from }, nowMs), nowMs);
    return coverRange(
      range,
      topLevels.filter((each) => each >= level),
      nowMs - 10_000,
    ).map((part) => part.level);
  };
  t.deepEqual(levelsOf('now-15m'), [60]);
  t.deepEqual(levelsOf('now-1h'), [60, 600, 60]);
  t.deepEqual(levelsOf('now-6h'), [600, 3600, 600]);
  t.deepEqual(levelsOf('now-7d'), [3600, 86_400, 3600]);
  t.deepEqual(levelsOf('now-100d'), [86_400]);
});

test('returns the same lists from stored rows as from raw requests', async (t) => {
  const requests = Array.from({ length: 3000 }, (_, at) =>
    event({
      timeMs: nowMs - ((at * 7919) % (5 * 3_600_000)),
      uri: `/${at % 7}?${at}`,
      clientIp: `192.0.2.${at % 30}`,
      userAgent: at % 3 === 0 ? 'curl/8.5.0' : 'Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0',
      status: at % 10 === 0 ? 502 : 200,
      durationMs: at % 100,
      size: at,
    }),
  );
  const ladder = createTopListAggregator();
  const rows: TopRow[] = [];
  for (const request of requests) ladder.add(request);
  rows.push(...ladder.drain(nowMs, { all: true }));
  const store: TopListsReader = {
    readTopWindows: ({ level, kinds }, { fromMs, toMs }) =>
      Promise.resolve(
        [
          ...groupBy(
            rows.filter(
              (row) => row.level === level && kinds.includes(row.kind) && row.windowMs >= fromMs && row.windowMs < toMs,
            ),
            ({ windowMs }) => windowMs,
          ),
        ].map(([windowMs, ofWindow]) => ({ windowMs, digest: topListsDigestOf(ofWindow) })),
      ),
    topListsOfRequests: ({ fromMs, toMs, kinds, valuesMax }) => {
      const within = requests.filter(({ timeMs }) => timeMs >= fromMs && timeMs < toMs);
      return Promise.resolve({
        bySource: topListsOfRequests(within.slice(0, requestsMax), { kinds, valuesMax }),
        ofNewest: within.length > requestsMax ? requestsMax : undefined,
      });
    },
  };
  let requestsMax = 10_000;
  const read = async (raw: Record<string, string>) =>
    await readTopListsFrom(store, parseQuery(raw, nowMs), {
      dimensions: ['path', 'user_agent', 'client'],
      valuesMax: 100,
      nowMs,
    });
  for (const from of ['now-15m', 'now-1h', 'now-6h']) {
    const [byRows, byRequests] = await Promise.all([read({ from }), read({ from, method: 'GET' })]);
    for (const dimension of ['path', 'user_agent', 'client', 'browser', 'bot', 'referrer'] as const) {
      const figures = ({ bySource }: typeof byRows) =>
        [...listOf(bySource.get('caddy'), dimension).values].map(
          ([
            value,
            {
              requests: count,
              errors,
              bytes,
              latencyMs: { p95 },
              missedMax,
            },
          ]) => [value, count, errors, bytes, p95, missedMax],
        );
      t.deepEqual(figures(byRows), figures(byRequests), `${from} ${dimension}`);
    }
    t.is(byRows.bySource.get('caddy')?.clients, 30);
    t.is(byRequests.bySource.get('caddy')?.clients, 30);
  }
  t.is((await read({})).ofNewest, undefined);
  requestsMax = 100;
  t.is((await read({ method: 'GET' })).ofNewest, 100);
  t.deepEqual(
    topLevels.filter((level) => !rows.some((row) => row.level === level)),
    [],
  );
});
