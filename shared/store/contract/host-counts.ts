import { groupBy } from '../../group-by.js';
import type { Filter } from '../store.js';
import { holdsRollups, takesSeries } from './assertions.js';
import type { Declare } from './declare.js';
import { batchOf, hourMs, request } from './samples.js';

/** Declares the test of counts by host. */
export function declareHostCounts(declare: Declare): void {
  declare('counts hosts over windows of several levels, under any filter', async (t, { store }) => {
    const requests = Array.from({ length: 90 }, (_, index) =>
      request({
        timeMs: hourMs - 3_000_000 + 60_013 * index,
        timeNs: index,
        source: ['caddy', 'app'][index % 2]!,
        host: ['a.example', 'b.example', ''][index % 3]!,
        method: ['GET', 'PUT'][(index % 5) % 2]!,
        status: [200, 404, 503][(index % 7) % 3]!,
        size: index,
      }),
    );
    for (let at = 0; at < 90; at += 45) await store.write(batchOf({ requests: requests.slice(at, at + 45) }));
    const parts = [
      { level: 600, fromMs: hourMs - 1_200_000, toMs: hourMs },
      { level: 3600, fromMs: hourMs, toMs: hourMs + 3_600_000 },
    ] as const;
    const inParts = requests.filter(({ timeMs }) => timeMs >= hourMs - 1_200_000 && timeMs < hourMs + 3_600_000);
    for (const filter of [
      {},
      { source: 'app' },
      { exceptSource: 'app' },
      { host: 'a.example' },
      { method: 'GET' },
      { status: { min: 500, max: 599 }, source: 'caddy' },
      { source: 'none' },
    ] satisfies Filter[]) {
      const expected = groupBy(
        inParts.filter((one) => takesSeries(filter, one)),
        ({ source, host }) => JSON.stringify([source, host]),
      );
      const counts = await store.countHosts({ parts, filter });
      t.deepEqual(
        counts.toSorted(byName).map((each) => ({ ...each })),
        [...expected.values()]
          .map((some) => ({
            source: some[0]!.source,
            host: some[0]!.host,
            requests: some.length,
            errors: some.filter(({ status }) => status >= 500).length,
            clientErrors: some.filter(({ status }) => status >= 400 && status <= 499).length,
            bytes: some.reduce((sum, { size }) => sum + size, 0),
          }))
          .toSorted(byName),
        JSON.stringify(filter),
      );
    }
    t.deepEqual(await store.countHosts({ parts: [], filter: {} }), []);
    for (const hosts of [
      ['b.example', 'none'],
      [''],
      [],
      ['a.example', '', ...Array.from({ length: 500 }, (_, at) => `none.${at}|(.example`)],
    ]) {
      await holdsRollups(
        t,
        store,
        requests.filter(({ host }) => hosts.includes(host)),
        { level: 3600, scope: 'host', hosts },
      );
    }
  });
}

function byName(
  one: { readonly source: string; readonly host: string },
  other: { readonly source: string; readonly host: string },
): number {
  return one.source + one.host < other.source + other.host ? -1 : 1;
}
