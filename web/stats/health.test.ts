import test from 'ava';
import fc from 'fast-check';
import { event } from '../../test/web-samples.js';
import type { Figures } from './figures.js';
import { fold } from './fold.js';
import { evaluateHealth, pastErrors } from './health.js';
import { rollUp } from '../../shared/rollup/rollup-aggregator.js';

const stepMs = 60_000;

/** One-minute windows, one per element: requests, errors among them, and the duration of each request. */
function windowsOf(minutes: readonly { requests: number; errors?: number; durationMs?: number }[]) {
  const requests = minutes.flatMap(({ requests: count, errors = 0, durationMs = 10 }, minute) =>
    Array.from({ length: count }, (_, at) =>
      event({ timeMs: minute * stepMs, status: at < errors ? 500 : 200, durationMs }),
    ),
  );
  return fold(rollUp(requests, 60, 'host'), { fromMs: 0, stepMs });
}

function health(
  minutes: readonly { requests: number; errors?: number; durationMs?: number }[],
  { previous }: { previous?: Figures } = {},
) {
  return evaluateHealth(windowsOf(minutes).windows, { stepMs, previous, liveMs: undefined });
}

test('does not evaluate fewer than 120 requests', (t) => {
  t.deepEqual(health([]), { kind: 'unknown' });
  t.deepEqual(health([{ requests: 119, errors: 119 }]), { kind: 'unknown' });
  t.like(health([{ requests: 60, errors: 60 }, { requests: 60 }]), {
    kind: 'errors',
    state: 'failing',
    sinceMs: stepMs,
    share: 0.5,
  });
});

test('a source is degraded above 2 % of 5xx and failing above 5 %, since the first such window', (t) => {
  const good = { requests: 200, errors: 4 };
  t.deepEqual(health([good, good]), { kind: 'well' }, '2 % is not above 2 %');
  t.deepEqual(health([good, { requests: 200, errors: 5 }, { requests: 200, errors: 6 }]), {
    kind: 'errors',
    state: 'degraded',
    sinceMs: stepMs,
    share: 0.03,
  });
  t.deepEqual(health([good, { requests: 200, errors: 5 }, { requests: 200, errors: 20 }]), {
    kind: 'errors',
    state: 'failing',
    sinceMs: 2 * stepMs,
    share: 0.1,
  });
});

test('leaves a state at half the threshold for entering it', (t) => {
  const bad = { requests: 200, errors: 6 };
  const between = { requests: 200, errors: 3 };
  const good = { requests: 200, errors: 1 };
  t.like(health([bad, between, between]), { kind: 'errors', sinceMs: 0 }, 'still in it');
  t.deepEqual(health([bad, between, good]), { kind: 'well' });
  t.deepEqual(health([bad, good, between]), { kind: 'well' }, 'not in it again');
});

test('a source is slow if its p95 is over twice that of the previous period', (t) => {
  const previous = windowsOf([{ requests: 200, durationMs: 10 }]).sources.get('caddy')!;
  const slow = { requests: 600, durationMs: 25 };
  t.like(health([{ requests: 200 }, slow], { previous }), { kind: 'slow', state: 'degraded', sinceMs: stepMs });
  t.deepEqual(health([{ requests: 200, durationMs: 19 }], { previous }), { kind: 'well' });
  t.deepEqual(health([slow]), { kind: 'well' }, 'slowness is not evaluated without a previous period');
  t.deepEqual(health([slow], { previous: { ...previous, requests: 119 } }), { kind: 'well' });
});

/** The health at `liveMs` of requests at these times, in windows of this length. */
function at(
  timesMs: readonly number[],
  liveMs: number,
  { windowMs = stepMs, lastMs }: { windowMs?: number; lastMs?: number } = {},
) {
  const { windows } = fold(
    rollUp(
      timesMs.map((timeMs) => event({ timeMs })),
      10,
    ),
    { fromMs: 0, stepMs: windowMs },
  );
  return evaluateHealth(windows, { stepMs: windowMs, previous: undefined, liveMs, lastMs });
}

const every = (periodMs: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => index * periodMs);
/** `count` bursts of `requests` each, `burstMs` long, starting every `periodMs`. */
const bursts = ({
  count,
  requests,
  burstMs,
  periodMs,
  fromMs = 0,
}: {
  count: number;
  requests: number;
  burstMs: number;
  periodMs: number;
  fromMs?: number;
}): number[] =>
  Array.from(
    { length: count * requests },
    (_, index) =>
      fromMs + Math.floor(index / requests) * periodMs + Math.floor(((index % requests) * burstMs) / requests),
  );

const minute = 60_000;
for (const [what, timesMs, windowMs, limitMs] of [
  ['600 requests a minute', every(100, 6000), minute, 5 * minute],
  ['a request every 30 s', every(30_000, 240), minute, 5 * minute],
  ['a request every 50 s', every(50_000, 144), minute, 10 * 50_000],
  ['a request every 100 s', every(100_000, 200), minute, 10 * 100_000],
  [
    '25 requests every 10 minutes',
    bursts({ count: 6, requests: 25, burstMs: 2000, periodMs: 10 * minute }),
    minute,
    30 * minute,
  ],
  [
    '25 requests every 10 minutes, in windows of 10 s',
    bursts({ count: 6, requests: 25, burstMs: 2000, periodMs: 10 * minute }),
    10_000,
    30 * minute,
  ],
  [
    'a request every 100 ms after an outage of 20 minutes',
    [...every(100, 6000), ...every(100, 12_000).map((timeMs) => timeMs + 30 * minute)],
    minute,
    5 * minute,
  ],
] as const) {
  test(`reports silence of ${what} after ${limitMs / 1000} s, not before`, (t) => {
    const endMs = Math.ceil((timesMs.at(-1)! + 1) / windowMs) * windowMs;
    const found = at(timesMs, endMs + 10 * 3_600_000, { windowMs });
    t.like(found, { kind: 'silent', state: 'failing', sinceMs: endMs });
    const ownMs = (found as { limitMs: number }).limitMs;
    t.true(Math.abs(ownMs - limitMs) < limitMs / 50, String(ownMs));
    t.deepEqual(at(timesMs, endMs + ownMs, { windowMs }), { kind: 'well' });
    t.like(at(timesMs, endMs + ownMs + 1, { windowMs }), { kind: 'silent' });
    const lastMs = timesMs.at(-1)!;
    t.like(
      at(timesMs, lastMs + ownMs + minute, { windowMs, lastMs }),
      { kind: 'silent', sinceMs: lastMs },
      'the last request is known',
    );
  });
}

