import test from 'ava';
import fc from 'fast-check';
import { nanosecondsText } from '../request-event.js';
import { createUniqueTimes } from './unique-time.js';

const startMs = Date.UTC(2026, 10, 23, 20);

test('makes times unique within a series, and moves none further than necessary', (t) => {
  const times = fc.array(
    fc.record({
      series: fc.constantFrom('a', 'b'),
      timeMs: fc.integer({ min: startMs, max: startMs + 2 }),
      timeNs: fc.integer({ min: 999_990, max: 999_999 }),
    }),
    { maxLength: 300 },
  );
  fc.assert(
    fc.property(times, (requested) => {
      const unique = createUniqueTimes();
      const taken = new Set<string>();
      for (const { series, ...time } of requested) {
        let expected = BigInt(nanosecondsText(time));
        while (taken.has(`${series} ${expected}`)) expected += 1n;
        const got = unique.take(series, time);
        if (nanosecondsText(got) !== String(expected)) return false;
        taken.add(`${series} ${expected}`);
      }
      return taken.size === requested.length;
    }),
  );
  t.pass();
});

test('makes 100,000 equal times unique', (t) => {
  const unique = createUniqueTimes();
  const taken = new Set<string>();
  for (let at = 0; at < 100_000; at += 1)
    taken.add(nanosecondsText(unique.take('a', { timeMs: startMs, timeNs: 999_000 })));
  t.is(taken.size, 100_000);
});

test('moves no time because of another series', (t) => {
  const unique = createUniqueTimes();
  const time = { timeMs: startMs, timeNs: 5 };
  t.deepEqual(unique.take('a', time), time);
  t.deepEqual(unique.take('b', time), time);
});

test('preserves times at the start of 1970 and far in the future to the nanosecond', (t) => {
  const unique = createUniqueTimes();
  for (const timeMs of [0, 1, Date.UTC(2199, 0, 1)]) {
    unique.take('a', { timeMs, timeNs: 999_999 });
    t.deepEqual(unique.take('a', { timeMs, timeNs: 999_999 }), { timeMs: timeMs + 1, timeNs: 0 });
  }
});

test('remembers at least the last `rememberedMin` times, in bounded memory', (t) => {
  const unique = createUniqueTimes({ rememberedMin: 10 });
  const first = { timeMs: startMs, timeNs: 0 };
  unique.take('a', first);
  for (let at = 1; at <= 9; at += 1) unique.take('a', { timeMs: startMs + at, timeNs: 0 });
  t.notDeepEqual(unique.take('a', first), first);
  for (let at = 1; at <= 30; at += 1) unique.take('a', { timeMs: startMs + 100 + at, timeNs: 0 });
  t.deepEqual(unique.take('a', first), first);
});

test('does not reuse the time of a stored request, and allows reserving it again', (t) => {
  const unique = createUniqueTimes();
  for (let again = 0; again < 3; again += 1) unique.reserve('a', { timeMs: startMs, timeNs: 0 });
  t.deepEqual(unique.take('b', { timeMs: startMs, timeNs: 0 }), { timeMs: startMs, timeNs: 0 });
  t.deepEqual(unique.take('a', { timeMs: startMs, timeNs: 0 }), { timeMs: startMs, timeNs: 1 });
  unique.reserve('a', { timeMs: startMs, timeNs: 1 });
  t.deepEqual(unique.take('a', { timeMs: startMs, timeNs: 0 }), { timeMs: startMs, timeNs: 2 });
});

test('does not reuse recent times handed over by a predecessor', (t) => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 60 }), fc.nat(60), (offsets, cut) => {
      const taken = new Set<string>();
      let unique = createUniqueTimes({ rememberedMin: 50 });
      for (const [at, timeNs] of offsets.entries()) {
        if (at === cut) {
          const next = createUniqueTimes();
          for (const [series, times] of unique.usedFrom(startMs)) for (const time of times) next.reserve(series, time);
          unique = next;
        }
        taken.add(nanosecondsText(unique.take('a\nb', { timeMs: startMs, timeNs })));
      }
      return taken.size === offsets.length;
    }),
  );
  const unique = createUniqueTimes();
  unique.take('a', { timeMs: startMs, timeNs: 1 });
  unique.take('a', { timeMs: startMs + 1, timeNs: 2 });
  t.deepEqual([...unique.usedFrom(startMs + 1)], [['a', [{ timeMs: startMs + 1, timeNs: 2 }]]]);
});
