import test from 'ava';
import { readTimeText } from './time.js';
import { createWallClock } from './wall-clock.js';

const utc = createWallClock('UTC');

const times = test.macro({
  exec(t, text: string, iso: string | undefined, timeNs = 0) {
    t.deepEqual(
      readTimeText(text, utc, undefined),
      iso === undefined ? undefined : { timeMs: Date.parse(iso), timeNs },
    );
  },
  title: (_, text: string, iso: string | undefined, timeNs: number | undefined = 0) =>
    `reads the time ${JSON.stringify(text)} as ${iso === undefined ? 'invalid' : `${iso} and ${timeNs} ns`}`,
});
test(times, '2026-11-23T20:04:57.626Z', '2026-11-23T20:04:57.626Z');
test(times, '2026-11-23T21:04:57.626+0100', '2026-11-23T20:04:57.626Z');
test(times, '2026-11-23T21:04:57+01:00', '2026-11-23T20:04:57Z');
test(times, '2026-11-23T14:34:57.626123456-05:30', '2026-11-23T20:04:57.626Z', 123_456);
test(times, '2026-11-23T20:04:57.6Z', '2026-11-23T20:04:57.600Z');
test(times, '2026/11/23 20:04:57', '2026-11-23T20:04:57Z');
test(times, '2026/11/23 20:04:57.626123456', '2026-11-23T20:04:57.626Z', 123_456);
test(times, '23/Nov/2026:21:04:57 +0100', '2026-11-23T20:04:57Z');
test(times, '1795476892829525219', '2026-11-23T23:34:52.829Z', 525_219);
test(times, '1.7954768928295252e+09', '2026-11-23T23:34:52.829Z', 525_200);
test(times, '1.7954768928295252e+12', '2026-11-23T23:34:52.829Z', 525_200);
test(times, '23/Foo/2026:21:04:57 +0100', undefined);
test(times, '2026-02-30T10:00:00Z', undefined);
test(times, '31/Feb/2026:21:04:57 +0100', undefined);
test(times, '0001-01-01T00:00:00Z', undefined);
test(times, '9999-01-01T00:00:00Z', undefined);
test(times, '20:04:57.626', undefined);
test(times, '20261123200457', undefined);
test(times, 'Mon, 23 Nov 2026 20:04:57 UTC', undefined);

const walls = test.macro({
  exec(t, timeZone: string, wall: string, iso: string, near?: string) {
    t.is(
      new Date(
        createWallClock(timeZone)(Date.parse(`${wall}Z`), near === undefined ? undefined : Date.parse(near)),
      ).toISOString(),
      `${iso}.000Z`,
    );
  },
  title: (_, timeZone: string, wall: string, iso: string, near?: string) =>
    `converts ${wall} in ${timeZone} to ${iso} in UTC${near === undefined ? '' : `, near ${near}`}`,
});
test(walls, 'Europe/Berlin', '2026-07-01T12:00:00', '2026-07-01T10:00:00');
test(walls, 'Europe/Berlin', '2026-11-23T12:00:00', '2026-11-23T11:00:00');
test(walls, 'Asia/Kolkata', '2026-11-23T12:00:00', '2026-11-23T06:30:00');
test(walls, 'America/St_Johns', '2026-11-23T12:00:00', '2026-11-23T15:30:00');
test(walls, 'UTC', '2026-11-23T12:00:00', '2026-11-23T12:00:00');
// The hour from 02:00 is repeated.
test(walls, 'Europe/Berlin', '2026-10-25T02:30:00', '2026-10-25T00:30:00');
test(walls, 'Europe/Berlin', '2026-10-25T02:30:00', '2026-10-25T00:30:00', '2026-10-25T00:31:00Z');
test(walls, 'Europe/Berlin', '2026-10-25T02:30:00', '2026-10-25T01:30:00', '2026-10-25T01:30:01Z');
test(walls, 'Europe/Berlin', '2026-10-25T03:00:00', '2026-10-25T02:00:00');
test(walls, 'Europe/Berlin', '2026-10-25T01:59:59', '2026-10-24T23:59:59');
// The hour from 02:00 is skipped.
test(walls, 'Europe/Berlin', '2026-03-29T02:30:00', '2026-03-29T01:30:00');
test(walls, 'Europe/Berlin', '2026-03-29T03:00:00', '2026-03-29T01:00:00');

test('refuses a time zone that does not exist', (t) => {
  t.throws(() => createWallClock('Mars/Olympus'), { instanceOf: RangeError });
});
