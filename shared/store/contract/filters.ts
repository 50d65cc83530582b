import type { Series } from '../../rollup/rollup.js';
import type { Filter } from '../store.js';
import { holdsRollups, sameRequests, takesSeries } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request } from './samples.js';

/** Declares the test of filters, over raw requests and rollup rows. */
export function declareFilters(declare: Declare): void {
  declare('matches exactly the rows of each filter', async (t, { store }) => {
    const all: Series[] = [];
    for (const source of ['caddy', 'app', '']) {
      for (const host of ['a.example', 'A.example', 'a.example2', '']) {
        for (const [method, status] of [
          ['GET', 200],
          ['POST', 404],
          ['GET', 400],
          ['', 499],
          ['GET', 500],
          ['GET', 0],
          ['GET', 101],
          ['GET', 599],
        ] as const)
          all.push({ source, host, method, status });
      }
    }
    const paths = ['/', '/a', '/a?', '/a?b=c', '/a/b', '/ab', '/a%3Fb', '', '?b'];
    const requests = all.map((one, index) =>
      request({ ...one, timeMs: hourMs + index, uri: paths[index % paths.length]! }),
    );
    await store.write(batchOf({ requests }));

    const filters: Filter[] = [
      {},
      { source: 'caddy' },
      { source: '' },
      { source: 'none' },
      { exceptSource: 'app' },
      { exceptSource: 'none', host: 'a.example' },
      { host: 'a.example' },
      { host: '' },
      { method: 'GET' },
      { method: '' },
      { status: { min: 404, max: 404 } },
      { status: { min: 400, max: 499 } },
      { status: { min: 0, max: 0 } },
      { status: { min: 0, max: 101 } },
      { status: { min: 101, max: 101 } },
      { status: { min: 1, max: 599 } },
      { status: { min: 405, max: 405 } },
      { status: { min: 500, max: 400 } },
      { source: 'app', host: 'a.example', method: 'GET', status: { min: 500, max: 599 } },
      { host: '*' },
      { host: '%' },
      { host: 'a_example' },
      { host: 'a.exampl' },
    ];
    for (const filter of filters) {
      const about = JSON.stringify(filter);
      for (const scope of filter.host === undefined ? (['all', 'host'] as const) : (['host'] as const))
        await holdsRollups(t, store, requests, { level: 600, scope, filter });
      sameRequests(
        t,
        await store.readRequests({ ...aroundHour, filter, limit: 1000 }),
        requests.filter((one) => takesSeries(filter, one)).toReversed(),
        about,
      );
    }
    for (const path of ['/', '/a', '/a/b', '/ab', '/a%3Fb', '', '/none', '%', '/_']) {
      for (const filter of [{ path }, { path, source: 'caddy', status: { min: 200, max: 499 } }]) {
        const expected = requests.filter(
          (one) => takesSeries(filter, one) && (one.uri === path || one.uri.startsWith(`${path}?`)),
        );
        sameRequests(
          t,
          await store.readRequests({ ...aroundHour, filter, limit: 1000 }),
          expected.toReversed(),
          JSON.stringify(filter),
        );
      }
    }
  });
}
