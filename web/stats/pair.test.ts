import test from 'ava';
import type { RequestEvent } from '../../shared/request-event.js';
import { event } from '../../test/web-samples.js';
import { fold } from './fold.js';
import { pairedHosts } from './pair.js';
import { rollUp } from '../../shared/rollup/rollup-aggregator.js';

const pairs = (requests: readonly Partial<RequestEvent>[]) =>
  fold(
    rollUp(
      requests.map((parts) => event(parts)),
      60,
      'host',
    ),
    { fromMs: 0, stepMs: 60_000 },
  ).pairs;

test('the time outside an app is what the edge took beyond it, on the hosts that both have seen', (t) => {
  const [pair, ...others] = pairs([
    { durationMs: 30 },
    { durationMs: 50 },
    { durationMs: 1000, host: 'static.example' },
    { source: 'shop', durationMs: 25, host: 'shop.example:3000' },
    { source: 'shop', durationMs: 35, timeMs: 60_000 },
    { source: 'lonely', host: '127.0.0.1:3000' },
  ]);
  t.like(pair, { app: 'shop', proxyOverheadMeanMs: 10, edgeOnlyErrors: 0, bypassedEdge: 0 });
  t.like(
    pair?.windows,
    [
      { timeMs: 0, proxyOverheadMeanMs: 15, edgeOnlyErrors: 0, bypassedEdge: 0 },
      { timeMs: 60_000, proxyOverheadMeanMs: null, bypassedEdge: 1 },
    ],
    'a difference only where both have a latency',
  );
  t.deepEqual(others, []);
});

test('there is no time outside an app on hosts where requests bypassed the edge, since they are in its mean alone', (t) => {
  const [pair] = pairs([
    { durationMs: 1464 },
    { source: 'shop', durationMs: 1468 },
    { source: 'shop', durationMs: 2 },
    { source: 'shop', host: 'internal', durationMs: 2 },
  ]);
  t.like(pair, { proxyOverheadMeanMs: null, bypassedEdge: 2 });
});

test('an app that is slower than the edge has no time outside, on the page, in the chart and in the API alike', (t) => {
  const [pair] = pairs([{ durationMs: 3 }, { source: 'shop', durationMs: 25 }]);
  t.is(pair?.proxyOverheadMeanMs, null);
  t.like(pair?.windows, [{ proxyOverheadMeanMs: null }]);
});

test('errors that the app never produced, and requests that bypassed the edge, are counted', (t) => {
  const [pair] = pairs([
    { status: 502 },
    { status: 502 },
    { status: 500 },
    {},
    { source: 'shop', status: 500 },
    { source: 'shop' },
    { source: 'shop', host: 'internal' },
    { source: 'shop', host: 'internal' },
  ]);
  t.like(pair, { edgeOnlyErrors: 2, bypassedEdge: 2 });
  t.like(pair?.windows, [{ timeMs: 0, edgeOnlyErrors: 2, bypassedEdge: 2 }]);
});

test('without an edge, or without an app, there is no pair', (t) => {
  t.deepEqual(pairs([{}]), []);
  t.deepEqual(pairs([{ source: 'shop' }]), []);
});

test('compares the hosts of apps behind the edge, busiest first', (t) => {
  const host = (source: string, name: string, requests: number) => ({ source, host: name, requests });
  t.deepEqual(
    pairedHosts([host('caddy', 'a.example', 9), host('caddy', 'b.example', 5), host('dashboard', '127.0.0.1:8080', 3)]),
    [],
  );
  t.deepEqual(
    pairedHosts([
      host('caddy', 'a.example', 9),
      host('caddy', 'b.example', 5),
      host('shop', 'B.example:3000', 4),
      host('shop', 'internal', 7),
      host('lonely', 'c.example', 8),
    ]),
    ['internal', 'b.example', 'B.example:3000'],
    'all hosts of the app, of which some may have bypassed the edge',
  );
  t.deepEqual(
    pairedHosts(
      [
        host('caddy', 'a.example', 9),
        host('shop', 'b.example:3000', 8),
        host('shop', 'a.example:3000', 7),
        host('caddy', 'b.example', 6),
      ],
      1,
    ),
    ['a.example', 'a.example:3000'],
    'a host is never cut off from itself at the edge',
  );
});
