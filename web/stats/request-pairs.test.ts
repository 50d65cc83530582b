import test from 'ava';
import { event } from '../../test/web-samples.js';
import { requestPairs } from './request-pairs.js';

const edge = event({ source: 'caddy', requestId: 'a', durationMs: 12.3 });
const app = event({ source: 'shop', requestId: 'a', durationMs: 8.1 });

test('pairs a request of Caddy and one of the app with the same id, in any order', (t) => {
  const expected = [['a', { edgeMs: 12.3, appMs: 8.1, proxyOverheadMs: 4.2 }]];
  t.deepEqual([...requestPairs([edge, event({ requestId: 'b' }), app])], expected as never);
  t.deepEqual([...requestPairs([app, edge])], expected as never);
});

test('does not pair one side alone, two of a side, or requests without id or duration', (t) => {
  const none = [
    [edge],
    [app],
    [edge, edge],
    [app, { ...app, source: 'blog' }],
    [edge, app, app],
    [edge, { ...app, requestId: 'b' }],
    [
      { ...edge, requestId: '' },
      { ...app, requestId: '' },
    ],
    [edge, { ...app, durationMs: null }],
    [{ ...edge, durationMs: null }, app],
  ];
  for (const requests of none)
    t.is(
      requestPairs(requests).size,
      0,
      JSON.stringify(requests.map(({ source, requestId, durationMs }) => [source, requestId, durationMs])),
    );
});
