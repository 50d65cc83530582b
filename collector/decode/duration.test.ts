import test from 'ava';
import { createDurationReader, parseGoDuration } from './duration.js';

const texts = test.macro({
  exec(t, text: string, durationMs: number | undefined) {
    t.is(parseGoDuration(text), durationMs);
  },
  title: (_, text: string, durationMs: number | undefined) =>
    `reads the duration ${JSON.stringify(text)} as ${durationMs === undefined ? 'invalid' : `${durationMs} ms`}`,
});
test(texts, '1m32.05s', 92_050);
test(texts, '6.31ms', 6.31);
test(texts, '850µs', 0.85);
test(texts, '850μs', 0.85);
test(texts, '66.074µs', 0.066074);
test(texts, '17ns', 0.000017);
test(texts, '1h0m0.5s', 3_600_500);
test(texts, '0s', 0);
test(texts, '-1s', undefined);
test(texts, '5', undefined);
test(texts, '', undefined);
test(texts, '1m 2s', undefined);
test(texts, '9'.repeat(400) + 's', undefined);

const learned = { learn: true };

test('reads a fraction as seconds, and an integer never, except 0', (t) => {
  const reader = createDurationReader('auto');
  t.is(reader.read(0.011871543, 'a', learned), 11.871543);
  t.is(reader.read(0, 'a', learned), 0);
  t.is(reader.read(2, 'a', learned), 2);
  t.is(reader.read(25_000, 'b', learned), 0.025);
});

test('reads integers in the unit of the unambiguous ones', (t) => {
  const reader = createDurationReader('auto');
  reader.read(30_000_000, 'nano', learned);
  t.is(reader.read(4000, 'nano', learned), 0.004);
  reader.read(30, 'milli', learned);
  t.is(reader.read(40_000, 'milli', learned), 40_000);
});

test('does not read milliseconds as nanoseconds after a long download', (t) => {
  const reader = createDurationReader('auto');
  for (let at = 1; at <= 50; at += 1) reader.read(at, 'milli', learned);
  t.is(reader.read(1_800_000, 'milli', learned), 1_800_000);
  t.is(reader.read(3000, 'milli', learned), 3000);
});

test('learns a changed format again', (t) => {
  const reader = createDurationReader('auto');
  for (let at = 1; at <= 1000; at += 1) reader.read(5, 'a', learned);
  for (let at = 1; at <= 1000; at += 1) reader.read(2_000_000, 'a', learned);
  t.is(reader.read(4000, 'a', learned), 0.004);
  t.deepEqual(reader.formats(), { a: { format: 'ns', guessed: false } });
});

test('reports a guess until ten integers agree', (t) => {
  const reader = createDurationReader('auto');
  for (let at = 0; at < 9; at += 1) reader.read(7, 'a', learned);
  t.deepEqual(reader.formats(), { a: { format: 'ms', guessed: true } });
  reader.read(7, 'a', learned);
  reader.read(0.5, 'b', learned);
  reader.read('5ms', 'c', learned);
  t.deepEqual(reader.formats(), {
    a: { format: 'ms', guessed: false },
    b: { format: 's', guessed: false },
    c: { format: 'string', guessed: false },
  });
});

test('uses the setting instead of learning, except for strings', (t) => {
  t.is(createDurationReader('ms').read(2_000_000, 'a', learned), 2_000_000);
  t.is(createDurationReader('ns').read(5, 'a', learned), 0.000005);
  t.is(createDurationReader('s').read(2, 'a', learned), 2000);
  t.is(createDurationReader('ms').read('1.5s', 'a', learned), 1500);
  t.is(createDurationReader('string').read(2, 'a', learned), undefined);
});

test('limits its memory for any number of loggers', (t) => {
  const reader = createDurationReader('auto');
  for (let at = 0; at < 10_000; at += 1) reader.read(0.5, `${at}`, learned);
  t.is(Object.keys(reader.formats()).length, 201);
  t.deepEqual(reader.formats()['_other'], { format: 's', guessed: false });
});
