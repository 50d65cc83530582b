import test from 'ava';
import fc from 'fast-check';
import { bucketOfDuration } from './histogram.js';
import { entriesMax, SpaceSaving, valueLengthMax } from './space-saving.js';

const request = { status: 200, durationMs: 1, size: 10 };
const bucket = bucketOfDuration(request.durationMs);

/** A few frequent values and many rare ones. */
const values = fc.array(
  fc.oneof(fc.nat({ max: 9 }), fc.nat({ max: 300 })).map((number) => `/${number}`),
  { maxLength: 3000, size: 'max' },
);

test('never overcounts an entry, and bounds its missed requests', (t) => {
  fc.assert(
    fc.property(values, fc.integer({ min: 1, max: 40 }), (all, max) => {
      holds(summaryOf(all, max), all);
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('always has an entry for a value with more than its share of requests', (t) => {
  fc.assert(
    fc.property(values, fc.integer({ min: 1, max: 40 }), (all, max) => {
      const summary = summaryOf(all, max);
      const found = new Set(summary.entries().map(({ value }) => value));
      return (
        summary.absentMax <= all.length / max &&
        [...countsOf(all)].every(([value, count]) => count <= all.length / max || found.has(value))
      );
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('keeps these bounds when merging, for any split of the requests, packed or not', (t) => {
  fc.assert(
    fc.property(
      fc.array(values, { maxLength: 8 }),
      fc.integer({ min: 1, max: 40 }),
      fc.boolean(),
      (parts, max, packed) => {
        const merged = new SpaceSaving({ entriesMax: max });
        for (const part of parts)
          merged.merge(packed ? SpaceSaving.unpack(summaryOf(part, max).pack()) : summaryOf(part, max));
        holds(merged, parts.flat());
      },
    ),
    { numRuns: 50 },
  );
  t.pass();
});

test('has every value with more than its share after unpacking', (t) => {
  fc.assert(
    fc.property(fc.array(values, { maxLength: 8 }), (parts) => {
      const merged = new SpaceSaving({ entriesMax: Infinity });
      for (const part of parts) merged.merge(SpaceSaving.unpack(summaryOf(part, 10).pack()));
      return merged.absentMax <= parts.flat().length / 10;
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('counts exactly while there are few values', (t) => {
  const summary = new SpaceSaving();
  for (let at = 0; at < 1000; at += 1)
    summary.add(
      `/${at % entriesMax}`,
      { status: at % 100 === 7 ? 502 : 200, durationMs: at, size: 5 },
      bucketOfDuration(at),
    );
  const unpacked = SpaceSaving.unpack(summary.pack());
  t.deepEqual(unpacked.entries(), summary.entries());
  t.is(unpacked.total, 1000);
  t.is(unpacked.absentMax, 0);
  const seventh = unpacked.entries().find(({ value }) => value === '/7')!;
  t.like(seventh, { count: 10, missedMax: 0, errors: 10, sizeSum: 50, durationMaxMs: 907 });
  t.is(seventh.histogram.total, 10);
});

test('stays small for any requested values', (t) => {
  const summary = new SpaceSaving();
  for (let at = 0; at < 5000; at += 1) summary.add(`/${'€'.repeat(at % 600)}${at}`, request, bucket);
  t.true(summary.entries().length <= 2 * entriesMax);
  t.true(Buffer.byteLength(summary.pack()) <= 60_000);
  t.true(SpaceSaving.unpack(summary.pack()).entries().length > 50);
});

test('truncates a long value and marks it', (t) => {
  const summary = new SpaceSaving();
  for (const end of ['a', 'b']) summary.add(`/${'😀'.repeat(200)}${end}`, request, bucket);
  const { value, count } = summary.entries()[0]!;
  t.is(value.length, valueLengthMax);
  t.true(value.endsWith('…') && value.isWellFormed());
  t.is(count, 2);
});

test('packs and unpacks any text', (t) => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary', maxLength: valueLengthMax / 2 })), (all) => {
      const summary = summaryOf(all, entriesMax);
      t.deepEqual(SpaceSaving.unpack(summary.pack()).entries(), summary.entries());
    }),
  );
  t.throws(() => SpaceSaving.unpack('{}'), { instanceOf: RangeError });
});

function summaryOf(all: readonly string[], max: number): SpaceSaving {
  const summary = new SpaceSaving({ entriesMax: max });
  for (const value of all) summary.add(value, request, bucket);
  return summary;
}

function holds(summary: SpaceSaving, all: readonly string[]): void {
  const counts = countsOf(all);
  const entries = summary.entries();
  for (const { value, count, missedMax, sizeSum } of entries) {
    const exact = counts.get(value) ?? 0;
    if (count > exact || exact > count + missedMax)
      throw new Error(`${value} has ${exact}, and the entry says ${count} to ${count + missedMax}`);
    if (missedMax < 0 || missedMax > summary.absentMax)
      throw new Error(`${value} may have been missed ${missedMax} times, and an absent value ${summary.absentMax}`);
    if (sizeSum !== 10 * count) throw new Error(`${value} has ${sizeSum} bytes in ${count} requests`);
    counts.delete(value);
  }
  for (const [value, exact] of counts)
    if (exact > summary.absentMax)
      throw new Error(`${value} is missing, with ${exact} requests of ${summary.absentMax}`);
  if (summary.total !== all.length) throw new Error(`${summary.total} instead of ${all.length}`);
}

function countsOf(all: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of all) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
