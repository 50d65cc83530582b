import test from 'ava';
import { phrase, textOf } from './phrase.js';

test('a phrase separates its times, also those of nested phrases, and converts to text', (t) => {
  const time = { iso: '2026-11-23T20:00:00Z', text: '20:00' };
  const words = phrase`${'p95 rose'} ${phrase`at ${time} UTC`}${''}`;
  t.deepEqual(
    words.filter((part) => typeof part !== 'string'),
    [time],
  );
  t.is(textOf(words), 'p95 rose at 20:00 UTC');
});
