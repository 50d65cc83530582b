import test from 'ava';
import { OwnClock, SilenceWatch, silentMsMax, tickMs } from './silence.js';

test('reports a worker after 2 s without an answer, but not after a pause of 1.5 s', (t) => {
  let nowMs = 0;
  const clock = new OwnClock(() => nowMs);
  const watch = new SilenceWatch();
  const silentAfter = (ms: number): number | undefined => {
    for (const endMs = nowMs + ms; nowMs < endMs; ) {
      nowMs += tickMs;
      const silentMs = watch.tick(clock.tick());
      if (silentMs !== undefined) return silentMs;
    }
    return undefined;
  };
  for (let at = 0; at < 3; at += 1) {
    t.is(silentAfter(1500), undefined);
    watch.answered();
  }
  t.is(silentAfter(10_000), silentMsMax);
});

test('does not count time in which the supervisor itself was paused', (t) => {
  let nowMs = 0;
  const clock = new OwnClock(() => nowMs);
  const watch = new SilenceWatch();
  nowMs += 40_000;
  t.is(watch.tick(clock.tick()), undefined);
  nowMs += 1000;
  t.is(watch.tick(clock.tick()), undefined);
});
