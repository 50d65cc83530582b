import test from 'ava';
import fc from 'fast-check';
import { HyperLogLog } from './hyperloglog.js';

const texts = fc.array(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string({ maxLength: 5 })), { maxLength: 2500, size: 'max' });

test('counts 10 to 100,000 addresses to within about 1 %', (t) => {
  for (const kind of [
    (at: number) => `10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`,
    (at: number) => `2001:db8:${at.toString(16)}::`,
    (at: number) => `203.0.${at}.0`,
  ]) {
    const sketch = new HyperLogLog();
    let squares = 0;
    let checks = 0;
    for (let at = 1; at <= 100_000; at += 1) {
      sketch.add(kind(at));
      if (![10, 30, 100, 300, 1000, 3000, 10_000, 20_000, 30_000, 50_000, 70_000, 100_000].includes(at)) continue;
      const error = sketch.count() / at - 1;
      t.true(Math.abs(error) < 0.035, `${at} are counted as ${sketch.count()}`); // three standard errors
      squares += error ** 2;
      checks += 1;
    }
    t.true(Math.sqrt(squares / checks) < 0.018);
  }
});

test('counts a repeated text once, and an empty sketch as 0', (t) => {
  const sketch = new HyperLogLog();
  t.is(sketch.count(), 0);
  for (let at = 0; at < 1000; at += 1) sketch.add(`192.0.2.${at % 5}`);
  t.is(sketch.count(), 5);
});

test('merges to the sketch of all texts, for any split and order', (t) => {
  fc.assert(
    fc.property(fc.array(texts, { maxLength: 5 }), (parts) => {
      const merged = new HyperLogLog();
      for (const part of parts.toReversed()) merged.merge(sketchOf(part));
      return merged.pack() === sketchOf(parts.flat()).pack();
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('unpacks the same sketch that was packed, in a form that is small for few texts and never large', (t) => {
  fc.assert(
    fc.property(texts, (all) => {
      const packed = sketchOf(all).pack();
      const unpacked = HyperLogLog.unpack(packed);
      return (
        unpacked.pack() === packed &&
        unpacked.count() === sketchOf(all).count() &&
        packed.length <= Math.min(1 + 4 * (all.length + 1), 8193)
      );
    }),
    { numRuns: 50 },
  );
  const large = sketchOf(Array.from({ length: 50_000 }, (_, at) => `client ${at}`));
  t.is(large.pack().length, 8193);
  t.is(HyperLogLog.unpack(large.pack()).count(), large.count());
});

test('rejects an invalid packed sketch, with its text', (t) => {
  for (const wrong of ['', 'x', 'dAAAA', 'sAA==', 'sAQA=', `d${'-'.repeat(8192)}`])
    t.throws(() => HyperLogLog.unpack(wrong), { instanceOf: RangeError, message: /not a packed sketch/ }, wrong);
});

function sketchOf(all: readonly string[]): HyperLogLog {
  const sketch = new HyperLogLog();
  for (const text of all) sketch.add(text);
  return sketch;
}