test('does not report silence for a history shorter than the limit, or in a past range', (t) => {
  t.deepEqual(at(every(100, 2000), 3_600_000), { kind: 'well' }, 'seen for three minutes');
  t.deepEqual(
    evaluateHealth(windowsOf([{ requests: 600 }, ...Array.from({ length: 9 }, () => ({ requests: 600 }))]).windows, {
      stepMs,
      previous: undefined,
      liveMs: undefined,
    }),
    { kind: 'well' },
  );
});

test('evaluates silence by the last hours if they have enough requests, otherwise by the range', (t) => {
  const hourMs = 3_600_000;
  const windowsIn = (timesMs: readonly number[], windowMs: number) => ({
    windows: fold(
      rollUp(
        timesMs.map((timeMs) => event({ timeMs })),
        10,
      ),
      { fromMs: 0, stepMs: windowMs },
    ).windows,
    stepMs: windowMs,
  });
  const timesMs = every(5000, 10 * 720);
  const liveMs = 10 * hourMs + 6 * minute;
  const wide = windowsIn(timesMs, hourMs);
  const recent = windowsIn(
    timesMs.filter((timeMs) => timeMs > 7 * hourMs),
    minute,
  );
  t.deepEqual(
    evaluateHealth(wide.windows, { ...wide, previous: undefined, liveMs }),
    { kind: 'well' },
    'windows of an hour are too coarse',
  );
  t.like(evaluateHealth(wide.windows, { ...wide, previous: undefined, liveMs, recent }), {
    kind: 'silent',
    sinceMs: 10 * hourMs,
  });
  t.like(
    evaluateHealth([], { ...wide, previous: undefined, liveMs, recent }),
    { kind: 'silent' },
    'a range that began when it was silent already',
  );
  t.like(
    evaluateHealth(wide.windows, {
      ...wide,
      previous: undefined,
      liveMs: 14 * hourMs,
      recent: { ...recent, windows: [] },
    }),
    { kind: 'silent' },
    'silent for longer than the last hours',
  );
});

test('does not report silence between periodic bursts after three of them', (t) => {
  fc.assert(
    fc.property(
      fc.record({
        count: fc.integer({ min: 3, max: 12 }),
        requests: fc.integer({ min: 40, max: 80 }),
        periodMs: fc.integer({ min: 1000, max: 3_600_000 }),
        part: fc.double({ min: 0, max: 0.9, noNaN: true }),
        fromMs: fc.integer({ min: 0, max: 3_600_000 }),
        windowMs: fc.constantFrom(10_000, minute, 10 * minute, 60 * minute),
        isLastKnown: fc.boolean(),
      }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      ({ part, windowMs, isLastKnown, ...pattern }, phase) => {
        const timesMs = bursts({ ...pattern, burstMs: part * pattern.periodMs });
        // At any time until the next burst.
        const liveMs =
          timesMs.at(-1)! +
          phase * (pattern.periodMs - (part * pattern.periodMs * (pattern.requests - 1)) / pattern.requests);
        return at(timesMs, liveMs, { windowMs, ...(isLastKnown && { lastMs: timesMs.at(-1)! }) }).kind !== 'silent';
      },
    ),
    { numRuns: 200 },
  );
  t.pass();
});

test('reports silence after ten mean intervals and five minutes without requests', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 500, max: 300_000 }),
      fc.integer({ min: 120, max: 300 }),
      fc.integer({ min: 0, max: minute }),
      (gapMs, count, fromMs) => {
        // A history of at least six minutes.
        const timesMs = every(gapMs, Math.max(count, Math.ceil((6 * minute) / gapMs))).map((timeMs) => timeMs + fromMs);
        const lastMs = timesMs.at(-1)!;
        const isFound = at(timesMs, lastMs + Math.max(5 * minute, 10.2 * gapMs) + minute + 1).kind === 'silent';
        return isFound && at(timesMs, lastMs + gapMs).kind === 'well';
      },
    ),
    { numRuns: 80 },
  );
  t.pass();
});

test('returns past errors from their first window to the first good one, with the maximum share', (t) => {
  const past = (...errors: number[]) =>
    pastErrors(windowsOf(errors.map((some) => ({ requests: 200, errors: some }))).windows);
  t.deepEqual(past(0, 5, 20, 3, 1, 0), { fromMs: stepMs, toMs: 4 * stepMs, share: 0.1 });
  t.deepEqual(past(0, 10, 0, 8, 0), { fromMs: stepMs, toMs: 2 * stepMs, share: 0.05 }, 'of two the worse one');
  t.is(past(0, 4, 0), undefined);
  t.is(past(0, 10, 0, 8), undefined, 'current errors are reported by the health');
});
