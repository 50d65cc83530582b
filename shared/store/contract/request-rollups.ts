import { rollUp } from '../../rollup/rollup-aggregator.js';
import type { Filter } from '../store.js';
import { sameRequests, sameRollups, takesRequest } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request } from './samples.js';

/** Declares the test of rollup rows computed from raw requests. */
export function declareRequestRollups(declare: Declare): void {
  declare('rolls up raw requests under filters by any of their fields, alone and combined', async (t, { store }) => {
    const referrers = [
      'https://r.example/',
      'https://r.example/?q=1',
      'https://r.example/#a?b',
      'https://r.example/a',
      '',
    ];
    const requests = Array.from({ length: 300 }, (_, index) =>
      request({
        timeMs: hourMs - 100_000 + 997 * index,
        timeNs: index,
        source: index % 7 === 0 ? 'app' : 'caddy',
        status: [200, 200, 404, 500, 101, 0, 499][index % 7]!,
        method: ['GET', 'GET', 'CONNECT'][index % 3]!,
        durationMs: index % 11 === 0 ? null : index % 13 === 0 ? 0 : 0.01 * 1.07 ** index,
        size: index * 1000,
        uri: ['/', '/a', '/a?b=c'][index % 3]!,
        clientIp: ['192.0.2.0', '2001:db8::', ''][index % 4] ?? 'a"b',
        error: ['EOF', ''][index % 2]!,
        upstream: ['10.0.0.3:80', '', '10.0.0.4:80'][index % 3]!,
        userAgent: ['curl/8', 'curl/8.1', ''][index % 3]!,
        referrer: referrers[index % 5]!,
        requestId: index % 2 === 0 ? `id-${index % 10}` : '',
      }),
    );
    await store.write(batchOf({ requests }));
    const filters: Filter[] = [
      { client: '192.0.2.0' },
      { client: '192.0.2.' },
      { client: '' },
      { client: 'a"b' },
      { userAgent: 'curl/8' },
      { error: 'EOF' },
      { error: '', upstream: '10.0.0.3:80' },
      { upstream: '' },
      { userAgent: '' },
      { referrer: 'https://r.example/' },
      { referrer: 'https://r.example' },
      { referrer: '' },
      { requestId: 'id-2' },
      { requestId: '' },
      { path: '/a' },
      { path: '/a', client: '2001:db8::' },
      { path: '/a', client: '', userAgent: 'curl/8.1', source: 'caddy' },
      { client: '192.0.2.0', referrer: 'https://r.example/', status: { min: 200, max: 299 } },
      { client: 'none', userAgent: 'none' },
      { referrer: '', requestId: '' },
    ];
    for (const filter of filters) {
      const about = JSON.stringify(filter);
      const expected = requests.filter((one) => takesRequest(filter, one)).toReversed();
      sameRequests(t, await store.readRequests({ ...aroundHour, filter, limit: 1000 }), expected, about);
      sameRequests(t, await store.readRequests({ ...aroundHour, filter, limit: 3 }), expected.slice(0, 3), about);
      for (const [level, scope] of [
        [10, 'all'],
        [3600, 'all'],
        [3600, 'host'],
      ] as const) {
        const { rows, isBounded } = await store.rollUpRequests({
          ...aroundHour,
          level,
          scope,
          filter,
        });
        t.false(isBounded);
        sameRollups(t, rows, rollUp(expected, level, scope), about);
      }
    }
  });
}
