import test from 'ava';
import fc from 'fast-check';
import { Histogram } from './histogram.js';

const errorPromised = 0.05;
const quantiles = [0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1];

/** Standard normal from two uniform numbers (Box and Muller, 1958). */
const normal = fc
  .tuple(fc.double({ min: 1e-12, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([first, second]) => Math.sqrt(-2 * Math.log(first)) * Math.cos(2 * Math.PI * second));

const logNormal = fc
  .tuple(fc.double({ min: -6, max: 6, noNaN: true }), fc.double({ min: 0.1, max: 2.5, noNaN: true }))
  .chain(([mean, deviation]) =>
    fc.array(
      normal.map((value) => Math.max(Math.exp(mean + deviation * value), durationMinMs)),
      { minLength: 1, maxLength: 400 },
    ),
  );
/** Durations below a nanosecond are not distinguished. */
const durationMinMs = 1e-6;
const bimodal = fc.array(
  fc.oneof(
    normal.map((value) => Math.exp(value * 0.2)),
    normal.map((value) => 900 + Math.abs(value) * 50),
  ),
  { minLength: 1, maxLength: 400 },
);
const constant = fc
  .tuple(fc.double({ min: 1e-4, max: 1e7, noNaN: true }), fc.integer({ min: 1, max: 400 }))
  .map(([value, count]) => new Array<number>(count).fill(value));
const anyDurations = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1e9, noNaN: true })), {
  maxLength: 200,
});

for (const [name, durations] of Object.entries({ logNormal, bimodal, constant })) {
  test(`computes percentiles of ${name} data within 5 % of the exact ones`, (t) => {
    fc.assert(
      fc.property(durations, (values) => {
        const histogram = histogramOf(values);
        const sorted = values.toSorted((one, other) => one - other);
        for (const quantile of quantiles) {
          const exact = sorted[Math.max(1, Math.ceil(quantile * sorted.length)) - 1]!;
          const read = histogram.quantile(quantile)!;
          if (Math.abs(read - exact) > errorPromised * exact)
            throw new Error(`p${quantile * 100} is ${read}, and exactly ${exact}`);
        }
      }),
      { numRuns: 300 },
    );
    t.pass();
  });
}

test('merges in any order and grouping to the same histogram', (t) => {
  fc.assert(
    fc.property(
      fc
        .array(anyDurations, { minLength: 1, maxLength: 8 })
        .chain((parts) => fc.tuple(fc.constant(parts), fc.shuffledSubarray(parts, { minLength: parts.length }))),
      ([parts, shuffled]) => {
        const whole = histogramOf(parts.flat()).pack();
        const merged = new Histogram();
        for (const part of shuffled) merged.merge(histogramOf(part));
        const grouped = shuffled.reduceRight((rest, part) => {
          const both = histogramOf(part);
          both.merge(rest);
          return both;
        }, new Histogram());
        return merged.pack() === whole && grouped.pack() === whole;
      },
    ),
  );
  t.pass();
});

test('unpacks the same histogram that was packed', (t) => {
  fc.assert(
    fc.property(anyDurations, (values) => {
      const histogram = histogramOf(values);
      const unpacked = Histogram.unpack(histogram.pack());
      return (
        unpacked.total === values.length &&
        unpacked.pack() === histogram.pack() &&
        quantiles.every((quantile) => unpacked.quantile(quantile) === histogram.quantile(quantile))
      );
    }),
  );
  t.pass();
});

test('clones independently of the original', (t) => {
  const histogram = histogramOf([1, 2, 3]);
  const clone = histogram.clone();
  histogram.add(1000);
  t.is(clone.total, 3);
  t.is(clone.pack(), histogramOf([1, 2, 3]).pack());
});

test('packs counts beyond 32 bits', (t) => {
  const histogram = histogramOf([5]);
  for (let doubling = 0; doubling < 40; doubling += 1) histogram.merge(histogram.clone());
  t.is(Histogram.unpack(histogram.pack()).total, 2 ** 40);
});

test('has no percentiles when empty, and packs to almost nothing', (t) => {
  t.is(new Histogram().quantile(0.5), null);
  t.is(new Histogram().pack(), 'AA==');
});

test('counts durations outside the range in the outermost buckets', (t) => {
  const histogram = histogramOf([0, -1, Number.NaN, 1e-30, 1e300, Number.POSITIVE_INFINITY]);
  t.is(histogram.total, 6);
  t.is(Histogram.unpack(histogram.pack()).total, 6);
  t.is(histogram.quantile(0.5), 0);
});

test('rejects an invalid packed histogram, with its text', (t) => {
  t.throws(() => Histogram.unpack(''), { instanceOf: RangeError, message: /""/ });
  t.throws(() => Histogram.unpack('gA=='), { instanceOf: RangeError, message: /ends too early/ });
  t.throws(() => Histogram.unpack(Buffer.from([0, 0xff, 0xff, 0x7f, 1]).toString('base64')), {
    instanceOf: RangeError,
    message: /bucket/,
  });
});

function histogramOf(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.add(value);
  return histogram;
}

test('has no values after an excessive correction, without an error', (t) => {
  const correction = new Histogram();
  correction.add(7);
  const histogram = new Histogram();
  histogram.add(50);
  histogram.merge(correction.negated());
  t.is(histogram.total, 0);
  t.true(Math.abs(histogram.quantile(0.5)! - 50) < 2.5);
  t.is(correction.negated().quantile(0.5), null);
});
