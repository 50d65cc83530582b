import type { RequestEvent } from '../../request-event.js';
import { sameRequests } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request, snapshot } from './samples.js';

/** Declares the tests of reading raw requests. */
export function declareRawRequests(declare: Declare): void {
  declare('returns nothing for a range without rows, an empty range and a reversed range', async (t, { store }) => {
    await store.write(batchOf({ requests: [request()], ledger: snapshot() }));
    const ranges = [
      { fromMs: hourMs + 3_600_000, toMs: hourMs + 7_200_000 },
      { fromMs: 0, toMs: 1000 },
      { fromMs: hourMs, toMs: hourMs },
      { fromMs: hourMs + 1000, toMs: hourMs - 1000 },
    ];
    for (const range of ranges) {
      t.deepEqual(await store.readRequests({ ...range, filter: {}, limit: 10 }), []);
      t.deepEqual(await store.readRollups({ ...range, level: 10, scope: 'all', filter: {} }), []);
    }
    t.deepEqual(await store.readLedgers({ sinceMs: hourMs + 1 }), []);
  });

  declare('includes the start of a range and excludes its end, to the nanosecond', async (t, { store }) => {
    const at = (timeMs: number, timeNs: number): RequestEvent => request({ timeMs, timeNs });
    const before = at(hourMs - 1, 999_999);
    const inside = [at(hourMs, 0), at(hourMs, 1), at(hourMs + 4999, 999_999)];
    const after = at(hourMs + 5000, 0);
    await store.write(batchOf({ requests: [before, ...inside, after] }));
    sameRequests(
      t,
      await store.readRequests({ fromMs: hourMs, toMs: hourMs + 5000, filter: {}, limit: 10 }),
      inside.toReversed(),
    );
  });

  declare('returns the newest requests of all series first, up to the limit', async (t, { store }) => {
    const requests = Array.from({ length: 200 }, (_, index) =>
      request({
        timeMs: hourMs + ((index * 7919) % 3_600_000),
        timeNs: index,
        host: `host-${index % 13}.example`,
        status: index % 2 === 0 ? 200 : 500,
      }),
    );
    await store.write(batchOf({ requests: requests.slice(0, 120) }));
    await store.write(batchOf({ requests: requests.slice(120) }));
    const newestFirst = requests.toSorted((a, b) => b.timeMs - a.timeMs || b.timeNs - a.timeNs);
    for (const limit of [0, 1, 2, 50, 199, 200, 201]) {
      sameRequests(
        t,
        await store.readRequests({ ...aroundHour, filter: {}, limit }),
        newestFirst.slice(0, limit),
        `limit ${limit}`,
      );
    }
    const failed = newestFirst.filter((one) => one.status === 500);
    sameRequests(
      t,
      await store.readRequests({ ...aroundHour, filter: { status: { min: 500, max: 599 } }, limit: 5 }),
      failed.slice(0, 5),
    );
    const host = newestFirst.filter((one) => one.host === 'host-3.example');
    sameRequests(
      t,
      await store.readRequests({ ...aroundHour, filter: { host: 'host-3.example' }, limit: 3 }),
      host.slice(0, 3),
    );
  });

  declare('finds the newest requests of a range of a year, even near its start', async (t, { store }) => {
    const yearMs = 365 * 86_400_000;
    const requests = [0, 1, 86_400_000, yearMs / 2, yearMs - 1].map((offsetMs) =>
      request({ timeMs: hourMs + offsetMs }),
    );
    await store.write(batchOf({ requests }));
    const newestFirst = requests.toReversed();
    for (const limit of [1, 2, 4, 5, 100]) {
      sameRequests(
        t,
        await store.readRequests({ fromMs: hourMs, toMs: hourMs + yearMs, filter: {}, limit }),
        newestFirst.slice(0, limit),
        `limit ${limit}`,
      );
    }
  });
}
