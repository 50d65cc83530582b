import { StoreError } from '../../errors.js';
import type { RequestEvent } from '../../request-event.js';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import type { RollupRow } from '../../rollup/rollup.js';
import type { Store } from '../store.js';
import { holdsRollups, sameRollups } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, dayMs, hourMs, request, series, writerOf } from './samples.js';

/** Declares the tests of rollup rows. */
export function declareRollups(declare: Declare): void {
  declare(
    'adds up batches of one or several writers in the rollups of both scopes, even after a restart',
    async (t, opened) => {
      const requests = Array.from({ length: 60 }, (_, index) =>
        request({
          timeMs: hourMs + 1009 * index,
          timeNs: index,
          source: ['caddy', 'app'][index % 2]!,
          host: ['a.example', 'b.example', ''][index % 3]!,
          method: ['GET', 'PUT'][(index % 5) % 2]!,
          status: [200, 404, 503][(index % 7) % 3]!,
          durationMs: 1.5 ** (index % 30),
          size: index,
        }),
      );
      const writers = [writerOf('collector-1'), writerOf('collector-2')];
      const hold = async (store: Store, some: readonly RequestEvent[]): Promise<void> => {
        for (const [level, scope] of [
          [10, 'all'],
          [60, 'all'],
          [60, 'host'],
          [86_400, 'host'],
        ] as const)
          await holdsRollups(t, store, some, { level, scope });
      };
      for (let at = 0; at < 40; at += 10)
        await opened.store.write(writers[(at / 10) % 2]!({ requests: requests.slice(at, at + 10) }));
      await hold(opened.store, requests.slice(0, 40));
      const reopened = await opened.reopen();
      await hold(reopened, requests.slice(0, 40));
      for (let at = 40; at < 60; at += 10)
        await reopened.write(writers[(at / 10) % 2]!({ requests: requests.slice(at, at + 10) }));
      await hold(reopened, requests);
    },
  );

  declare(
    'reads the oldest window of each level and the newest of all by source, with any row ids, and none of an empty store',
    async (t, { store }) => {
      t.deepEqual([...(await store.readStoredWindows())], []);
      const requests = [
        request({ timeMs: hourMs + 20_001, source: 'app' }),
        request({ timeMs: hourMs + 30_000 }),
        request({ timeMs: hourMs + 19_999 }),
        request({ timeMs: hourMs + 3_600_000 }),
      ];
      await store.write(batchOf({ requests }));
      const stored = await store.readStoredWindows();
      const of = (source: string) => [
        [...stored.get(source)!.oldest].sort(([one], [other]) => one - other),
        stored.get(source)!.newestMs,
      ];
      t.deepEqual(
        [stored.size, of(series.source)],
        [
          2,
          [
            [
              [10, hourMs + 10_000],
              [60, hourMs],
              [600, hourMs],
              [3600, hourMs],
              [86_400, dayMs],
            ],
            hourMs + 3_600_000,
          ],
        ],
      );
      t.deepEqual(of('app'), [
        [
          [10, hourMs + 20_000],
          [60, hourMs],
          [600, hourMs],
          [3600, hourMs],
          [86_400, dayMs],
        ],
        hourMs + 20_000,
      ]);
    },
  );

  declare('includes a window in a range if it starts there, with any row id and any range', async (t, { store }) => {
    const requests = [-2, -1, 0, 1, 2, 3].flatMap((step) =>
      [0, 5, 9999].map((offsetMs) => request({ timeMs: hourMs + step * 10_000 + offsetMs })),
    );
    await store.write(batchOf({ requests }));
    for (const [from, to] of [
      [0, 20_000],
      [0, 10_000],
      [0, 1],
      [1, 10_000],
      [1, 10_001],
      [-1, 0],
      [-1, 1],
      [8000, 9000],
      [-10_000, 30_001],
      [-3000, 27_000],
    ] as const) {
      const range = { fromMs: hourMs + from, toMs: hourMs + to };
      const expected = rollUp(requests, 10).filter((row) => row.windowMs >= range.fromMs && row.windowMs < range.toMs);
      sameRollups(
        t,
        await store.readRollups({ ...range, level: 10, scope: 'all', filter: {} }),
        expected,
        `${from} to ${to}`,
      );
    }
  });

  declare(
    'reads a window whole when its range ends within it, and not at all when it starts before the range',
    async (t, { store }) => {
      const requests = [0, 5, 59].map((minute) => request({ timeMs: hourMs + minute * 60_000 }));
      await store.write(batchOf({ requests }));
      for (const scope of ['all', 'host'] as const) {
        const read = (from: number, to: number): Promise<RollupRow[]> =>
          store.readRollups({ fromMs: hourMs + from, toMs: hourMs + to, level: 3600, scope, filter: {} });
        sameRollups(t, await read(0, 1), rollUp(requests, 3600, scope));
        t.deepEqual(await read(1, 3_600_000), []);
      }
    },
  );

  declare(
    'rejects a filter of rollup rows by path, client, user agent, referrer or request id',
    async (t, { store }) => {
      for (const filter of [
        { path: '/' },
        { client: '192.0.2.0' },
        { userAgent: 'curl' },
        { referrer: '' },
        { requestId: '7' },
      ]) {
        const error = await t.throwsAsync(store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter }), {
          instanceOf: StoreError,
          message: new RegExp(Object.keys(filter).join()),
        });
        t.is(error.action, 'hold');
      }
      const byHost = await t.throwsAsync(
        store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: { host: 'a.example' } }),
        { instanceOf: StoreError, message: /by host/ },
      );
      t.is(byHost.action, 'hold');
    },
  );
}
