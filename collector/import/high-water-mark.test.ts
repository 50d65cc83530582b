import test from 'ava';
import { levels, windowStart, type RollupRow } from '../../shared/rollup/rollup.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { Store } from '../../shared/store/store.js';
import { event } from '../../test/web-samples.js';
import { newestStored } from './high-water-mark.js';

const nowMs = Date.UTC(2026, 10, 23, 20);
const dayMs = 86_400_000;

/** A store of rollup windows in memory. */
function storeOf(
  requests: readonly RequestEvent[],
  timesMs: readonly number[],
  isThere: (level: number, windowMs: number) => boolean = () => true,
): Pick<Store, 'readRequests' | 'readRollups'> {
  return {
    readRequests: ({ limit }) =>
      Promise.resolve(requests.toSorted((one, other) => other.timeMs - one.timeMs).slice(0, limit)),
    readRollups: ({ level, fromMs, toMs }) =>
      Promise.resolve(
        timesMs
          .map((timeMs) => windowStart(timeMs, level))
          .filter((windowMs) => windowMs >= fromMs && windowMs < toMs && isThere(level, windowMs))
          .map((windowMs) => ({ level, windowMs }) as RollupRow),
      ),
  };
}

test('is the end of the newest window, and -Infinity for an empty store', async (t) => {
  t.is(await newestStored(storeOf([], []), nowMs), -Infinity);
  const timeMs = nowMs - 12_345;
  t.is(await newestStored(storeOf([event({ timeMs })], [timeMs]), nowMs), windowStart(timeMs, 10) + 10_000);
});

test('includes requests that exist only in rollups, and requests in the future', async (t) => {
  t.is(
    await newestStored(storeOf([], [nowMs - dayMs, nowMs - 60_000]), nowMs),
    windowStart(nowMs - 60_000, 10) + 10_000,
  );
  t.is(
    await newestStored(storeOf([event({ timeMs: nowMs - dayMs })], [nowMs - dayMs, nowMs - 60_000]), nowMs),
    windowStart(nowMs - 60_000, 10) + 10_000,
  );
  t.is(await newestStored(storeOf([], [Date.UTC(2100, 0)]), nowMs), Date.UTC(2100, 0) + 10_000);
});

test('ignores windows beyond the retention of their level, which may be partly deleted', async (t) => {
  const timesMs = [nowMs - 3 * dayMs, nowMs - 3 * dayMs + 3_000_000];
  const withoutNewestFine = storeOf([], timesMs, (level, windowMs) => level !== 10 || windowMs < timesMs[1]! - 10_000);
  t.is(await newestStored(withoutNewestFine, nowMs), windowStart(timesMs[1]!, 60) + 60_000);
  for (const [ageMs, level] of [
    [dayMs, 10],
    [10 * dayMs, 60],
    [50 * dayMs, 600],
    [100 * dayMs, 3600],
  ] as const) {
    const timeMs = nowMs - ageMs - 1;
    t.is(
      await newestStored(storeOf([], [timeMs]), nowMs),
      windowStart(timeMs, level) + level * 1000,
      `${level} s, of ${levels.join()}`,
    );
  }
});

test('is later than a request that was shifted to a unique time', async (t) => {
  const timeMs = windowStart(nowMs, 10) - 1;
  t.true((await newestStored(storeOf([event({ timeMs, timeNs: 999_999 })], [timeMs]), nowMs)) > timeMs + 1);
});
