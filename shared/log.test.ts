import test from 'ava';
import { rateLimitedWarn } from './log.js';

test('writes the first message of a key, then one per interval with the number of suppressed ones', (t) => {
  const written: unknown[] = [];
  let timeMs = 0;
  const warn = rateLimitedWarn(
    (...message) => {
      written.push(message);
    },
    { intervalMs: 1000, monotonicMs: () => timeMs },
  );
  for (timeMs = 0; timeMs <= 1000; timeMs += 250) warn('a', 'text', { peer: 'x' });
  warn('b', 'other');
  t.deepEqual(written, [
    ['text', { peer: 'x' }],
    ['text', { peer: 'x', alsoSinceLastReport: 3 }],
    ['other', undefined],
  ]);
});

test('suppresses no message when the clock is set back', (t) => {
  const written: string[] = [];
  const { now } = Date;
  let aheadMs = 730 * 86_400_000;
  t.teardown(() => {
    Date.now = now;
  });
  Date.now = () => now() + aheadMs;
  const warn = rateLimitedWarn(
    (message) => {
      written.push(message);
    },
    { intervalMs: 0 },
  );
  warn('a', 'before');
  aheadMs = 0;
  warn('a', 'after');
  t.deepEqual(written, ['before', 'after']);
});
