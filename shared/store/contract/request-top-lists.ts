import { topListsOfRequests, type RequestLists } from '../../top-list/top-lists-of-requests.js';
import { requestDimensions } from '../../top-list/top-row.js';
import type { Filter } from '../store.js';
import { roundedSum, takesRequest } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request } from './samples.js';

/** Declares the test of top lists computed from raw requests. */
export function declareRequestTopLists(declare: Declare): void {
  declare(
    'computes top lists of raw requests by path, referrer, user agent, client, error and upstream, under any filter',
    async (t, { store }) => {
      const long = `/${'x'.repeat(300)}`;
      const requests = Array.from({ length: 400 }, (_, index) =>
        request({
          timeMs: hourMs - 100_000 + 997 * index,
          timeNs: index,
          source: index % 7 === 0 ? 'app' : 'caddy',
          status: [200, 200, 404, 500, 101, 0, 599, 499][index % 8]!,
          method: ['GET', 'POST', 'CONNECT'][index % 3]!,
          durationMs: index % 11 === 0 ? null : index % 13 === 0 ? 0 : 0.01 * 1.05 ** index,
          size: index * 1000,
          uri: ['/', '/a', '/a?b=c', '/a?b?c', '', `${long}1`, `${long}2`, '\ufeff/b', `/${index}`][index % 9]!,
          clientIp: ['192.0.2.0', '2001:db8::', ''][index % 4] ?? 'a"b',
          error: ['EOF', '', 'dial tcp 10.0.0.3:80: connect: connection refused'][index % 3]!,
          upstream: ['10.0.0.3:80', ''][index % 5] ?? '10.0.0.4:80',
          userAgent: ['curl/8', 'curl/8.1', ''][index % 3]!,
          referrer: ['https://r.example/', 'https://r.example/?q=1#a', 'https://r.example/#a?b', '?', ''][index % 5]!,
        }),
      );
      await store.write(batchOf({ requests }));
      const kinds = [...requestDimensions, 'unique_clients'] as const;
      const comparable = (bySource: ReadonlyMap<string, RequestLists>) =>
        [...bySource]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([source, { lists, clients }]) => ({
            source,
            clients,
            lists: requestDimensions.map((dimension) => ({
              ...lists.get(dimension),
              entries: lists
                .get(dimension)
                ?.entries.map(({ histogram, ...entry }) => ({ ...roundedSum(entry), histogram: histogram.pack() })),
            })),
          }));
      for (const filter of [
        {},
        { method: 'GET' },
        { path: '/a' },
        { source: 'caddy', status: { min: 500, max: 599 } },
        { client: '192.0.2.0', referrer: 'https://r.example/' },
        { userAgent: 'none' },
        { error: 'EOF' },
        { error: '', upstream: '10.0.0.4:80' },
      ] satisfies Filter[]) {
        const about = JSON.stringify(filter);
        const expected = requests.filter((one) => takesRequest(filter, one));
        for (const valuesMax of [1000, 3]) {
          const { bySource, ofNewest } = await store.topListsOfRequests({
            ...aroundHour,
            filter,
            kinds,
            valuesMax,
          });
          t.is(ofNewest, undefined, about);
          t.deepEqual(
            comparable(bySource).filter(
              ({ lists, clients }) => clients > 0 || lists.some(({ total }) => total !== undefined),
            ),
            comparable(topListsOfRequests(expected, { kinds, valuesMax })),
            about,
          );
        }
      }
      const { bySource } = await store.topListsOfRequests({
        ...aroundHour,
        filter: { method: 'GET' },
        kinds: ['client'],
        valuesMax: 10,
      });
      t.deepEqual(
        [...bySource].map(([, { lists, clients }]) => [[...lists.keys()], clients]),
        [
          [['client'], 0],
          [['client'], 0],
        ],
        'at most the requested number',
      );
    },
  );
}
