import test from 'ava';
import fc from 'fast-check';
import { alignRange, levelFor, parseTime, windowsMax } from './time-range.js';

const hourMs = 3_600_000;
const nowMs = Date.UTC(2026, 10, 23, 20, 4, 57, 626);

test('chooses the finest level with at most about 180 windows', (t) => {
  const levelOf = (hours: number): number => levelFor({ fromMs: nowMs - hours * hourMs, toMs: nowMs }, nowMs);
  t.deepEqual(
    [0.25, 0.5, 1, 3, 6, 24, 7 * 24, 30 * 24, 400 * 24].map(levelOf),
    [10, 10, 60, 60, 600, 600, 3600, 86_400, 86_400],
  );
});

test('chooses a level that still retains an old range', (t) => {
  const levelOfHourAgo = (days: number): number =>
    levelFor({ fromMs: nowMs - days * 24 * hourMs, toMs: nowMs - days * 24 * hourMs + hourMs / 4 }, nowMs);
  t.deepEqual([0.1, 0.18, 0.2, 10, 11, 44, 46, 400].map(levelOfHourAgo), [10, 10, 60, 60, 600, 600, 3600, 3600]);
});

test('aligns a range to whole windows, with at most two more', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 400 * 24 * hourMs }), fc.nat(1e9), (lengthMs, backMs) => {
      const range = { fromMs: nowMs - backMs - lengthMs, toMs: nowMs - backMs };
      const level = levelFor(range, nowMs);
      const aligned = alignRange(range, level);
      const windows = (aligned.toMs - aligned.fromMs) / (level * 1000);
      return (
        aligned.fromMs <= range.fromMs &&
        aligned.toMs >= range.toMs &&
        Number.isInteger(windows) &&
        aligned.fromMs % (level * 1000) === 0 &&
        (windows <= windowsMax + 2 || level === 86_400)
      );
    }),
  );
  t.pass();
});

test('parses now, a time before now, and RFC 3339', (t) => {
  t.is(parseTime('now', nowMs), nowMs);
  t.is(parseTime('now-1h', nowMs), nowMs - hourMs);
  t.is(parseTime('now-15m', nowMs), nowMs - hourMs / 4);
  t.is(parseTime('2026-11-23T19:00:00Z', nowMs), Date.UTC(2026, 10, 23, 19));
  t.is(parseTime('2026-11-23T19:00:00.5+01:00', nowMs), Date.UTC(2026, 10, 23, 18, 0, 0, 500));
  for (const text of [
    '',
    'yesterday',
    'now-',
    'now+1h',
    'now-1w',
    '2026-11-23',
    '2026-13-01T00:00:00Z',
    '2026-02-31T00:00:00Z',
    '1795461349',
    'now-1h\n',
  ]) {
    t.is(parseTime(text, nowMs), undefined, text);
  }
});
