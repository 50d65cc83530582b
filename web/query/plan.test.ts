import test from 'ava';
import fc from 'fast-check';
import { windowsMax } from '../../shared/time-range.js';
import { hostParts, planTraffic } from './plan.js';

const nowMs = Date.UTC(2026, 10, 23, 20, 17, 33);
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const retention = { requestRetentionMs: 7 * dayMs, rollupRetentionMs: 400 * dayMs };

const lastMs = (lengthMs: number) => ({ fromMs: nowMs - lengthMs, toMs: nowMs });

test('extends a range to whole windows, at most `windowsMax` and the one that is cut at each end', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 3660 * dayMs }),
      fc.integer({ min: 0, max: 100 * dayMs }),
      fc.boolean(),
      (lengthMs, agoMs, isHost) => {
        const query = { fromMs: nowMs - agoMs - lengthMs, toMs: nowMs - agoMs, filter: isHost ? { host: 'a' } : {} };
        const { range, level, stepMs } = planTraffic(query, retention, nowMs);
        return (
          range.fromMs <= query.fromMs &&
          range.toMs >= query.toMs &&
          range.fromMs % (level * 1000) === 0 &&
          range.toMs % (level * 1000) === 0 &&
          stepMs % (level * 1000) === 0 &&
          (range.toMs - range.fromMs) / stepMs <= windowsMax + 1
        );
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});

test('compares with the previous period while the rows of both are retained', (t) => {
  const { range, previous } = planTraffic({ ...lastMs(24 * hourMs), filter: {} }, retention, nowMs);
  t.deepEqual(previous, { fromMs: 2 * range.fromMs - range.toMs, toMs: range.fromMs });
  t.is(planTraffic({ ...lastMs(300 * dayMs), filter: {} }, retention, nowMs).previous, undefined);
  t.not(planTraffic({ ...lastMs(5 * dayMs), filter: {} }, retention, nowMs).previous, undefined);
  t.is(
    planTraffic({ ...lastMs(5 * dayMs), filter: { path: '/' } }, retention, nowMs).previous,
    undefined,
    'a path needs raw requests, which are retained for 7 days',
  );
});

test('reports from when on the rows of a range are retained', (t) => {
  const byPath = planTraffic({ ...lastMs(30 * dayMs), filter: { path: '/' } }, retention, nowMs);
  t.is(byPath.retainedFromMs, nowMs - 7 * dayMs);
  t.is(byPath.rollupsFromMs, undefined);
  const long = planTraffic({ ...lastMs(500 * dayMs), filter: {} }, retention, nowMs);
  t.is(long.retainedFromMs, undefined);
  t.is(long.rollupsFromMs, nowMs - 400 * dayMs);
  const unknown = { requestRetentionMs: undefined, rollupRetentionMs: undefined };
  t.is(planTraffic({ ...lastMs(500 * dayMs), filter: {} }, unknown, nowMs).rollupsFromMs, undefined);
});

test('covers the hosts of a range without gaps, by windows of a minute or longer', (t) => {
  const parts = hostParts(lastMs(30 * dayMs), nowMs);
  t.true(parts.every(({ level }) => level >= 60));
  for (const [at, { fromMs, toMs }] of parts.entries()) {
    t.true(fromMs < toMs);
    if (at > 0) t.is(fromMs, parts[at - 1]!.toMs);
  }
  t.true(parts[0]!.fromMs <= nowMs - 30 * dayMs);
  t.true(parts.at(-1)!.toMs >= nowMs);
});
