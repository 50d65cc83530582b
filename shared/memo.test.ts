import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import fc from 'fast-check';
import { createMemo, detachString } from './memo.js';

test('returns the results of the function, for any texts in any order', (t) => {
  const texts = fc.array(
    fc.oneof(fc.constantFrom('a', 'b', 'c', ''), fc.string({ maxLength: 5 }), fc.constant('x'.repeat(501))),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(texts, (queries) => {
      const memo = createMemo((text) => `${text.length} ${text}`, { entriesMax: 3 });
      return queries.every((text) => memo(text) === `${text.length} ${text}`);
    }),
  );
  t.pass();
});

test('reads a frequent text once, and again after twice `entriesMax` other texts', (t) => {
  const read: string[] = [];
  const memo = createMemo(
    (text) => {
      read.push(text);
      return text;
    },
    { entriesMax: 10 },
  );
  for (let at = 0; at < 30; at += 1) memo('again');
  for (let at = 0; at < 19; at += 1) {
    memo(`other ${at}`);
    memo('again');
  }
  t.is(read.filter((text) => text === 'again').length, 1);
  for (let at = 0; at < 20; at += 1) memo(`further ${at}`);
  memo('again');
  t.is(read.filter((text) => text === 'again').length, 2);
});

test('detaches an equal text, including lone surrogates', (t) => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      (text) => detachString(text) === text && detachString(`${text}\ud800`) === `${text}\ud800`,
    ),
  );
  t.pass();
});

test('detaches a text from its parent string', (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const heapMb = (): number => {
    collect();
    return process.memoryUsage().heapUsed / 2 ** 20;
  };
  const before = heapMb();
  // One mebibyte each, so that a retained parent would be noticed.
  const detached = Array.from({ length: 100 }, (_, at) =>
    detachString(
      Buffer.alloc(2 ** 20, 97 + (at % 26))
        .toString('latin1')
        .slice(100, 140),
    ),
  );
  t.true(heapMb() - before < 20);
  t.is(detached.length, 100);
});
