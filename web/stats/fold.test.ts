import test from 'ava';
import fc from 'fast-check';
import type { RequestEvent } from '../../shared/request-event.js';
import { fold, hostListOf, isComplete } from './fold.js';
import { rollUp } from '../../shared/rollup/rollup-aggregator.js';
import { event, ledger } from '../../test/web-samples.js';

const grid = { fromMs: 0, stepMs: 60_000 };

test('folds no rows to empty figures', (t) => {
  t.deepEqual(fold([], grid), {
    windows: [],
    sources: new Map(),
    hosts: hostListOf([], new Map()),
    methods: new Map(),
    pairs: [],
  });
});

test('counts figures by source, Caddy first, and by window', (t) => {
  const requests = [
    event({ source: 'app', timeMs: 1000, status: 200, durationMs: 10, size: 5 }),
    event({ source: 'caddy', timeMs: 1000, status: 200, durationMs: 20, size: 5 }),
    event({ source: 'caddy', timeMs: 2000, status: 502, durationMs: 40, size: 1 }),
    event({ source: 'caddy', timeMs: 130_000, status: 404, durationMs: 30, size: 2 }),
  ];
  const { windows, sources } = fold(rollUp(requests, 60, 'host'), grid);
  t.deepEqual([...sources.keys()], ['caddy', 'app']);
  t.like(sources.get('caddy'), { requests: 3, errors: 1, bytes: 8, latencyMs: { mean: 30, max: 40 } });
  t.deepEqual(
    [...sources.get('caddy')!.statuses],
    [
      [200, 1],
      [404, 1],
      [502, 1],
    ],
  );
  t.deepEqual(
    windows.map(({ timeMs, source, requests: count }) => [timeMs, source, count]),
    [
      [0, 'caddy', 2],
      [0, 'app', 1],
      [120_000, 'caddy', 1],
    ],
    'the window between is left out',
  );
});

test('ranks hosts and methods by the requests of the first source', (t) => {
  const { hosts, methods } = fold(
    rollUp(
      [
        event({ host: 'b', status: 500, size: 3 }),
        event({ host: 'a' }),
        event({ host: 'b', method: 'POST' }),
        event({ source: 'app', host: 'a' }),
        event({ source: 'app', host: 'a' }),
      ],
      10,
      'host',
    ),
    grid,
  );
  t.like(hosts, { count: 2, requests: 3, errors: 1, worst: { host: 'b', errors: 1 } });
  t.deepEqual(
    [...hosts.figures].map(([host, { requests, errors, bytes }]) => [host, requests, errors, bytes]),
    [
      ['b', 2, 1, 3],
      ['a', 1, 0, 0],
    ],
  );
  t.deepEqual(
    [...methods].map(([method, { requests }]) => [method, requests]),
    [
      ['GET', 2],
      ['POST', 1],
    ],
  );
});

test('counts WebSockets, event streams and aborted requests, but not their latency', (t) => {
  const hourMs = 3_600_000;
  const { sources } = fold(
    rollUp(
      [
        event({ status: 101, durationMs: hourMs }),
        event({ method: 'CONNECT', protocol: 'HTTP/2.0', durationMs: hourMs }),
        event({ durationMs: null }),
        event({ status: 0, durationMs: 5 }),
        event({ status: 499, durationMs: 2500 }),
      ],
      10,
      'host',
    ),
    grid,
  );
  t.like(sources.get('caddy'), {
    requests: 5,
    errors: 0,
    latencyMs: { mean: null, p50: null, p95: null, p99: null, max: null },
  });
});

test('limits percentiles to the maximum latency', (t) => {
  const { latencyMs } = fold(rollUp([event({ durationMs: 7.77 })], 10, 'host'), grid).sources.get('caddy')!;
  t.deepEqual(latencyMs, {
    mean: 7.77,
    p50: Math.min(7.77, latencyMs.p50!),
    p95: latencyMs.p50,
    p99: latencyMs.p50,
    max: 7.77,
  });
});

test('folds any rows of the same requests, in any order, to the same figures', (t) => {
  const requests = fc.array(
    fc.record({
      source: fc.constantFrom('caddy', 'app', 'other'),
      timeMs: fc.integer({ min: 0, max: 600_000 }),
      status: fc.constantFrom(0, 101, 200, 404, 500),
      durationMs: fc.integer({ min: 0, max: 5000 }),
      size: fc.nat(1000),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(requests, fc.nat(60), (parts, at) => {
      const events: RequestEvent[] = parts.map((part) => event(part));
      const whole = fold(rollUp(events, 60, 'host'), grid);
      const split = fold([...rollUp(events.slice(at), 60, 'host'), ...rollUp(events.slice(0, at), 60, 'host')], grid);
      t.deepEqual(split, whole);
    }),
    { numRuns: 50 },
  );
});

test('figures are complete unless lines were lost or spooled, or a read was truncated', (t) => {
  t.true(isComplete([], { bounded: false }));
  t.true(isComplete([ledger({ rejected: { 'not-json': 3 } })], { bounded: false }));
  t.false(isComplete([], { bounded: true }));
  t.false(isComplete([ledger({}), ledger({ dropped: { 'memory-full': 1 } })], { bounded: false }));
  t.false(isComplete([ledger({ spooled: 1 })], { bounded: false }));
  t.false(isComplete([ledger({ deadLettered: 1 })], { bounded: false }));
  t.false(isComplete([ledger({ warnings: { 'datagrams-lost': 1 } })], { bounded: false }));
  t.false(isComplete([ledger({ warnings: { 'earlier-spooled': 1 } })], { bounded: false }));
  t.true(isComplete([ledger({ warnings: { 'peers-not-allowed': 1, 'earlier-spooled': 0 } })], { bounded: false }));
});
