import test from 'ava';
import fc from 'fast-check';
import { bytesOf, createSpanMemo } from './span-memo.js';

test('returns the same as the function, for any spans of any buffers in any order', (t) => {
  const bytes = fc
    .oneof(
      fc.array(fc.constantFrom(0x61, 0x62), { maxLength: 30 }),
      fc.array(fc.constantFrom(0x00, 0x80, 0x7f, 0xf0, 0xff), { maxLength: 30 }),
      fc
        .tuple(fc.nat(24), fc.constantFrom(0x80, 0x7f))
        .map(([at, byte]) => Array.from({ length: 25 }, (_, place) => (place === at ? byte : 0))),
      fc.constant(new Array<number>(2001).fill(0x78)),
    )
    .map((list) => Buffer.from(list));
  fc.assert(
    fc.property(fc.array(fc.tuple(bytes, fc.nat(30), fc.nat(2001)), { maxLength: 300 }), (asked) => {
      const memo = createSpanMemo((span) => `${span.length} ${span}`, { spansMax: 8 });
      return asked.every(([whole, start, end]) => {
        const to = Math.min(end, whole.length);
        const from = Math.min(start, to);
        const span = whole.toString('utf8', from, to);
        return memo(bytesOf(whole), from, to) === `${span.length} ${span}`;
      });
    }),
  );
  t.pass();
});

test('reads a repeated span once, beside three others with the same hash', (t) => {
  const read: string[] = [];
  const memo = createSpanMemo((span) => read.push(span));
  const spans = ['Chrome/127', 'Chrome/128', 'Chrome/129', 'Chrome/130'].map(
    (version) => `${'Mozilla/5.0 '.repeat(20)}${version}${' Safari'.repeat(20)}`,
  );
  for (let at = 0; at < 100; at += 1)
    for (const span of spans) memo(bytesOf(Buffer.from(`<${span}>`)), 1, span.length + 1);
  t.deepEqual(read, spans);
});
