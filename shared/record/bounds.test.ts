import test from 'ava';
import fc from 'fast-check';
import { clampBytes, boundClientIp, boundDuration, boundMethod, truncateText, cleanName } from './bounds.js';

const addresses = test.macro({
  exec(t, input: string, truncated: string) {
    t.is(boundClientIp(input, 'truncated'), truncated);
    t.is(boundClientIp(input, 'off'), '');
    t.is(boundClientIp(input, 'full'), input);
  },
  title: (_, input, truncated) =>
    `truncates the client address ${JSON.stringify(input)} to ${JSON.stringify(truncated)} by default`,
});

test(addresses, '203.0.113.9', '203.0.113.0');
test(addresses, '2001:db8:1:2:3:4:5:6', '2001:db8:1::');
test(addresses, '::ffff:203.0.113.9', '203.0.113.0');
test(addresses, '::1', '::');
test(addresses, 'fe80::1%eth0', 'fe80::');
test(addresses, 'not an address', '');
test(addresses, '', '');

test('bounds numbers that would overflow in a store', (t) => {
  t.deepEqual([0, 12.5, 366 * 86_400_000, Infinity, 1e306, -1, Number.NaN, null].map(boundDuration), [
    0,
    12.5,
    366 * 86_400_000,
    null,
    null,
    null,
    null,
    null,
  ]);
  t.deepEqual([0, 12, Number.MAX_SAFE_INTEGER, Infinity, -1, Number.NaN].map(clampBytes), [
    0,
    12,
    2 ** 43,
    2 ** 43,
    0,
    0,
  ]);
});

test('maps unknown methods to _other', (t) => {
  t.is(boundMethod('GET'), 'GET');
  t.is(boundMethod('PROPFIND'), 'PROPFIND');
  t.is(boundMethod('get'), '_other');
  t.is(boundMethod('X'.repeat(10_000)), '_other');
  t.is(boundMethod('__proto__'), '_other');
});

test('truncates names and texts and makes them well-formed, without further changes', (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 600 }), fc.nat(600), (input, length) => {
      const text = truncateText(input, length);
      const name = cleanName(input);
      return (
        text.isWellFormed() &&
        !text.includes('\0') &&
        text.length <= length &&
        name.isWellFormed() &&
        name.length <= 255 &&
        !/[\p{Cc}]/u.test(name)
      );
    }),
  );
  t.is(cleanName('Bücher.example'), 'Bücher.example');
  t.is(cleanName('a\nb\u0000\ud800'), 'a\uFFFDb\uFFFD\uFFFD');
  t.is(truncateText('a\nb\t"', 10), 'a\nb\t"');
});
