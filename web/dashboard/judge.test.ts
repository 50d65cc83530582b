import test from 'ava';
import { event } from '../../test/web-samples.js';
import type { Figures } from './figures.js';
import { fold } from './fold.js';
import { judge, pastErrors } from './judge.js';
import { rollUp } from '../../shared/rollup.js';

const stepMs = 60_000;

/** Windows of a minute, one for each element: requests, errors among them, and how long each took. */
function windowsOf(minutes: readonly { requests: number; errors?: number; durationMs?: number }[]) {
  const requests = minutes.flatMap(({ requests: count, errors = 0, durationMs = 10 }, minute) =>
    Array.from({ length: count }, (_, at) => event({ timeMs: minute * stepMs, status: at < errors ? 500 : 200, durationMs })));
  return fold(rollUp(requests, 60), { fromMs: 0, stepMs });
}

function verdict(minutes: readonly { requests: number; errors?: number; durationMs?: number }[], { previous, liveMs }: { previous?: Figures; liveMs?: number } = {}) {
  return judge(windowsOf(minutes).windows, { stepMs, previous, liveMs });
}

test('nothing is judged on fewer than 120 requests', (t) => {
  t.deepEqual(verdict([]), { kind: 'unjudged' });
  t.deepEqual(verdict([{ requests: 119, errors: 119 }]), { kind: 'unjudged' });
  t.like(verdict([{ requests: 60, errors: 60 }, { requests: 60 }]), { kind: 'errors', state: 'failing', sinceMs: stepMs, share: 0.5 });
});

test('a source is troubled above 2 % of 5xx and failing above 5 %, since the window that first showed it', (t) => {
  const good = { requests: 200, errors: 4 };
  t.deepEqual(verdict([good, good]), { kind: 'well' }, '2 % is not above 2 %');
  t.deepEqual(verdict([good, { requests: 200, errors: 5 }, { requests: 200, errors: 6 }]), { kind: 'errors', state: 'troubled', sinceMs: stepMs, share: 0.03 });
  t.deepEqual(verdict([good, { requests: 200, errors: 5 }, { requests: 200, errors: 20 }]), { kind: 'errors', state: 'failing', sinceMs: 2 * stepMs, share: 0.1 });
});

test('a state is left at half of what it was entered at', (t) => {
  const bad = { requests: 200, errors: 6 };
  const between = { requests: 200, errors: 3 };
  const good = { requests: 200, errors: 1 };
  t.like(verdict([bad, between, between]), { kind: 'errors', sinceMs: 0 }, 'still in it');
  t.deepEqual(verdict([bad, between, good]), { kind: 'well' });
  t.deepEqual(verdict([bad, good, between]), { kind: 'well' }, 'not in it again');
});

test('a source is slow when its p95 is over twice that of the previous period', (t) => {
  const previous = windowsOf([{ requests: 200, durationMs: 10 }]).sources.get('caddy')!;
  const slow = { requests: 600, durationMs: 25 };
  t.like(verdict([{ requests: 200 }, slow], { previous }), { kind: 'slow', state: 'troubled', sinceMs: stepMs });
  t.deepEqual(verdict([{ requests: 200, durationMs: 19 }], { previous }), { kind: 'well' });
  t.deepEqual(verdict([slow]), { kind: 'well' }, 'without a previous period nothing is slow');
  t.deepEqual(verdict([slow], { previous: { ...previous, requests: 119 } }), { kind: 'well' });
});

test('a source is silent after 60 s without a request, or ten times the distance of its requests', (t) => {
  const busy = [{ requests: 600 }];
  t.deepEqual(verdict(busy, { liveMs: 2 * stepMs }), { kind: 'well' });
  t.deepEqual(verdict(busy, { liveMs: 2 * stepMs + 1 }), { kind: 'silent', state: 'failing', sinceMs: stepMs, limitMs: 60_000 });
  const calm = Array.from({ length: 60 }, () => ({ requests: 2 }));
  t.deepEqual(verdict(calm, { liveMs: 60 * stepMs + 299_000 }), { kind: 'well' });
  t.like(verdict(calm, { liveMs: 60 * stepMs + 301_000 }), { kind: 'silent', sinceMs: 60 * stepMs });
  t.deepEqual(verdict(busy), { kind: 'well' }, 'a range that has ended is not silent');
});

test('errors that are over are told from their first window to the first good one, with the worst share', (t) => {
  const past = (...errors: number[]) => pastErrors(windowsOf(errors.map((some) => ({ requests: 200, errors: some }))).windows);
  t.deepEqual(past(0, 5, 20, 3, 1, 0), { fromMs: stepMs, toMs: 4 * stepMs, share: 0.1 });
  t.deepEqual(past(0, 10, 0, 8, 0), { fromMs: stepMs, toMs: 2 * stepMs, share: 0.05 }, 'of two the worse one');
  t.is(past(0, 4, 0), undefined);
  t.is(past(0, 10, 0, 8), undefined, 'what still lasts is told by the verdict');
});
