/**
 * Parses times in all of Caddy's formats, up to nanoseconds. Works on text, since a double can hold neither nanoseconds
 * since 1970 nor all digits that Caddy wrote.
 */
import { isCalendarDate } from '../../shared/time-range.js';

/** Milliseconds since 1970 in UTC, and the remaining nanoseconds. */
export interface Time {
  readonly timeMs: number;
  readonly timeNs: number;
}

/** Converts local time, given as milliseconds since 1970 as if it were UTC, to milliseconds since 1970. */
export type WallClock = (wallMs: number, nearMs: number | undefined) => number;

/** Upper bound of times: with it, nanoseconds since 1970 fit into 64 bits. */
const timeMaxMs = Date.UTC(2200, 0, 1);

/**
 * Parses a time from a JSON number: `unix_seconds_float`, `unix_milli_float` or `unix_nano`, by magnitude. Reads
 * integers above 2^53 again from `line`, since JSON.parse has rounded them.
 */
export function readTimeNumber(value: number, line: string): Time | undefined {
  if (value < 1e15) return readDecimal(String(value), 0);
  // A match within a string is possible, but clients cannot predict the nanosecond.
  for (const [, digits] of line.matchAll(/:\s?(\d{16,19})\s?[,}]/g)) {
    if (Number(digits) === value) return timeOfNanoseconds(digits!);
  }
  return undefined;
}

/**
 * Parses a time from a string: `iso8601`, `rfc3339`, `rfc3339_nano`, `wall`, `wall_milli`, `wall_nano`, `common_log`,
 * or a number from the console encoder. `wallClock` converts times without a zone; `nearMs` is the approximate time,
 * if known.
 */
export function readTimeText(text: string, wallClock: WallClock, nearMs: number | undefined): Time | undefined {
  if (text.length < 10 || text.length > 40) return undefined;
  return (
    readCalendar(text, wallClock, nearMs) ??
    readCommonLog(text) ??
    (/^\d{19}$/.test(text) ? timeOfNanoseconds(text) : readDecimal(withoutExponent(text), 10))
  );
}

/** The console encoder writes seconds as `1.7954768928295252e+09`, and milliseconds likewise. */
function withoutExponent(text: string): string {
  const match = /^(\d)(?:\.(\d{1,17}))?e\+(09|12)$/.exec(text);
  if (match === null) return text;
  const [, first, rest = '', exponent] = match;
  const digits = rest.padEnd(18, '0');
  return `${first}${digits.slice(0, Number(exponent))}.${digits.slice(Number(exponent))}`;
}

/** Seconds of up to ten digits or milliseconds of up to thirteen. */
function readDecimal(text: string, digitsMin: number): Time | undefined {
  const match = /^(\d{1,13})(?:\.(\d{1,9})\d*)?$/.exec(text);
  if (match === null) return undefined;
  const [, whole = '', fraction = ''] = match;
  if (whole.length < digitsMin) return undefined;
  if (whole.length > 10) return timeWithin(Number(whole), Number(fraction.slice(0, 6).padEnd(6, '0')));
  const digits = fraction.padEnd(9, '0');
  return timeWithin(Number(whole) * 1000 + Number(digits.slice(0, 3)), Number(digits.slice(3)));
}

function timeOfNanoseconds(digits: string): Time | undefined {
  return timeWithin(Number(digits.slice(0, -6)), Number(digits.slice(-6)));
}

/**
 * `2026-11-23T20:04:57.626Z`, `2026-11-23T20:04:57+01:00`, `2026/11/23 20:04:57.626`. Fraction and zone are optional.
 */
function readCalendar(text: string, wallClock: WallClock, nearMs: number | undefined): Time | undefined {
  const match = /^(\d{4})([-/])(\d\d)\2(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?: ?(Z|[+-]\d\d:?\d\d))?$/.exec(
    text,
  );
  if (match === null) return undefined;
  const [, year, , month, day, hour, minute, second, fraction = '', zone] = match;
  if (!isCalendarDate(Number(year), Number(month), Number(day))) return undefined;
  const wallMs = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  const digits = fraction.padEnd(9, '0');
  const timeMs = zone === undefined ? wallClock(wallMs, nearMs) : wallMs - zoneMs(zone);
  return timeWithin(timeMs + Number(digits.slice(0, 3)), Number(digits.slice(3)));
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `23/Nov/2026:20:04:57 +0000` */
function readCommonLog(text: string): Time | undefined {
  const match = /^(\d\d)\/([A-Z][a-z]{2})\/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})$/.exec(text);
  if (match === null) return undefined;
  const [, day, month, year, hour, minute, second, zone] = match;
  const monthIndex = months.indexOf(month!);
  if (!isCalendarDate(Number(year), monthIndex + 1, Number(day))) return undefined;
  return timeWithin(
    Date.UTC(Number(year), monthIndex, Number(day), Number(hour), Number(minute), Number(second)) - zoneMs(zone!),
    0,
  );
}

/** `Z`, `+0100` or `+01:00`. */
function zoneMs(zone: string): number {
  if (zone === 'Z') return 0;
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(-2));
  return (zone.startsWith('-') ? -minutes : minutes) * 60_000;
}

function timeWithin(timeMs: number, timeNs: number): Time | undefined {
  return timeMs >= 0 && timeMs < timeMaxMs ? { timeMs, timeNs } : undefined;
}
