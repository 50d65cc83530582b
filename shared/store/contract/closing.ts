import { StoreError } from '../../errors.js';
import { holdsOnly, holdsRollups, sameRequests } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request, snapshot } from './samples.js';

/** Declares the tests of a store that is in use from several sides, and then closed. */
export function declareClosing(declare: Declare): void {
  declare('reads and writes concurrently', async (t, { store }) => {
    const requests = Array.from({ length: 300 }, (_, index) => request({ timeNs: index }));
    const running: Promise<unknown>[] = [];
    for (let at = 0; at < requests.length; at += 100) {
      // Separate writers: the rows of one writer are cumulative and have to be written in order.
      running.push(
        store.write(batchOf({ requests: requests.slice(at, at + 100), ledger: snapshot({ timeMs: hourMs + at }) })),
      );
      running.push(
        store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }),
        store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: {} }),
        store.readLedgers({ sinceMs: 0 }),
        store.ping(),
      );
    }
    await Promise.all(running);
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), requests.toReversed());
    await holdsRollups(t, store, requests, { level: 10, scope: 'all' });
    t.deepEqual(await store.readLedgers({ sinceMs: 0 }), [snapshot({ timeMs: hourMs + 200 })]);
  });

  declare(
    'waits for pending writes on close, can be closed again, and rejects everything afterwards',
    async (t, opened) => {
      const { store } = opened;
      const batch = batchOf({ requests: [request()], ledger: snapshot() });
      const writing = store.write(batch);
      await store.close();
      await writing;
      await store.close();
      const uses: [string, () => Promise<unknown>][] = [
        ['write', () => store.write(batchOf({ requests: [request()] }))],
        ['readRollups', () => store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: {} })],
        ['countHosts', () => store.countHosts({ parts: [{ ...aroundHour, level: 60 }], filter: {} })],
        ['readRequests', () => store.readRequests({ ...aroundHour, filter: {}, limit: 1 })],
        [
          'rollUpRequests',
          () => store.rollUpRequests({ ...aroundHour, level: 60, scope: 'all', filter: { path: '/' } }),
        ],
        ['listRequests', () => store.topListsOfRequests({ ...aroundHour, filter: {}, kinds: ['path'], valuesMax: 1 })],
        ['readTops', () => store.readTopLists({ ...aroundHour, level: 60, kinds: ['path'], filter: {} })],
        ['readLedgers', () => store.readLedgers({ sinceMs: 0 })],
        ['ping', () => store.ping()],
        ['pingToWrite', () => store.pingToWrite()],
      ];
      for (const [use, run] of uses) {
        const error = await t.throwsAsync(run(), { instanceOf: StoreError, message: /closed/ }, use);
        t.is(error.action, 'stop', use);
      }
      await holdsOnly(t, await opened.reopen(), batch);
    },
  );
}
