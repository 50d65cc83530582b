import test from 'ava';
import fc from 'fast-check';
import { TextBuffer } from './text-buffer.js';

const number = fc.oneof(
  fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
  fc.double({ min: 0, max: 1e6, noNaN: true }),
  fc.maxSafeNat().map((nanoseconds) => nanoseconds / 1e6),
  fc.nat().map((microseconds) => microseconds / 1000),
  fc.maxSafeNat(),
  fc.constantFrom(
    0,
    1e-6,
    1e-7,
    0.1,
    0.30000000000000004,
    999_999_999.999999,
    1_000_000_000,
    1e21,
    5e-324,
    Number.MAX_VALUE,
  ),
);

test('writes a number as String does', (t) => {
  const text = new TextBuffer();
  fc.assert(
    fc.property(number, (each) => {
      text.clear();
      text.addNumber(each);
      t.is(text.bytes.toString(), String(each));
    }),
    { numRuns: 2000 },
  );
});

test('pads an integer to the minimum number of digits', (t) => {
  const text = new TextBuffer();
  fc.assert(
    fc.property(
      fc.oneof(fc.nat(), fc.nat(1000), fc.maxSafeNat(), fc.constantFrom(0, 9, 10, 999_999_999, 1_000_000_000)),
      fc.integer({ min: 1, max: 12 }),
      (integer, digits) => {
        text.clear();
        text.addInteger(integer, digits);
        t.is(text.bytes.toString(), String(integer).padStart(digits, '0'));
      },
    ),
  );
});

test('concatenates texts of any kind and length as UTF-8', (t) => {
  const text = new TextBuffer();
  const part = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('é'.repeat(300), 'a'.repeat(100_000), '\ud800', '\udc00', ''),
  );
  fc.assert(
    fc.property(fc.array(part), (parts) => {
      text.clear();
      for (const [index, each] of parts.entries()) {
        if (index % 2 === 0) text.add(each);
        else text.addBytes(Buffer.from(each));
      }
      t.deepEqual(text.bytes, Buffer.concat(parts.map((each) => Buffer.from(each))));
      t.is(text.length, text.bytes.length);
    }),
  );
});
