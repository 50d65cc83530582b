import test from 'ava';
import { createDecoder } from '../../decode/decode.js';
import { encoderProblems } from './encoder-problems.js';

/** Values of Caddy's `time_format`, each with a time that it writes. */
const timeFormats: readonly (readonly [format: string, written: string | number])[] = [
  ['unix_seconds_float', 1_795_464_297.626],
  ['unix_milli_float', 1_795_464_297_626.12],
  ['iso8601', '2026-11-23T20:04:57.626Z'],
  ['rfc3339', '2026-11-23T20:04:57Z'],
  ['rfc3339_nano', '2026-11-23T20:04:57.626123456Z'],
  ['wall', '2026/11/23 20:04:57'],
  ['wall_milli', '2026/11/23 20:04:57.626'],
  ['wall_nano', '2026/11/23 20:04:57.626123456'],
  ['common_log', '23/Nov/2026:20:04:57 +0000'],
  ['2006-01-02 15:04:05.000 -0700', '2026-11-23 20:04:57.626 +0000'],
  ['2006-01-02T15:04:05,000Z0700', '2026-11-23T20:04:57,626Z'],
  ['2006-01-02 15:04:05 MST', '2026-11-23 20:04:57 UTC'],
  ['15:04:05.000', '20:04:57.626'],
  ['Mon Jan 2 15:04:05 2006', 'Mon Nov 23 20:04:57 2026'],
  ['Jan _2 15:04:05.000', 'Nov 23 20:04:57.626'],
  ['2006-01-02 03:04:05PM', '2026-11-23 08:04:57PM'],
];

for (const [format, written] of timeFormats) {
  test(`reports time_format ${format} as the decoder reads ${JSON.stringify(written)}`, (t) => {
    const line = JSON.stringify({
      level: 'info',
      ts: written,
      logger: 'http.log.access',
      msg: 'handled request',
      request: { host: 'a' },
      duration: 0.1,
      size: 1,
      status: 200,
    });
    const decoded = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' }).decode(line, 0);
    if (decoded.kind !== 'request') return t.fail(decoded.kind);
    const codes = encoderProblems({ format: 'json', time_format: format }).map(({ code }) => code);
    t.is(codes.includes('unknown-time-format'), decoded.timeOfArrival);
    if (decoded.timeOfArrival) return;
    const { timeMs, timeNs } = decoded.event;
    t.is(codes.includes('whole-seconds'), timeMs % 1000 === 0 && timeNs === 0);
    const berlin = createDecoder({ timeZone: 'Europe/Berlin', durationFormat: 'auto' }).decode(line, 0);
    t.is(codes.includes('no-time-zone'), berlin.kind === 'request' && berlin.event.timeMs !== timeMs);
  });
}
